"""Append records in order per partition, many callers sharing one append: what waits while one is under way goes together."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from millstream.events.errors import AppendUnknown, LogUnavailable, RecordTooLarge, Refused
from millstream.events.logs.port import Log, Record, TopicPartition
from millstream.streams.runtime.clock import Chance

BATCH_RECORDS_MAX = 1000
QUEUE_BYTES_MAX = 32 * 1024 * 1024
BACKOFF_FIRST_S = 0.05
BACKOFF_CAP_S = 2.0


class _Waiting(NamedTuple):
    record: Record
    size: int
    future: asyncio.Future[int]


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
        self._room.set()

    async def send(self, tp: TopicPartition, record: Record) -> int:
        """Append; the offset of the record once it is durable. Raises `RecordTooLarge` before anything is sent."""
        return await (await self.post(tp, record))

    async def post(self, tp: TopicPartition, record: Record) -> asyncio.Future[int]:
        """Queue, waiting only for room; the future gets the offset."""
        size = len(record.value or b"") + len(record.key or b"") + 100
        limit = self._log.limits.record_bytes_max
        if size > limit:
            raise RecordTooLarge(tp.topic, size, limit)
        while not self._room.is_set():
            await self._room.wait()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        queue = self._queues.get(tp)
        if queue is None:
            queue = self._queues[tp] = deque()
        queue.append(_Waiting(record, size, future))
        self._bytes += size
        if self._bytes > QUEUE_BYTES_MAX:
            self._room.clear()
        if tp not in self._tasks:
            self._tasks[tp] = loop.create_task(self._drain(tp, queue))
        return future

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
            waiting = queue.popleft()
            self._bytes -= waiting.size
            if waiting.future.done():
                continue
            if error is not None:
                waiting.future.set_exception(error)
            else:
                waiting.future.set_result(base + index)
        if self._bytes <= QUEUE_BYTES_MAX // 2:
            self._room.set()
