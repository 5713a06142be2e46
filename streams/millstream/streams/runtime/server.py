"""A server: takes its share of the partitions and owns them, until it is told to stop.

The group only says who should own what. What an owner may do is decided by the
journal alone, so a revoked partition is let go without haste and nothing here
waits for an append in a callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import msgspec

from millstream.events.codec import Codec
from millstream.events.envelope import Fence
from millstream.events.errors import AppendUnknown, InstanceInUse, LogUnavailable, MillstreamError, Stop
from millstream.events.logs.port import Group, Log, Record
from millstream.events.registry import load_schemas
from millstream.events.topics import Topics
from millstream.projections.rocksdb_store import RocksStore
from millstream.streams.deciders.table import decide
from millstream.streams.runtime.answers import fence_record
from millstream.streams.runtime.clock import Chance, Clock, SystemClock, process_name
from millstream.streams.runtime.feed import Feed
from millstream.streams.runtime.folder import ServerFolder
from millstream.streams.runtime.judge import Decide
from millstream.streams.runtime.owner import Owner
from millstream.streams.runtime.prefix import ensure_prefix, extra_specs

log_ = logging.getLogger("millstream.server")

HOUSEKEEPING_S = 0.25
FENCE_EVERY_S = 1.0
COMMANDS_KEPT = 100_000
"""Decided commands left on the log behind `command_offset`, for people who look at them, before they are cut away."""


class Identity(msgspec.Struct, frozen=True):
    instance: str
    process: str


class Counts(msgspec.Struct):
    """What a server has done since it started."""

    claims: int = 0
    records: int = 0
    batches: int = 0
    unknown: int = 0
    rebuilt: int = 0


class _Owned:
    def __init__(self, owner: Owner, store: RocksStore, task: asyncio.Task[None]) -> None:
        self.owner, self.store, self.task = owner, store, task
        self.fence_published: Fence | None = None
        self.cut_below = 0


class Server:
    """`async with Server(log, topics, folder) as server: await server.serve()`.

    say: gets a line for people whenever something happens that they should know.
    """

    owner_type: type[Owner] = Owner

    def __init__(
        self,
        log: Log,
        topics: Topics,
        folder: Path,
        *,
        codec: Codec | None = None,
        decider: Decide = decide,
        clock: Clock | None = None,
        chance: Chance | None = None,
        session_timeout_s: float | None = None,
        say: Callable[[str], None] = log_.info,
    ) -> None:
        self._log, self._topics = log, topics
        self._codec = codec or Codec()
        self._decide = decider
        self._clock = clock or SystemClock()
        self._chance = chance or Chance()
        self._session_timeout_s = session_timeout_s
        self._say = say
        self._folder = ServerFolder(folder, since=f"{self._clock.wall_ms()} ms")
        self._feed = Feed(log, topics.commands)
        self._owned: dict[int, _Owned] = {}
        self._stopped: dict[int, str] = {}
        self._claimed: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._group: Group | None = None
        self._failure: asyncio.Future[None] | None = None
        self._all_claimed = asyncio.Event()
        self.counts = Counts()

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> Server:
        self._folder.lock()
        try:
            await ensure_prefix(self._log, self._topics, self._codec, extra_specs(self._topics))
            self._identity = Identity(
                self._folder.instance_id(self._chance), process_name(self._chance, self._clock.wall_ms())
            )
            self._failure = asyncio.get_running_loop().create_future()
            self._group = await self._log.join(
                self._topics.owners_group,
                [self._topics.commands],
                instance_id=self._identity.instance,
                session_timeout_s=self._session_timeout_s,
            )
        except BaseException:
            self._folder.unlock()
            raise
        for work in (self._feed.run(), self._share(self._group), self._keep_house()):
            task = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def serve(self) -> None:
        """Wait until something makes it pointless to go on; raises that."""
        assert self._failure is not None
        await self._failure

    async def ready(self) -> None:
        """Wait until all partitions assigned to this server are claimed and read."""
        await self._all_claimed.wait()

    async def stop(self) -> None:
        """Let go of everything: finish what is in flight, note what was sent, flush the stores."""
        for task in self._tasks[1:]:
            task.cancel()
        await asyncio.gather(*self._tasks[1:], return_exceptions=True)
        for owned in self._owned.values():
            owned.owner.stop()
        await asyncio.gather(*(o.task for o in self._owned.values()), return_exceptions=True)
        with contextlib.suppress(MillstreamError):
            await self._publish_fences()
        if self._tasks:
            self._tasks[0].cancel()
            await asyncio.gather(self._tasks[0], return_exceptions=True)
        for owned in self._owned.values():
            owned.store.close()
        self._owned.clear()
        if self._group is not None:
            await self._group.close()
        self._folder.unlock()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    # ------------------------------------------------------------------ what the owners tell

    def claimed(self, partition: int, offset: int) -> None:
        self.counts.claims += 1
        self._claimed.add(partition)
        self._look_if_ready()

    def proved(self, partition: int, fence: Fence, records: int) -> None:
        self.counts.records += records
        self.counts.batches += 1

    def unknown(self, partition: int, why: str) -> None:
        self.counts.unknown += 1
        log_.info("partition %d: %s; claiming again", partition, why)

    def rebuilt(self, partition: int, why: str) -> None:
        self.counts.rebuilt += 1
        self._say(f"partition {partition}: the store was dropped and is folded again from the journal. {why}")

    @property
    def fences(self) -> dict[int, Fence]:
        """The newest proved fence of each partition owned here."""
        return {p: o.owner.fence for p, o in self._owned.items()}

    @property
    def stopped(self) -> dict[int, str]:
        """Partitions that stopped, with the reason; the others go on."""
        return dict(self._stopped)

    # ------------------------------------------------------------------ sharing out

    async def _share(self, group: Group) -> None:
        generation = -1
        while True:
            assignment = await group.changed(generation)
            generation = group.generation
            wanted = {tp.partition for tp in assignment if tp.topic == self._topics.commands}
            for partition in set(self._owned) - wanted:
                await self._let_go(partition)
            for partition in sorted(wanted - set(self._owned) - set(self._stopped)):
                self._take(partition)
            if wanted:
                self._look_if_ready()

    def _look_if_ready(self) -> None:
        if self._claimed >= set(self._owned):
            self._all_claimed.set()

    def _take(self, partition: int) -> None:
        store, why = self._folder.open_store(partition)
        if why is not None:
            self.rebuilt(partition, why)
        owner = self.owner_type(
            partition=partition,
            log=self._log,
            topics=self._topics,
            store=store,
            codec=self._codec,
            decide=self._decide,
            feed=self._feed,
            clock=self._clock,
            chance=self._chance,
            identity=self._identity,
            learn=self._learn,
            watcher=self,
        )
        owner.outbox.heard = self._is_heard
        task = asyncio.get_running_loop().create_task(owner.run(), name=f"owner-{partition}")
        task.add_done_callback(lambda t, p=partition: self._owner_ended(p, t))  # type: ignore[misc]
        self._owned[partition] = _Owned(owner, store, task)

    async def _let_go(self, partition: int) -> None:
        owned = self._owned.pop(partition)
        self._claimed.discard(partition)
        owned.owner.stop()
        await asyncio.wait([owned.task])
        owned.store.close()

    def _owner_ended(self, partition: int, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, InstanceInUse) or not isinstance(error, Stop):
            self._fail(error)
            return
        self._stopped[partition] = str(error)
        self._claimed.discard(partition)
        owned = self._owned.pop(partition, None)
        if owned is not None:
            owned.store.close()
        log_.error("partition %d stopped: %s", partition, error)
        self._say(f"partition {partition} stopped: {error}")
        if not self._owned:
            self._fail(error)
        self._look_if_ready()

    def _is_heard(self) -> bool:
        """Whether the group has been heard within a session time-out; where not, others may own our partitions."""
        return self._group is None or self._group.silent_for_s() < self._group.session_timeout_s

    async def _learn(self) -> None:
        await load_schemas(self._log, self._topics, self._codec)

    # ------------------------------------------------------------------ housekeeping

    async def _keep_house(self) -> None:
        """Publish fences, cut old commands, answer requests for checkpoints, and hold outputs back in a silent group."""
        since_fences = 0.0
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            for owned in self._owned.values():
                owned.owner.outbox.gate(self._is_heard())
            self._folder.answer_checkpoints({p: o.store for p, o in self._owned.items()})
            since_fences += HOUSEKEEPING_S
            if since_fences >= FENCE_EVERY_S:
                since_fences = 0.0
                with contextlib.suppress(AppendUnknown, LogUnavailable):
                    await self._publish_fences()
                    await self._cut_commands()

    async def _publish_fences(self) -> None:
        changed = [(p, o) for p, o in self._owned.items() if o.owner.fence is not o.fence_published]
        if not changed:
            return
        fences = [o.owner.fence for _, o in changed]
        records = []
        for (partition, _), fence in zip(changed, fences, strict=True):
            key, value = fence_record(partition, fence)
            records.append(Record(value, key))
        await self._log.append(self._topics.fences, 0, records)
        for (_, owned), fence in zip(changed, fences, strict=True):
            owned.fence_published = fence

    async def _cut_commands(self) -> None:
        """Forget commands far below what a flushed store has decided; none that an unsent output still copies."""
        for partition, owned in list(self._owned.items()):
            if partition not in self._claimed:
                # Its outputs aren't known yet, and one of them may have to copy a command.
                continue
            below = owned.owner.fence.command_offset - COMMANDS_KEPT
            copy = owned.owner.outbox.lowest_copy()
            below = below if copy is None else min(below, copy)
            if below > owned.cut_below + COMMANDS_KEPT:
                owned.store.flush()
                await self._log.delete_before(self._topics.commands, partition, below)
                owned.cut_below = below
