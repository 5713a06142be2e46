"""A small world for one sentence of the protocol: a log in memory, real owners and clients on it, a clock that jumps.

Nothing is left to chance: how appends end is scripted, and what else befalls the
processes the scenario does by hand. A scenario gets the classes that it runs, so
that the same one runs with the production class and with one whose rule is broken.

    async def scenario(world: World, owner_type: type[Owner]) -> int: ...
    assert play(scenario, Owner) == 1
    assert play(scenario, WithoutTheRule) == 2
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from millstream.events.codec import Codec
from millstream.events.daybook import CloseDay, EnterFlight, FlightEntered, OpenDay
from millstream.events.envelope import (
    FORMAT,
    NO_FENCE,
    Command,
    CommandBody,
    Event,
    Fence,
    Origin,
    OwnershipClaimed,
    Ref,
    Transition,
    claim_header,
    fence_header,
    read_fence_header,
)
from millstream.events.errors import AppendUnknown
from millstream.events.kernel import KernelCalled
from millstream.events.logs.memory import MemoryCluster, MemoryLog
from millstream.events.logs.memory_faults import End, Script
from millstream.events.logs.port import Appended, Header, LogLimits, Record, StoredRecord, TopicPartition
from millstream.events.topics import Topics
from millstream.projections.daybook import DayBook
from millstream.projections.fence import Gap, Judge, fence_after
from millstream.projections.fold import Runs
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import JournalReader
from millstream.projections.store import Store
from millstream.streams.deciders.table import decide
from millstream.streams.gpu.group import KernelGroup
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.feed import Feed
from millstream.streams.runtime.owner import Owner
from millstream.streams.runtime.prefix import extra_specs
from millstream.streams.runtime.server import Identity
from tests.simulation.parts import EPOCH_MS, SimClock, SimCodec
from tests.support.virtual_loop import PART, Part, VirtualLoop

T = TypeVar("T")
P = ParamSpec("P")

CODEC = SimCodec()
NEVER_LANDS = 1 << 30
"""So many operations that a late append lands only when the scenario says so (`world.land_late`)."""
APPEND_TIMEOUT_S = 1.0

DAY = "9E-2013-01-16"
MONTH = "9E-2013-01"
OPEN = OpenDay("9E", "2013-01-16", None)
CLOSE = CloseDay()


def flight(delay_min: float = 1.0, *, name: str = "1234") -> EnterFlight:
    return EnterFlight(name, "JFK", "BOS", False, delay_min)


def day(number: int, *, carrier: str = "9E", close_at: int | None = None) -> tuple[str, OpenDay]:
    """Run id and opening of a day book; number: day of January 2013, or of later months, from 1."""
    text = f"2013-{1 + (number - 1) // 28:02}-{1 + (number - 1) % 28:02}"
    return f"{carrier}-{text}", OpenDay(carrier, text, close_at)


class Valid(NamedTuple):
    """A journal record that counts."""

    offset: int
    ref: Ref
    transition: Transition


class TopicScript(Script):
    """Scripted ends for each topic by its short name, as 'journal'; every other append goes well."""

    def __init__(self, ends: Mapping[str, Iterable[End]], *, late_after: int, orphans_land: bool) -> None:
        super().__init__((), late_after=late_after, orphans_land=orphans_land)
        self.by_topic = {topic: list(of_topic) for topic, of_topic in ends.items()}

    def next_end(self, topic: str, partition: int) -> End:
        ends = self.by_topic.get(topic.partition(".")[2])
        return ends.pop(0) if ends else End.OK


class Handle(MemoryLog):
    """One process's handle. slow_s: how long its appends are on their way. tries, batches: when they were made, and
    of what, by the topic's short name.

    Like every log it tells at the latest after a time-out that it doesn't know.
    """

    def __init__(
        self,
        cluster: MemoryCluster,
        *,
        ends: Mapping[str, Iterable[End]],
        late_after: int,
        orphans_land: bool,
        limits: LogLimits | None,
        session_timeout_s: float,
    ) -> None:
        self.slow_s = 0.001
        self.timeout_s = APPEND_TIMEOUT_S
        self.tries: dict[str, list[float]] = {}
        self.batches: dict[str, list[Sequence[Record]]] = {}
        self.script = TopicScript(ends, late_after=late_after, orphans_land=orphans_land)
        super().__init__(
            cluster,
            faults=self.script,
            delay_s=lambda: self.slow_s,
            limits=limits,
            session_timeout_s=session_timeout_s,
        )

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        name = topic.partition(".")[2]
        self.tries.setdefault(name, []).append(asyncio.get_running_loop().time())
        self.batches.setdefault(name, []).append(records)
        try:
            async with asyncio.timeout(self.timeout_s):
                return await super().append(topic, partition, records)
        except TimeoutError:
            raise AppendUnknown(f"no answer from {topic!r} for {self.timeout_s:g} s") from None


class Told:
    """A watcher that remembers what an owner told."""

    def __init__(self) -> None:
        self.claims: list[int] = []
        self.batches: list[tuple[Fence, int]] = []
        self.whys: list[str] = []
        self.rebuilds: list[str] = []

    def claimed(self, partition: int, offset: int) -> None:
        self.claims.append(offset)

    def proved(self, partition: int, fence: Fence, records: int) -> None:
        self.batches.append((fence, records))

    def unknown(self, partition: int, why: str) -> None:
        self.whys.append(why)

    def rebuilt(self, partition: int, why: str) -> None:
        self.rebuilds.append(why)


class Process:
    """Tasks that die and freeze together, with a handle and a clock of their own."""

    def __init__(self, world: World, name: str, handle: Handle) -> None:
        self.world, self.name, self.log = world, name, handle
        self.clock = SimClock(world.loop)
        self.chance = Chance(hash_of(name))
        self.part = Part(name)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        token = PART.set(self.part)
        try:
            return self.world.loop.create_task(work, name=self.name)
        finally:
            PART.reset(token)

    def crash(self) -> None:
        """The process dies: nothing that its dying tasks do reaches the log."""
        self.log.crash()
        for task in list(self.part.tasks):
            task.cancel()
        self.world.loop.thaw(self.part)

    def freeze(self) -> None:
        """As SIGSTOP; the group doesn't hear from it either."""
        self.world.loop.freeze(self.part)
        self.log.fall_silent()

    def thaw(self) -> None:
        self.world.loop.thaw(self.part)
        self.log.speak_again()


class Owning(Process):
    """A process that owns one partition. failure: what stopped it, or None."""

    owner: Owner
    task: asyncio.Task[None]

    def __init__(self, world: World, name: str, handle: Handle, store: MemoryStore) -> None:
        super().__init__(world, name, handle)
        self.store, self.told = store, Told()

    @property
    def failure(self) -> BaseException | None:
        return self.task.exception() if self.task.done() and not self.task.cancelled() else None

    @property
    def works(self) -> bool:
        """It has claimed, read up to its claim, and wasn't thrown back since."""
        return len(self.told.claims) > len(self.told.whys)

    def crash(self) -> None:
        super().crash()
        # What the dying tasks flush is too late.
        self.store.crash()
        self.store = self.store.snapshot()

    async def leave(self) -> None:
        """End as told by `stop`."""
        self.owner.stop()
        await asyncio.wait([self.task])


class World:
    """Use `play`. partitions: of commands and journal."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.log_jumped_ms = 0
        self.cluster = MemoryCluster(now_ms=self.log_ms)
        self.codec: Codec = CODEC
        self.topics = Topics("t", 1)
        self.admin = MemoryLog(self.cluster)
        self._count = 0
        self._ids: dict[int, tuple[int, set[str | None]]] = {}

    async def make_topics(self, partitions: int = 1) -> None:
        self.topics = Topics("t", partitions)
        for spec in (*self.topics.specs(), *extra_specs(self.topics)):
            await self.admin.ensure_topic(spec)

    def log_ms(self) -> int:
        """The log's clock."""
        return EPOCH_MS + int(self.loop.time() * 1000) + self.log_jumped_ms

    def jump_log_clock(self, ms: int) -> None:
        """The log's clock jumps, back too: as where another broker leads from now on."""
        self.log_jumped_ms += ms
        self.cluster._last_ms = 0

    # ------------------------------------------------------------------ processes

    def handle(
        self,
        *,
        ends: Mapping[str, Iterable[End]] | None = None,
        late_after: int = NEVER_LANDS,
        orphans_land: bool = False,
        limits: LogLimits | None = None,
        session_timeout_s: float = 3.0,
    ) -> Handle:
        return Handle(
            self.cluster,
            ends=ends or {},
            late_after=late_after,
            orphans_land=orphans_land,
            limits=limits,
            session_timeout_s=session_timeout_s,
        )

    def own(
        self,
        owner_type: type[Owner] = Owner,
        *,
        name: str = "",
        instance: str | None = None,
        partition: int = 0,
        store: MemoryStore | None = None,
        topics: Topics | None = None,
        codec: Codec | None = None,
        feed_type: type[Feed] = Feed,
        handle: Handle | None = None,
        **options: Any,
    ) -> Owning:
        """Start a process that owns `partition`. ends, late_after, orphans_land, limits: of its handle; what is left
        goes to the owner."""
        self._count += 1
        name = name or f"owner-{self._count}"
        topics = topics or self.topics
        of_handle = {k: options.pop(k) for k in ("ends", "late_after", "orphans_land", "limits") if k in options}
        handle = handle or self.handle(**of_handle)
        process = Owning(self, name, handle, MemoryStore(name) if store is None else store)
        feed = feed_type(handle, topics.commands)
        given: dict[str, Any] = {
            "partition": partition,
            "log": handle,
            "topics": topics,
            "store": process.store,
            "codec": codec or self.codec,
            "decide": decide,
            "feed": feed,
            "clock": process.clock,
            "chance": process.chance,
            "identity": Identity(instance or name, f"{name}-process-{self._count}"),
            "learn": _nothing_to_learn,
            "watcher": process.told,
        }
        process.owner = owner_type(**{**given, **options})
        process.spawn(feed.run())
        process.task = process.spawn(process.owner.run())
        return process

    @asynccontextmanager
    async def client(self, client_type: type[Client] = Client) -> AsyncIterator[Client]:
        async with client_type(self.handle(), self.topics, self.codec, chance=Chance(99)) as client:
            yield client

    def compute(self, group_type: type[KernelGroup] = KernelGroup, *, name: str = "kernel", **options: Any) -> Process:
        """Start a member of the kernel group. ends: of its handle; what is left goes to the group."""
        process = Process(self, name, self.handle(ends=options.pop("ends", None)))
        group = group_type(
            process.log,
            self.topics,
            self.codec,
            instance_id=name,
            clock=process.clock,
            chance=process.chance,
            **options,
        )
        process.spawn(group.run())
        return process

    # ------------------------------------------------------------------ what lies on the log

    def put(
        self,
        run_id: str,
        body: CommandBody,
        command_id: str,
        *,
        partition: int | None = None,
        origin: Origin | None = None,
        key: bytes | None = None,
        headers: Sequence[Header] = (),
    ) -> int:
        """Lay a command on the log, whoever sent it; returns its offset."""
        value = self.codec.encode(Command(command_id, run_id, origin, body))
        to = self.topics.partition_of(run_id) if partition is None else partition
        return self.land(self.topics.commands, to, Record(value, run_id.encode() if key is None else key, headers))

    def land(self, topic: str, partition: int, *records: Record) -> int:
        """Append at once; returns the first offset."""
        return self.cluster.land(TopicPartition(topic, partition), records).offset

    def ghost_claim(
        self, *, owner: str = "ghost", process: str = "ghost-1", claim_id: int = 666, partition: int = 0, **fields: int
    ) -> int:
        """A claim that lands now, of somebody who may be long dead; returns its offset."""
        told = {"partitions": self.topics.partitions, "format": FORMAT, **fields}
        claim = OwnershipClaimed(owner, process, claim_id, at=0, **told)
        return self.land(
            self.topics.journal, partition, Record(self.codec.encode(claim), None, (claim_header(claim_id),))
        )

    def transition(
        self,
        epoch: tuple[int, int],
        number: int,
        run_id: str,
        *events: Event,
        command_id: str | None = None,
        command_offset: int = -1,
        reply: bytes | None = None,
    ) -> Record:
        """A journal record made by hand."""
        made = Transition(self.log_ms(), run_id, command_id, command_offset, None, reply, events)
        headers: list[Header] = [fence_header(*epoch, number)]
        if command_id is not None:
            headers.append(("cause", command_id.encode()))
        return Record(self.codec.encode(made), run_id.encode(), headers)

    def land_late(self) -> None:
        """Whatever was said to land late lands now."""
        self.cluster.settle()

    def records(self, topic: str, partition: int = 0) -> list[StoredRecord]:
        return list(self.cluster.streams[TopicPartition(topic, partition)].records)

    def journal(self, partition: int = 0) -> list[StoredRecord]:
        return self.records(self.topics.journal, partition)

    def valid(self, partition: int = 0, *, gaps: Iterable[Gap] = ()) -> list[Valid]:
        """The transitions that count, by the production rule."""
        judge, fence, found = Judge(gaps), NO_FENCE, []
        for record in self.journal(partition):
            mark = read_fence_header(record.headers)
            assert mark is not None
            verdict = judge(mark, record.offset, fence)
            if verdict in ("claim", "apply"):
                fence = fence_after(fence, mark, record.offset)
            if verdict == "apply":
                ref = Ref(partition, mark.epoch_offset, mark.claim_id, mark.number)
                found.append(Valid(record.offset, ref, self.codec.decode(record.value or b"")))
        return found

    def events(self, kind: type[T], partition: int = 0) -> list[T]:
        """All events of a kind that count, in journal order."""
        return [e for v in self.valid(partition) for e in v.transition.events if isinstance(e, kind)]

    def entered(self, run_id: str = DAY) -> list[float | None]:
        """The delays of the flights that were entered, by the events that count."""
        partition = self.topics.partition_of(run_id)
        mine = [v.transition for v in self.valid(partition) if v.transition.run_id == run_id]
        return [e.arr_delay_min for t in mine for e in t.events if isinstance(e, FlightEntered)]

    async def fold(self, store: Store | None = None, partition: int = 0, **options: Any) -> Runs:
        """The runs that a fold of the whole journal gives."""
        runs = Runs(MemoryStore() if store is None else store)
        reader_type: type[JournalReader] = options.pop("reader_type", JournalReader)
        given = {"log": self.admin, "topics": self.topics, "partition": partition, "runs": runs, "codec": self.codec}
        reader = reader_type(**{**given, **options})
        await reader.prepare()
        await reader.catch_up_to_end()
        return runs

    async def flights(self, run_id: str = DAY, **options: Any) -> list[float | None]:
        """The delays of a day book's flights, as a fold of the whole journal has them."""
        runs = await self.fold(partition=self.topics.partition_of(run_id), **options)
        return [item.arr_delay_min for item in book_of(runs, run_id).flights]

    def calls(self, partition: int = 0) -> list[KernelCalled]:
        """What lies on the kernel's topic."""
        return [self.codec.decode(r.value or b"") for r in self.records(self.topics.kernel("day_figures"), partition)]

    def reports(self) -> list[Any]:
        """What lies on the stream of reports."""
        topic = self.topics.stream("reports")
        parts = range(self.cluster.specs[topic].partitions)
        return [self.codec.decode(r.value or b"") for p in parts for r in self.records(topic, p)]

    def dead_letters(self) -> list[StoredRecord]:
        return self.records(self.topics.dead_letters)

    def commands(self, partition: int = 0) -> list[Command]:
        """The commands that can be read, in order."""
        return [self.codec.decode(r.value or b"") for r in self.records(self.topics.commands, partition)]

    # ------------------------------------------------------------------ waiting

    async def until(self, holds: Callable[[], bool], within_s: float = 60.0) -> bool:
        """Whether `holds` comes true in time."""
        end = self.loop.time() + within_s
        while not holds():
            if self.loop.time() >= end:
                return False
            await asyncio.sleep(0.01)
        return True

    async def decided(self, *command_ids: str, partition: int = 0, within_s: float = 60.0) -> bool:
        """Whether each of these commands has a transition that counts, in time."""
        return await self.until(lambda: set(command_ids) <= self.ids(partition), within_s)

    def ids(self, partition: int = 0) -> set[str | None]:
        """The ids of all commands that have a transition that counts."""
        changes, ids = self._ids.get(partition, (-1, set()))
        if changes != self.cluster.changes:
            ids = {v.transition.command_id for v in self.valid(partition)}
            self._ids[partition] = self.cluster.changes, ids
        return ids

    async def quiet(self, s: float = 3.0) -> None:
        """Let all that can happen within so many seconds happen."""
        await asyncio.sleep(s)


async def _nothing_to_learn() -> None: ...


def hash_of(name: str) -> int:
    """A seed that a name always gives."""
    return int.from_bytes(name.encode()[-7:], "big")


def book_of(runs: Runs, run_id: str = DAY) -> DayBook:
    run = runs.get(run_id)
    assert run is not None
    assert isinstance(run.state, DayBook)
    return run.state


def play(scenario: Callable[Concatenate[World, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a scenario in a world of its own, with one partition."""
    return play_with(1, scenario, *args, **kwargs)


def play_with(
    partitions: int, scenario: Callable[Concatenate[World, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a scenario in a world of its own, with so many partitions."""

    async def main() -> T:
        world = World(loop)
        await world.make_topics(partitions)
        return await scenario(world, *args, **kwargs)

    loop = VirtualLoop()
    return Context().run(lambda: loop.run(main()))


def owner_with(base: type[Owner] = Owner, **parts: type) -> type[Owner]:
    """An owner of which a part is of another class: `owner_with(runs=ForgetsIds)`, `judge`, `reader`, `outbox`, `time`.

    The class must have the fields of the part's own.
    """

    class WithParts(base):  # type: ignore[misc, valid-type]
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            for name, cls in parts.items():
                part = self.outbox if name == "outbox" else getattr(self, f"_{name}")
                part.__class__ = cls

    WithParts.__name__ = WithParts.__qualname__ = "OwnerWith" + "".join(cls.__name__ for cls in parts.values())
    return WithParts
