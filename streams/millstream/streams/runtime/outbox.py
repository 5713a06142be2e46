"""Send what proved events ask to be sent: in order per target, again until it is acknowledged, each with the same id.

Rule 7 of the journal protocol. `watermark` is the output up to which all are
acknowledged; the owner writes it into its next transition, and a later owner
sends again only what lies above it. A target that refuses a record for good has
it dead-lettered, and it counts as sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from millstream.events.codec import Codec
from millstream.events.envelope import NOTHING_SENT, Event, Ref, Sent
from millstream.events.errors import AppendUnknown, LogUnavailable, OffsetOutOfRange, Refused
from millstream.events.kernel import DeadLetter
from millstream.events.logs.port import Log, Record, StoredRecord, TopicPartition, read_range
from millstream.events.topics import STREAM_PARTITIONS, Topics, partition_of
from millstream.streams.deciders.reactions import CallKernel, CopyCommand, Publish, SendCommand, react
from millstream.streams.runtime.clock import Chance

DEAD_LETTER_HEADER = "dead-letter"
BATCH_RECORDS_MAX = 500
BACKOFF_FIRST_S = 0.05
BACKOFF_CAP_S = 2.0


class Pending(NamedTuple):
    """An output to be sent: where it stands in the journal, the run it is of, the event that asks for it."""

    key: Sent
    run_id: str
    event: Event


class _Item(NamedTuple):
    key: Sent
    record: Record | CopyCommand


class Outbox:
    """The outputs of one partition. `wake` is called whenever the watermark has moved."""

    def __init__(
        self,
        *,
        log: Log,
        topics: Topics,
        partition: int,
        codec: Codec,
        chance: Chance,
        wake: Callable[[], None],
        now: Callable[[], int],
        stream_partitions: int = STREAM_PARTITIONS,
    ) -> None:
        self._log, self._topics, self._partition, self._codec = log, topics, partition, codec
        self._chance, self._wake, self._now = chance, wake, now
        self._stream_partitions = stream_partitions
        self._open: dict[Sent, bool] = {}
        self._copies: dict[Sent, int] = {}
        self._queues: dict[TopicPartition, deque[_Item]] = {}
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._gate = asyncio.Event()
        self._gate.set()
        self.heard: Callable[[], bool] = lambda: True
        """Whether the group has been heard lately. Asked before each send, since a process that was stopped and goes
        on may come here before anybody has closed the gate."""
        self._retry_limit: int | None = None
        self.watermark: Sent = NOTHING_SENT
        self.sent_count = 0

    @property
    def idle(self) -> bool:
        return not self._open

    def lowest_copy(self) -> int | None:
        """The lowest offset of `commands` that an output above the watermark copies, so that nobody cuts it away.

        Also of one that was sent: the next owner sends it again as long as the watermark is below it.
        """
        return min(self._copies.values(), default=None)

    def gate(self, is_open: bool) -> None:
        """Closed while the group hasn't been heard: a process that may have been replaced sends nothing new."""
        if is_open:
            self._gate.set()
        else:
            self._gate.clear()

    async def _until_heard(self) -> None:
        while not (self._gate.is_set() and self.heard()):
            self._gate.clear()
            await self._gate.wait()

    def merge(self, pending: Iterable[Pending], sent: Sent) -> None:
        """Take over after a claim: forget what others have sent (`sent`), add what isn't known here yet, in order."""
        self.watermark = max(self.watermark, sent)
        for key in [k for k in self._open if k <= sent]:
            self._open[key] = True
        known = set(self._open)
        for output in pending:
            if output.key > self.watermark and output.key not in known:
                self.add(output)
        self._advance()

    def add(self, output: Pending) -> None:
        """Queue one proved output. Called in journal order."""
        target, record = self._address(output)
        self._open[output.key] = False
        if isinstance(record, CopyCommand):
            self._copies[output.key] = record.offset
        queue = self._queues.get(target)
        if queue is None:
            queue = self._queues[target] = deque()
        queue.append(_Item(output.key, record))
        if target not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._drain(target, queue))
            self._tasks[target] = task

    async def close(self) -> None:
        """Stop sending. What is not acknowledged stays in the journal for the next owner."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def drained(self, timeout_s: float) -> bool:
        """Wait until all is acknowledged, at most `timeout_s`."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        return self.idle

    def _address(self, output: Pending) -> tuple[TopicPartition, Record | CopyCommand]:
        key, topics = output.key, self._topics
        output_id = Ref(self._partition, key.epoch_offset, key.claim_id, key.number).output_id(key.index)
        what = react(output.event, output_id=output_id, run_id=output.run_id, partition=self._partition)
        match what:
            case SendCommand(command, partition):
                to = topics.partition_of(command.run_id) if partition is None else partition
                record = Record(self._codec.encode(command), command.run_id.encode())
                return TopicPartition(topics.commands, to), record
            case CallKernel(call):
                to = topics.partition_of(call.run_id)
                record = Record(self._codec.encode(call), call.run_id.encode())
                return TopicPartition(topics.kernel(call.kernel), to), record
            case Publish(stream, record_key, value):
                to = partition_of(record_key, self._stream_partitions)
                record = Record(self._codec.encode(value), record_key.encode())
                return TopicPartition(topics.stream(stream), to), record
            case CopyCommand(_, to_partition):
                if to_partition is None:
                    return TopicPartition(topics.dead_letters, 0), what
                return TopicPartition(topics.commands, to_partition), what

    async def _drain(self, target: TopicPartition, queue: deque[_Item]) -> None:
        try:
            delay_s = BACKOFF_FIRST_S
            while queue:
                await self._until_heard()
                items = self._take(queue)
                try:
                    await self._send(target, items)
                except (AppendUnknown, LogUnavailable):
                    # It may have landed: readers drop the second copy by its id, so sending again is safe.
                    await asyncio.sleep(self._chance.jitter(delay_s))
                    delay_s = min(delay_s * 2, BACKOFF_CAP_S)
                    continue
                delay_s = BACKOFF_FIRST_S
                for _ in items:
                    queue.popleft()
                self._acknowledged(items)
        finally:
            self._tasks.pop(target, None)

    def _take(self, queue: deque[_Item]) -> list[_Item]:
        items: list[_Item] = []
        size, limit = 0, self._log.limits.batch_bytes_max // 2
        for item in queue:
            record = item.record
            size += len(record.value or b"") + 200 if isinstance(record, Record) else limit
            if items and (size > limit or len(items) == BATCH_RECORDS_MAX):
                break
            items.append(item)
        return items

    async def _send(self, target: TopicPartition, items: Sequence[_Item]) -> None:
        records = [
            i.record if isinstance(i.record, Record) else await self._copy(i.record, target.topic) for i in items
        ]
        try:
            await self._log.append(target.topic, target.partition, records)
        except Refused as refused:
            if len(records) > 1:
                for item in items:
                    await self._send(target, [item])
                return
            if target.topic == self._topics.dead_letters:
                records = [Record(None, None, tuple(h for h in records[0].headers if h[0] == DEAD_LETTER_HEADER))]
                await self._log.append(target.topic, target.partition, records)
                return
            await self._dead_letter(records[0], target, str(refused))
        self.sent_count += len(records)

    async def _dead_letter(self, record: Record, target: TopicPartition, reason: str) -> None:
        note = DeadLetter(target.topic, target.partition, -1, self._now(), reason, self._now())
        header = (DEAD_LETTER_HEADER, self._codec.encode(note))
        await self._log.append(self._topics.dead_letters, 0, [Record(None, record.key, (*record.headers, header))])

    async def _copy(self, what: CopyCommand, topic: str) -> Record:
        """The original, byte for byte; for dead-letters with one header more that says where from and why."""
        original = await self._read_command(what.offset)
        if what.to_partition is not None:
            return Record(original.value, original.key, original.headers)
        note = DeadLetter(
            self._topics.commands, self._partition, what.offset, original.timestamp, what.reason, self._now()
        )
        header = (DEAD_LETTER_HEADER, self._codec.encode(note))
        return Record(original.value, original.key, (*original.headers, header))

    async def _read_command(self, offset: int) -> StoredRecord:
        with contextlib.suppress(OffsetOutOfRange):
            async for batch in read_range(self._log, self._topics.commands, self._partition, offset, offset + 1):
                return batch[0]
        # Cut away meanwhile: say where it was; its bytes are gone.
        return StoredRecord(offset, self._now(), None, None)

    def _acknowledged(self, items: Sequence[_Item]) -> None:
        for item in items:
            if item.key in self._open:
                self._open[item.key] = True
        self._advance()
        self._wake()

    def _advance(self) -> None:
        while self._open:
            key = next(iter(self._open))
            if not self._open[key]:
                return
            del self._open[key]
            self._copies.pop(key, None)
            self.watermark = max(self.watermark, key)
