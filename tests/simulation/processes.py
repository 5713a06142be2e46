"""Simulated processes: each has a handle on the log, a clock, tasks that die and freeze together."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.events.envelope import Command, Fence
from millstream.events.kernel import KernelCalled
from millstream.events.logs.port import LogLimits
from millstream.streams.gpu.figures import compute
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.server import Server
from tests.simulation.parts import HOUR_MS, Delays, Disk, SimClock, SimFaults, SimFolder, SimLog
from tests.support.virtual_loop import PART, Part

if TYPE_CHECKING:
    from tests.simulation.world import World

SESSION_S = 1.0


class Process(ABC):
    """Starts, crashes, stops (SIGSTOP) and goes on. `_main` is what it does."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.rng = world.rng(name)
        self.clock = SimClock(world.loop)
        if "jump_wall_clock" in world.scenario.befalls:
            self.clock.jumped_ms = self.rng.choice((-HOUR_MS, 0, HOUR_MS))
        self.delays = Delays(self.rng, slow=world.scenario.slow)
        self.faults = SimFaults(self.rng, world.scenario.ends)
        self.starts = 0
        self.log: SimLog | None = None
        self.part: Part | None = None
        self._main_task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self.log is not None

    @property
    def frozen(self) -> bool:
        return self.part is not None and self.part.frozen is not None

    def chance(self) -> Chance:
        return Chance(self.rng.getrandbits(64))

    def start(self) -> None:
        if self.up:
            return
        self.starts += 1
        self.world.note("%s starts", self.name)
        limits = LogLimits(record_bytes_max=self.world.scenario.record_bytes_max)
        self.log = SimLog(
            self.world.cluster, faults=self.faults, delay_s=self.delays, limits=limits, session_timeout_s=SESSION_S
        )
        self.part = Part(self.name)
        token = PART.set(self.part)
        try:
            self._main_task = self.world.loop.create_task(self._main(self.log), name=self.name)
        finally:
            PART.reset(token)
        self._main_task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._main_task or task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        self.world.note("%s ends with %s: %s", self.name, type(error).__name__, error)
        self.world.ends.append(str(error))
        if not self.world.stops_expected:
            self.world.fail(f"{self.name} ends with {type(error).__name__}: {error}")

    def crash(self) -> None:
        """The handle is cut first: nothing that the dying tasks do reaches the log."""
        if self.log is None or self.part is None:
            return
        self.world.note("%s crashes", self.name)
        self.log.crash()
        self.log, self._main_task = None, None
        for task in list(self.part.tasks):
            task.cancel()
        self.world.loop.thaw(self.part)
        self.part = None

    def freeze(self) -> None:
        if self.part is not None and self.log is not None:
            self.world.note("%s is stopped where it is", self.name)
            self.world.loop.freeze(self.part)
            self.log.fall_silent()

    def thaw(self) -> None:
        if self.part is not None and self.log is not None and self.frozen:
            self.world.note("%s goes on", self.name)
            self.world.loop.thaw(self.part)
            self.log.speak_again()

    def make_quiet(self) -> None:
        """Up, heard, and without faults from now on."""
        self.faults.quiet, self.delays.slow = True, 0.0
        self.thaw()
        if self.log is not None:
            self.log.speak_again()
        self.start()

    @abstractmethod
    async def _main(self, log: SimLog) -> None:
        """What the process does, until it is cancelled."""


class SimServer(Server):
    """The real server over stores in memory; what its owners tell goes into the trace."""

    def __init__(self, process: ServerProcess, log: SimLog) -> None:
        world = process.world
        folder = SimFolder(process.instance, process.disk)
        super().__init__(
            log,
            world.topics,
            folder.path,
            codec=world.codec,
            decider=world.rules.decider,
            clock=process.clock,
            chance=process.chance(),
            session_timeout_s=SESSION_S,
            say=lambda line: world.note("%s says: %s", process.name, line),
        )
        self.owner_type = world.rules.owner_type
        self._folder = folder
        self._process = process

    @property
    def owns(self) -> set[int]:
        """The partitions that are assigned to it, claimed and read."""
        group = self._group
        assigned = {tp.partition for tp in group.assignment} if group is not None else set()
        return assigned & self._claimed & set(self._owned)

    def claimed(self, partition: int, offset: int) -> None:
        super().claimed(partition, offset)
        self._process.world.report.claims += 1
        self._process.world.note("%s owns partition %d from offset %d", self._process.name, partition, offset)

    def proved(self, partition: int, fence: Fence, records: int) -> None:
        super().proved(partition, fence, records)
        process = self._process
        process.world.note("%s has proved partition %d to @%d", process.name, partition, fence.offset)
        process.world.proved(process.disk.stores[partition], partition, fence)

    def unknown(self, partition: int, why: str) -> None:
        super().unknown(partition, why)
        self._process.world.note("%s, partition %d, unknown: %s", self._process.name, partition, why)


class ServerProcess(Process):
    def __init__(self, world: World, name: str, instance: str | None = None) -> None:
        super().__init__(world, name)
        self.instance = instance or name
        self.disk = Disk(self.rng, world.scenario.flushes)
        self.server: SimServer | None = None
        self._leaving: asyncio.Event | None = None

    async def _main(self, log: SimLog) -> None:
        self._leaving = asyncio.Event()
        async with SimServer(self, log) as self.server:
            serving = asyncio.create_task(self.server.serve())
            leaving = asyncio.create_task(self._leaving.wait())
            await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            if serving.done():
                serving.result()
            serving.cancel()

    async def leave(self) -> None:
        """End as on SIGTERM."""
        if self._leaving is None or self._main_task is None or self.frozen:
            return
        self.world.note("%s is told to end", self.name)
        task = self._main_task
        self._leaving.set()
        await asyncio.wait([task])
        if task is self._main_task and self.log is not None:
            self.world.note("%s has ended", self.name)
            log, self.log, self.server = self.log, None, None
            await log.close()

    def crash(self, *, lost: bool = False) -> None:
        if self.up:
            super().crash()
            self.server = None
            self.disk.crash(lost=lost)


class KernelProcess(Process):
    async def _main(self, log: SimLog) -> None:
        world = self.world
        group = world.rules.kernel_type(
            log,
            world.topics,
            world.codec,
            instance_id=self.name,
            max_rows=self.rng.choice((1, 3, 256)),
            compute=self._compute,
            clock=self.clock,
            chance=self.chance(),
            session_timeout_s=SESSION_S,
        )
        await group.run()

    def _compute(self, calls: Sequence[KernelCalled]) -> list[Command]:
        if not self.world.quiet and self.rng.random() < self.world.scenario.kernel_errors:
            raise RuntimeError("the device was lost")
        return compute(calls)


class ClientProcess(Process):
    """Runs the scripts that are given to it; after a restart from the beginning, with the same command ids."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.client: Client | None = None

    async def _main(self, log: SimLog) -> None:
        world = self.world
        async with world.rules.client_type(log, world.topics, world.codec, chance=self.chance()) as self.client:
            await asyncio.gather(*(script.run(self) for script in world.scripts if script.client is self))
            await asyncio.Event().wait()
