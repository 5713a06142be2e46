"""The log in memory: the twin for tests and the simulator. Ships with the package.

A `MemoryCluster` holds the data and outlives every process; a `MemoryLog` is one
process's handle on it, and several share one. One event loop, no thread, no clock
and no chance but those passed in; waits are futures and the loop's own timers, so a
loop with a virtual clock works. Faults are off unless given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from millstream.events.errors import (
    AppendUnknown,
    LogUnavailable,
    OffsetOutOfRange,
    PartitionCountMismatch,
    TopicMissing,
)
from millstream.events.logs.memory_cluster import MemoryCluster, Pending, Stream, resolve
from millstream.events.logs.memory_faults import End, Faults
from millstream.events.logs.memory_groups import GroupState, MemoryGroup
from millstream.events.logs.port import (
    Appended,
    Bounds,
    LogLimits,
    Notice,
    Record,
    TopicPartition,
    TopicSpec,
)
from millstream.events.logs.reading import Part, PartReader
from millstream.events.logs.sizes import batch_bytes
from millstream.events.logs.specs import compare_specs

GROUP_SESSION_S = 3.0


class MemoryReader(PartReader):
    """A reader of one handle."""

    def __init__(self, log: MemoryLog, positions: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._waits: dict[asyncio.Future[None], None] = {}
        super().__init__(positions)

    def _mark(self) -> int:
        self._log.check_usable()
        self._log.cluster.count_operation()
        return self._log.cluster.changes

    def _part(self, tp: TopicPartition, position: int, max_records: int) -> Part | None:
        stream = self._log.cluster.streams.get(tp)
        if stream is None:
            return None
        begin = max(0, position - stream.first)
        return Part(stream.incarnation, stream.first, stream.end, stream.records[begin : begin + max_records])

    async def _wait(self, mark: int, timeout_s: float | None) -> None:
        await self._log.cluster.wait_change(mark, self._positions, self._waits, timeout_s)
        self._log.check_usable()

    def _poke(self) -> None:
        for future in self._waits:
            resolve(future)


class MemoryLog:
    """One process's handle on a cluster. faults: how appends end. delay_s: how long one is on its way.

    `crash()` is the end of the process: what waits is cancelled, what comes later is refused with `LogUnavailable`,
    and its memberships fall silent. `retire()` gives up what is under way; with faults it may land late all the same.
    """

    def __init__(
        self,
        cluster: MemoryCluster | None = None,
        *,
        faults: Faults | None = None,
        delay_s: Callable[[], float] | None = None,
        limits: LogLimits | None = None,
        session_timeout_s: float = GROUP_SESSION_S,
        notice: Notice | None = None,
    ) -> None:
        self.cluster = cluster or MemoryCluster()
        self.faults = faults
        self._delay_s = delay_s
        self._limits = limits or LogLimits()
        self._session_timeout_s = session_timeout_s
        self._pending: list[Pending] = []
        self._readers: list[MemoryReader] = []
        self._groups: list[MemoryGroup] = []
        self._gone = ""

    @property
    def limits(self) -> LogLimits:
        return self._limits

    @property
    def kind(self) -> Literal["kafka", "embedded", "memory"]:
        return "memory"

    async def start(self) -> None:
        self.check_usable()

    def check_usable(self) -> None:
        """Raise `LogUnavailable` after `crash` or `close`."""
        if self._gone:
            raise LogUnavailable(f"this handle on the memory log was {self._gone}; open another one")

    async def close(self) -> None:
        if not self._gone:
            self._give_up_pending("the log was closed")
            for group in self._groups:
                await group.close()
            for reader in self._readers:
                await reader.close()
            self._gone = "closed"

    def crash(self) -> None:
        """The process dies: waits are cancelled, unfinished appends are orphans, memberships fall silent."""
        self._give_up_pending(None)
        self._gone = "crashed"
        for reader in self._readers:
            for future in list(reader._waits):
                future.cancel()
        for group in self._groups:
            group.fall_silent()

    def fall_silent(self) -> None:
        """The group no longer hears from this process, nor it from the group, until `speak_again`."""
        for group in self._groups:
            group.fall_silent()

    def speak_again(self) -> None:
        """Heartbeats come through again: memberships that ran out are joined anew."""
        for group in self._groups:
            group.speak_again()

    async def identity(self) -> str:
        self.check_usable()
        return self.cluster.identity

    async def ensure_topic(self, spec: TopicSpec) -> None:
        self.check_usable()
        if spec.name not in self.cluster.specs:
            if spec.partitions < 1:
                raise PartitionCountMismatch(f"{spec.name!r} can't be made with {spec.partitions} partitions")
            self.cluster.make_topic(spec)
            for group in self.cluster.groups.values():
                group.topics_changed()
        compare_specs(spec, self.cluster.specs[spec.name])

    async def delete_topic(self, topic: str) -> None:
        self.check_usable()
        self.cluster.drop_topic(topic)
        for group in self.cluster.groups.values():
            group.forget_topic(topic)

    async def partitions(self, topic: str) -> int | None:
        self.check_usable()
        spec = self.cluster.specs.get(topic)
        return spec.partitions if spec else None

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        batch_bytes(topic, records, self._limits)
        self.check_usable()
        tp = TopicPartition(topic, partition)
        stream = self.cluster.streams.get(tp)
        if stream is None:
            raise AppendUnknown(
                f"{topic!r} partition {partition} is not on this log; nothing was appended. Make the topic first."
            )
        end = self.faults.next_end(topic, partition) if self.faults else End.OK
        loop = asyncio.get_running_loop()
        pending = Pending(tp, stream.incarnation, list(records), end, loop.create_future())
        self._pending.append(pending)
        if self._delay_s is None:
            pending.timer = loop.call_soon(self._arrive, pending)
        else:
            pending.timer = loop.call_later(self._delay_s(), self._arrive, pending)
        return await pending.told

    def _arrive(self, pending: Pending) -> None:
        """The append has reached the log: carry out its end."""
        cluster, told, end = self.cluster, pending.told, pending.end
        cluster.count_operation()
        stream = cluster.streams.get(pending.tp)
        if stream is None or stream.incarnation != pending.incarnation:
            _tell_error(told, f"{pending.tp.topic!r} was deleted while an append was on its way")
        elif end in (End.OK, End.LANDED_ERROR, End.LANDED_NO_OFFSET, End.LANDED_OTHER_OFFSET, End.TWICE):
            pending.landed = True
            landed = cluster.land(pending.tp, pending.records)
            self._tell(pending, landed)
        elif end in (End.LATE_ERROR, End.LATE_SILENT):
            assert self.faults is not None
            pending.landed = True  # on its way for good: `retire` adds no second copy
            cluster.land_later(pending, self.faults.late_after())
        if end in (End.LANDED_ERROR, End.LATE_ERROR, End.REFUSED):
            _tell_error(told, f"the append to {pending.tp.topic!r} partition {pending.tp.partition} had an error")
        if told.done():
            self._pending.remove(pending)

    def _tell(self, pending: Pending, landed: Appended) -> None:
        told = pending.told
        if told.done() or pending.end is End.LANDED_ERROR:
            return
        if pending.end is End.LANDED_NO_OFFSET:
            landed = Appended(-1, -1)
        elif pending.end is End.LANDED_OTHER_OFFSET:
            assert self.faults is not None
            landed = Appended(self.faults.wrong_offset(landed.offset), landed.timestamp)
        elif pending.end is End.TWICE:
            assert self.faults is not None
            self.cluster.land_later(pending, self.faults.late_after())
        told.set_result(landed)

    def _give_up_pending(self, why: str | None) -> None:
        """Leave what is under way; with faults, some of it lands late. why None: nobody is there to be told."""
        pending, self._pending = self._pending, []
        for p in pending:
            if p.timer is not None:
                p.timer.cancel()
            if self.faults and not p.landed and p.end is not End.NEVER and self.faults.orphan_lands():
                p.landed = True
                self.cluster.land_later(p, self.faults.late_after())
            if why is None:
                p.told.cancel()
            else:
                _tell_error(p.told, why)

    async def retire(self) -> None:
        self._give_up_pending("the producer was retired while an append was under way")

    def reader(self, positions: Mapping[TopicPartition, int]) -> MemoryReader:
        self.check_usable()
        reader = MemoryReader(self, positions)
        self._readers = [r for r in self._readers if not r._closed]
        self._readers.append(reader)
        return reader

    def _stream(self, topic: str, partition: int) -> Stream:
        self.check_usable()
        self.cluster.count_operation()
        stream = self.cluster.streams.get(TopicPartition(topic, partition))
        if stream is None:
            raise TopicMissing(f"{topic!r} partition {partition} is not on this log. Make the topic first.")
        return stream

    async def bounds(self, topic: str, partition: int) -> Bounds:
        stream = self._stream(topic, partition)
        return Bounds(stream.first, stream.end)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        stream = self._stream(topic, partition)
        if offset > stream.end:
            raise OffsetOutOfRange(topic, partition, offset, stream.first, stream.end)
        if offset > stream.first:
            del stream.records[: offset - stream.first]
            stream.first = offset

    async def join(
        self, group: str, topics: Sequence[str], *, instance_id: str, session_timeout_s: float | None = None
    ) -> MemoryGroup:
        self.check_usable()
        state = self.cluster.groups.get(group)
        if state is None:
            state = self.cluster.groups[group] = GroupState(group, self._partitions_of)
        session_s = self._session_timeout_s if session_timeout_s is None else session_timeout_s
        member = MemoryGroup(state, instance_id, frozenset(topics), session_s)
        self._groups.append(member)
        return member

    def _partitions_of(self, topics: frozenset[str]) -> list[TopicPartition]:
        return [tp for tp in self.cluster.streams if tp.topic in topics]

    async def __aenter__(self) -> MemoryLog:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _tell_error(told: asyncio.Future[Appended], text: str) -> None:
    if not told.done():
        told.set_exception(AppendUnknown(f"{text}. It may have landed, may still land, or never will: read the log."))
