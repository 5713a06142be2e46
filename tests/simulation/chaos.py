"""What befalls a simulated world: deaths, stops, silence, copies, junk, clocks. One method each, drawn by weight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from millstream.events.daybook import EnterFlight, RecordFigures
from millstream.events.envelope import Command
from millstream.events.kernel import KernelCalled
from millstream.events.logs.port import Record, StoredRecord, TopicPartition
from tests.simulation.parts import HOUR_MS

if TYPE_CHECKING:
    from tests.simulation.processes import Process, ServerProcess
    from tests.simulation.world import World


class Chaos:
    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng("chaos")
        self.frozen_network_goes_on = self.rng.random() < 0.5
        self._made = 0
        self._later: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Start everybody. In a fight the second server is made to believe that the partition is still its own."""
        world = self.world
        if world.scenario.name == "fight":
            first, *others = world.servers
            first.start()
            await asyncio.sleep(0.2)
            assert first.log is not None
            first.log.fall_silent()
            for server in others:
                server.start()
        for process in world.processes:
            process.start()

    async def run(self) -> None:
        scenario = self.world.scenario
        names, weights = list(scenario.befalls), list(scenario.befalls.values())
        end = self.world.loop.time() + scenario.active_s
        while names:
            await asyncio.sleep(self.rng.expovariate(1 / scenario.befalls_every_s))
            if self.world.loop.time() >= end:
                break
            action: Callable[[], Awaitable[None]] = getattr(self, self.rng.choices(names, weights)[0])
            await action()
        await asyncio.sleep(max(0.0, end - self.world.loop.time()))

    def _after(self, delay_s: float, what: Callable[[], Any]) -> None:
        self.world.loop.call_later(delay_s, what)

    def _soon(self) -> float:
        """Mostly before a session runs out, sometimes after it; in seconds."""
        return self.rng.choice((0.01, 0.1, 0.4, 1.3, 2.0)) * (0.5 + self.rng.random())

    # ------------------------------------------------------------------ processes

    async def crash_server(self) -> None:
        server: ServerProcess = self.rng.choice(self.world.servers)
        server.crash(lost=self.rng.random() < 0.2)
        self._after(self._soon(), server.start)

    async def crash_server_often(self) -> None:
        """It dies again and again while it comes back: in its claim, in its reading, in its first batch."""
        server: ServerProcess = self.rng.choice(self.world.servers)
        for _ in range(self.rng.randint(2, 4)):
            server.crash(lost=self.rng.random() < 0.2)
            await asyncio.sleep(self.rng.random() * 0.01)
            server.start()
            await asyncio.sleep(self.rng.random() ** 2 * 0.04)

    async def crash_client(self) -> None:
        self._crash(self.rng.choice(self.world.clients))

    async def crash_kernel(self) -> None:
        self._crash(self.rng.choice(self.world.kernels))

    def _crash(self, process: Process) -> None:
        process.crash()
        self._after(self._soon(), process.start)

    async def pause_server(self) -> None:
        self._pause(self.rng.choice(self.world.servers))

    async def pause_kernel(self) -> None:
        self._pause(self.rng.choice(self.world.kernels))

    def _pause(self, process: Process) -> None:
        if not process.frozen:
            process.freeze()
            self._after(self._soon(), process.thaw)

    async def silence_server(self) -> None:
        """The group doesn't hear from it, nor it from the group; it works on."""
        server = self.rng.choice(self.world.servers)
        log = server.log
        if log is not None:
            self.world.note("%s is out of its group's hearing", server.name)
            log.fall_silent()
            self._after(self._soon(), log.speak_again)

    async def leave_and_come_back(self) -> None:
        server = self.rng.choice(self.world.servers)
        task = asyncio.create_task(self._leave(server))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _leave(self, server: ServerProcess) -> None:
        await server.leave()
        await asyncio.sleep(self._soon())
        server.start()

    async def verify(self) -> None:
        for server in self.world.servers:
            for partition, store in list(server.disk.stores.items()):
                name = f"{server.name}'s store of partition {partition}"
                await self.world.check_store(name, partition, store.snapshot())

    # ------------------------------------------------------------------ copies

    async def copy_command(self) -> None:
        self._copy(self.world.topics.commands)

    async def copy_call(self) -> None:
        self._copy(self.world.topics.kernel("day_figures"))

    async def late_answer(self) -> None:
        """An answer, under an id of its own, to a request that has had one."""
        world = self.world
        tp = TopicPartition(world.topics.kernel("day_figures"), self.rng.randrange(world.topics.partitions))
        calls = [c for r in world.cluster.streams[tp].records if (c := world.outputs.read_call(r)) is not None]
        calls = [c for c in calls if world.outputs.calls[c.request_id]]
        if calls:
            call = self.rng.choice(calls)
            self._made += 1
            body = RecordFigures(call.request_id, None, "late")
            command = Command(f"late-{self._made}", call.run_id, None, body)
            to = TopicPartition(world.topics.commands, call.reply_partition)
            world.cluster.land(to, [Record(world.codec.encode(command), call.run_id.encode())])

    def _copy(self, topic: str) -> None:
        """One to three records of one partition a second time, in any order, however old."""
        cluster = self.world.cluster
        tp = TopicPartition(topic, self.rng.randrange(self.world.topics.partitions))
        records = cluster.streams[tp].records
        if records:
            chosen = [self.rng.choice(records) for _ in range(self.rng.randint(1, 3))]
            self.world.note("copies of %s", [f"{tp.topic} {tp.partition} @{r.offset}" for r in chosen])
            cluster.land(tp, [_again(r) for r in chosen])

    def last_copies(self) -> None:
        """When faults have ended, the network still has copies of everything, also of commands to removed runs.

        Not always: a copy also makes good what was lost, and that must be seen.
        """
        if not self.world.scenario.befalls.keys() & {"copy_command", "copy_call"} or self.rng.random() < 0.5:
            return
        topics, cluster = self.world.topics, self.world.cluster
        for topic in (topics.commands, topics.kernel("day_figures")):
            for n in range(topics.partitions):
                records = list(cluster.streams[TopicPartition(topic, n)].records)
                self.rng.shuffle(records)
                if records:
                    cluster.land(TopicPartition(topic, n), [_again(r) for r in records])

    # ------------------------------------------------------------------ junk

    async def junk_command(self) -> None:
        world, rng = self.world, self.rng
        tp = TopicPartition(world.topics.commands, rng.randrange(world.topics.partitions))
        good = world.codec.encode(self._flight("9E-2013-01-01"))
        record = rng.choice(
            (
                Record(None, b"key"),
                Record(b""),
                Record(rng.randbytes(40)),
                Record(good[:-3]),
                Record(good[:2] + rng.randbytes(8) + good[10:]),
                Record(good[:-4] + rng.randbytes(4)),
                Record(world.codec.encode(KernelCalled("r", "k", "run", 0, []))),
                Record(world.codec.encode(self._flight("../../etc/passwd"))),
                Record(world.codec.encode(self._flight("")), b"", (("h", None),)),
            )
        )
        world.note("junk on %s %d", tp.topic, tp.partition)
        world.cluster.land(tp, [record])

    async def misplaced_command(self) -> None:
        """A command on a partition that isn't its run's, as a client with another partitioner puts it; or a copy there."""
        world, rng = self.world, self.rng
        if world.topics.partitions < 2:
            return
        run_id = rng.choice(world.scripts).run_id
        wrong = (world.topics.partition_of(run_id) + 1) % world.topics.partitions
        copies = world.cluster.streams[TopicPartition(world.topics.commands, 1 - wrong)].records
        record = Record(world.codec.encode(self._flight(run_id)), run_id.encode())
        if copies and rng.random() < 0.5:
            record = _again(rng.choice(copies))
        world.note("a command for the other partition on %d", wrong)
        world.cluster.land(TopicPartition(world.topics.commands, wrong), [record])

    async def junk_call(self) -> None:
        world, rng = self.world, self.rng
        tp = TopicPartition(world.topics.kernel("day_figures"), rng.randrange(world.topics.partitions))
        value = rng.choice((None, b"", rng.randbytes(30), world.codec.encode(self._flight("9E-2013-01-01"))))
        world.cluster.land(tp, [Record(value)])

    def _flight(self, run_id: str) -> Command:
        self._made += 1
        return Command(f"chaos-{self._made}", run_id, None, EnterFlight("1", "EWR", "ORD", False, 1.5))

    # ------------------------------------------------------------------ clocks

    async def jump_wall_clock(self) -> None:
        process = self.rng.choice(self.world.processes)
        process.clock.jumped_ms = self.rng.choice((-HOUR_MS, 0, HOUR_MS))
        self.world.note("%s's wall clock is wrong by %d ms", process.name, process.clock.jumped_ms)

    async def jump_log_clock(self) -> None:
        self._set_log_clock(self.rng.choice((1000, HOUR_MS)))

    async def set_log_clock_back(self) -> None:
        """What the log stamps never goes back; it stands still until its clock is there again."""
        self._set_log_clock(self.rng.choice((-100, -500, -HOUR_MS, HOUR_MS)))

    def _set_log_clock(self, by_ms: int) -> None:
        self.world.log_jumped_ms += by_ms
        self.world.note("the log's clock is ahead by %d ms", self.world.log_jumped_ms)


def _again(record: StoredRecord) -> Record:
    return Record(record.value, record.key, record.headers)
