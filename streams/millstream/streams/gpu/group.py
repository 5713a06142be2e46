"""The consumer group that works off one kernel-batch topic.

1 read      calls from the committed position on, as many as there are, at most `max_rows`
2 decode    what can't be read goes to dead-letters, alone
3 launch    all in one; if that fails, one by one, and only the bad one is answered with its error
4 answer    a command to each asker, on the partition that it named
5 commit    only when the answers are durable: a worker killed before is followed by one that computes again
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from millstream.events.codec import Codec
from millstream.events.envelope import Command
from millstream.events.errors import AppendUnknown, LogUnavailable, OffsetOutOfRange, SchemaError, UnknownSchema
from millstream.events.kernel import DeadLetter, KernelCalled
from millstream.events.logs.port import Group, Log, Reader, Record, StoredRecord, TopicPartition
from millstream.events.registry import load_schemas
from millstream.events.topics import Topics
from millstream.streams.gpu.figures import compute, failed
from millstream.streams.runtime.clock import Chance, Clock, SystemClock
from millstream.streams.runtime.outbox import DEAD_LETTER_HEADER
from millstream.streams.runtime.sender import Sender

log_ = logging.getLogger("millstream.kernels")

IDLE_READ_S = 0.5


class KernelCounts(msgspec.Struct):
    calls: int = 0
    launches: int = 0
    failed: int = 0
    dead_letters: int = 0


class KernelGroup:
    """One member of the group for `kernel`. Run `run()`; `stop()` ends it after the batch under way.

    max_rows: calls in one launch at most. max_delay_s: how long a batch waits for company.
    """

    def __init__(
        self,
        log: Log,
        topics: Topics,
        codec: Codec,
        *,
        instance_id: str,
        kernel: str = "day_figures",
        max_rows: int = 256,
        max_delay_s: float = 0.002,
        compute: Callable[[Sequence[KernelCalled]], list[Command]] = compute,
        clock: Clock | None = None,
        chance: Chance | None = None,
        session_timeout_s: float | None = None,
    ) -> None:
        self._log, self._topics, self._codec = log, topics, codec
        self._topic, self._group_id = topics.kernel(kernel), topics.kernel_group(kernel)
        self._instance_id = instance_id
        self._max_rows, self._max_delay_s = max_rows, max_delay_s
        self._compute = compute
        self._clock = clock or SystemClock()
        self._sender = Sender(log, chance or Chance())
        self._session_timeout_s = session_timeout_s
        self._stopping = False
        self.counts = KernelCounts()

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        await load_schemas(self._log, self._topics, self._codec)
        group = await self._log.join(
            self._group_id, [self._topic], instance_id=self._instance_id, session_timeout_s=self._session_timeout_s
        )
        reader = self._log.reader({})
        generation = -1
        watching: asyncio.Task[frozenset[TopicPartition]] | None = None
        try:
            while not self._stopping:
                if group.generation != generation:
                    generation = group.generation
                    reader.assign(await self._positions(group, group.assignment))
                if not group.assignment:
                    watching = watching or asyncio.ensure_future(group.changed(generation))
                    await asyncio.wait([watching], timeout=IDLE_READ_S)
                    if watching.done():
                        watching.result()
                        watching = None
                    continue
                got = await reader.read(max_records=self._max_rows, timeout_s=IDLE_READ_S)
                if got and self._max_delay_s and sum(map(len, got.values())) < self._max_rows:
                    await asyncio.sleep(self._max_delay_s)
                    for tp, more in (await reader.read(max_records=self._max_rows, timeout_s=0)).items():
                        got[tp] = [*got.get(tp, []), *more]
                if got and not await self._work(got, group, reader):
                    generation = -1
        finally:
            if watching is not None:
                watching.cancel()
            await reader.close()
            await self._sender.close()
            await group.close(leave=self._stopping)

    async def _positions(self, group: Group, assignment: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to go on. Committed offsets can expire; then all that is left is computed again, and refused as stale."""
        positions: dict[TopicPartition, int] = {}
        for tp in assignment:
            committed = await group.committed(tp)
            bounds = await self._log.bounds(tp.topic, tp.partition)
            if committed is None:
                if bounds.end > bounds.first:
                    log_.warning("%s partition %d: no committed position; beginning at %d", *tp, bounds.first)
                committed = bounds.first
            elif not bounds.first <= committed <= bounds.end:
                raise OffsetOutOfRange(tp.topic, tp.partition, committed, bounds.first, bounds.end)
            positions[tp] = committed
        return positions

    async def _work(self, got: dict[TopicPartition, list[StoredRecord]], group: Group, reader: Reader) -> bool:
        """One batch, to the commit. False where it has to be read again."""
        calls: list[KernelCalled] = []
        for tp, records in got.items():
            for record in records:
                try:
                    calls.append(await self._read(record))
                except SchemaError as unreadable:
                    await self._dead_letter(tp, record, str(unreadable))
        for start in range(0, len(calls), self._max_rows):
            batch = calls[start : start + self._max_rows]
            await self._answer(batch, self._launch(batch))
            await asyncio.sleep(0)
        try:
            await group.commit({tp: records[-1].offset + 1 for tp, records in got.items() if records})
        except (AppendUnknown, LogUnavailable) as lost:
            log_.info("the position was not committed (%s); the batch will be computed again", lost)
        return True

    async def _read(self, record: StoredRecord) -> KernelCalled:
        if record.value is None:
            raise SchemaError("the record has no value, so it is no kernel call")
        try:
            call = self._codec.decode(record.value)
        except UnknownSchema:
            await load_schemas(self._log, self._topics, self._codec)
            call = self._codec.decode(record.value)
        if type(call) is not KernelCalled:
            raise SchemaError(f"the record is a {type(call).__name__}, not a kernel call")
        if not 0 <= call.reply_partition < self._topics.partitions:
            raise SchemaError(
                f"the answer is wanted on partition {call.reply_partition}, and there are {self._topics.partitions}"
            )
        return call

    def _launch(self, calls: Sequence[KernelCalled]) -> list[Command]:
        self.counts.calls += len(calls)
        self.counts.launches += 1
        try:
            return self._compute(calls)
        except Exception as error:  # noqa: BLE001 - whatever a kernel raises is the answer to its caller
            if len(calls) == 1:
                self.counts.failed += 1
                return [failed(calls[0], f"{type(error).__name__}: {error}")]
        # Somebody in the batch is bad; alone each of them shows who, and the others don't suffer for it.
        return [answer for call in calls for answer in self._launch([call])]

    async def _answer(self, calls: Sequence[KernelCalled], answers: Sequence[Command]) -> None:
        futures = []
        for call, command in zip(calls, answers, strict=True):
            tp = TopicPartition(self._topics.commands, call.reply_partition)
            futures.append(await self._sender.post(tp, Record(self._codec.encode(command), command.run_id.encode())))
        await asyncio.gather(*futures)

    async def _dead_letter(self, tp: TopicPartition, record: StoredRecord, reason: str) -> None:
        self.counts.dead_letters += 1
        note = DeadLetter(tp.topic, tp.partition, record.offset, record.timestamp, reason, self._clock.wall_ms())
        header = (DEAD_LETTER_HEADER, self._codec.encode(note))
        await self._sender.send(
            TopicPartition(self._topics.dead_letters, 0), Record(record.value, record.key, (*record.headers, header))
        )
