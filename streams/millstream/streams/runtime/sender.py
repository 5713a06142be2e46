"""Append records in order per partition, many callers sharing one append: what waits while one is under way goes together."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

from millstream.events.errors import AppendUnknown, LogUnavailable, RecordTooLarge, Refused
from millstream.events.logs.port import Log, Record, TopicPartition
from millstream.streams.runtime.clock import Chance

BATCH_RECORDS_MAX = 1000
QUEUE_BYTES_MAX = 32 * 1024 * 1024
BACKOFF_FIRST_S = 0.05
BACKOFF_CAP_S = 2.0


class _Waiting(NamedTuple):
    """future: gets the offset if `wants_offset`, and in any case the error where the log refuses the record."""

    record: Record
    size: int
    future: asyncio.Future[Any]
    wants_offset: bool


class Sender:
    """At least once: an append whose end is unknown is sent again, so a record must carry an id of its own.

    Callers are held back while more than 32 MB wait (the log may be away for a night).
    """

    def __init__(self, log: Log, chance: Chance) -> None:
        self._log, self._chance = log, chance
        self._queues: dict[TopicPartition, deque[_Waiting]] = {}
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._bytes = 0
        self._room = asyncio.Event()

    async def send(self, tp: TopicPartition, record: Record) -> int:
        """Append; the offset of the record once it is durable. Raises `RecordTooLarge` before anything is sent."""
        return await (await self.post(tp, record))

    async def post(self, tp: TopicPartition, record: Record) -> asyncio.Future[int]:
        """Queue, waiting only for room; the future gets the offset."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self.has_room:
            await self.room()
        self.put(tp, record, future, wants_offset=True)
        return future

    @property
    def has_room(self) -> bool:
        return self._bytes <= QUEUE_BYTES_MAX

    async def room(self) -> None:
        """Wait until callers may queue again."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    def put(self, tp: TopicPartition, record: Record, future: asyncio.Future[Any], *, wants_offset: bool) -> None:
        """Queue at once; the caller has looked whether there `has_room`. Raises `RecordTooLarge`."""
        size = len(record.value or b"") + len(record.key or b"") + 100
        limit = self._log.limits.record_bytes_max
        if size > limit:
            raise RecordTooLarge(tp.topic, size, limit)
        queue = self._queues.get(tp)
        if queue is None:
            queue = self._queues[tp] = deque()
        queue.append(_Waiting(record, size, future, wants_offset))
        self._bytes += size
        if tp not in self._tasks:
            self._tasks[tp] = asyncio.get_running_loop().create_task(self._drain(tp, queue))

    async def flush(self) -> None:
        """Wait until all that was queued is durable."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Stop. What waits fails as unknown: it may or may not be on the log."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for queue in self._queues.values():
            for waiting in queue:
                if not waiting.future.done():
                    waiting.future.set_exception(
                        AppendUnknown("closed while it was being sent; ask again under the same id")
                    )
                    waiting.future.exception()

    async def _drain(self, tp: TopicPartition, queue: deque[_Waiting]) -> None:
        delay_s = BACKOFF_FIRST_S
        # One turn of the loop: callers that were woken together share the append.
        await asyncio.sleep(0)
        try:
            while queue:
                batch = self._take(queue)
                try:
                    appended = await self._log.append(tp.topic, tp.partition, [w.record for w in batch])
                except Refused as refused:
                    self._settle(queue, len(batch), error=refused)
                    continue
                except (AppendUnknown, LogUnavailable):
                    await asyncio.sleep(self._chance.jitter(delay_s))
                    delay_s = min(delay_s * 2, BACKOFF_CAP_S)
                    continue
                delay_s = BACKOFF_FIRST_S
                self._settle(queue, len(batch), base=appended.offset)
        finally:
            self._tasks.pop(tp, None)

    def _take(self, queue: deque[_Waiting]) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size, limit = 0, self._log.limits.batch_bytes_max - 1000
        for waiting in queue:
            size += waiting.size
            if batch and (size > limit or len(batch) == BATCH_RECORDS_MAX):
                break
            batch.append(waiting)
        return batch

    def _settle(self, queue: deque[_Waiting], count: int, *, base: int = -1, error: Exception | None = None) -> None:
        for index in range(count):
            _, size, future, wants_offset = queue.popleft()
            self._bytes -= size
            if error is None and not wants_offset:
                continue
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(base + index)
        if self._bytes <= QUEUE_BYTES_MAX // 2:
            self._room.set()
