"""What a memory log holds: it outlives the processes that use it, as a broker does."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Container, Sequence

import msgspec

from millstream.events.logs.memory_faults import End
from millstream.events.logs.memory_groups import GroupState
from millstream.events.logs.port import Appended, Record, StoredRecord, TopicPartition, TopicSpec


def wall_clock_ms() -> int:
    """The machine's clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


class Stream(msgspec.Struct):
    """One partition's records. `records[i]` has offset `first + i`. incarnation: unique to this creation."""

    incarnation: int
    first: int = 0
    records: list[StoredRecord] = msgspec.field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.records)


class Pending(msgspec.Struct, eq=False):
    """An append between sender and log."""

    tp: TopicPartition
    incarnation: int
    records: Sequence[Record]
    end: End
    told: asyncio.Future[Appended]
    landed: bool = False
    timer: asyncio.Handle | None = None


class MemoryCluster:
    """What the log holds, for all handles. now_ms: the log's clock.

    `operations` counts what handles ask for; late appends land by it.
    """

    def __init__(self, *, now_ms: Callable[[], int] = wall_clock_ms, identity: str = "memory") -> None:
        self.now_ms = now_ms
        self.identity = identity
        self.specs: dict[str, TopicSpec] = {}
        self.streams: dict[TopicPartition, Stream] = {}
        self.groups: dict[str, GroupState] = {}
        self.operations = 0
        self.changes = 0
        self._late: list[tuple[int, int, Pending]] = []
        self._order = itertools.count()
        self._incarnations = itertools.count(1)
        self._last_ms = 0
        # Not a set: who is woken first must follow from the seed, not from addresses.
        self._waiting: dict[asyncio.Future[None], Container[TopicPartition]] = {}

    def make_topic(self, spec: TopicSpec) -> None:
        self.specs[spec.name] = spec
        for p in range(spec.partitions):
            self.streams[TopicPartition(spec.name, p)] = Stream(next(self._incarnations))
        self.wake()

    def drop_topic(self, topic: str) -> None:
        spec = self.specs.pop(topic, None)
        for p in range(spec.partitions if spec else 0):
            del self.streams[TopicPartition(topic, p)]
        self.wake()

    def truncate(self, tp: TopicPartition, end: int) -> None:
        """Cut the records from offset `end` on, as a broker that lost its newest data would."""
        stream = self.streams[tp]
        del stream.records[max(0, end - stream.first) :]
        self.wake()

    def land(self, tp: TopicPartition, records: Sequence[Record]) -> Appended:
        """Append now, whoever asked. The clock of the log never goes back."""
        stream = self.streams[tp]
        self._last_ms = at = max(self._last_ms, self.now_ms())
        base = stream.end
        for offset, r in enumerate(records, base):
            stream.records.append(StoredRecord(offset, at, r.key, r.value, tuple(r.headers)))
        self.wake(tp)
        return Appended(base, at)

    def land_later(self, pending: Pending, operations: int) -> None:
        """Land it when so many further operations have been counted, if its topic is still the same one."""
        self._late.append((self.operations + operations, next(self._order), pending))
        self._late.sort(key=lambda late: late[:2])

    def count_operation(self) -> None:
        self.operations += 1
        while self._late and self._late[0][0] <= self.operations:
            self._land_late(self._late.pop(0)[2])

    def settle(self, *, land: bool = True) -> None:
        """End of the network's memory: everything late lands now, or never will."""
        late, self._late = self._late, []
        for _, _, pending in late if land else ():
            self._land_late(pending)

    def _land_late(self, pending: Pending) -> None:
        stream = self.streams.get(pending.tp)
        if stream is not None and stream.incarnation == pending.incarnation:
            pending.landed = True
            self.land(pending.tp, pending.records)

    def wake(self, tp: TopicPartition | None = None) -> None:
        """A partition (None: any) has changed: let everybody who waits for it look again."""
        self.changes += 1
        for future, watched in list(self._waiting.items()):
            if tp is None or tp in watched:
                resolve(future)
                del self._waiting[future]

    async def wait_change(
        self,
        mark: int,
        watched: Container[TopicPartition],
        own: dict[asyncio.Future[None], None],
        timeout_s: float | None,
    ) -> None:
        """Until a partition in `watched` has changed, a future in `own` is resolved by somebody else, or the time-out.

        Returns at once where `changes` is no longer `mark`.
        """
        if self.changes != mark:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, resolve, future)
        self._waiting[future] = watched
        own[future] = None
        try:
            await future
        finally:
            self._waiting.pop(future, None)
            own.pop(future, None)
            if timer is not None:
                timer.cancel()


def resolve(future: asyncio.Future[None]) -> None:
    """Let the wait go on, if it still waits."""
    if not future.done():
        future.set_result(None)
