"""One simulated world: a memory log, processes on it, what befalls them, and the checks. Its seed says everything.

run      start the processes; let the scenario befall them for a while
quiet    faults end, everybody is up and heard
settle   within a fair time everything must be done
check    stores against the journal, answers, outputs
"""

from __future__ import annotations

import asyncio
import gc
import random
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field

from millstream.events.envelope import Fence, OwnershipClaimed, Transition
from millstream.events.errors import MillstreamError
from millstream.events.logs.memory import MemoryLog
from millstream.events.logs.port import StoredRecord, TopicPartition
from millstream.events.topics import Topics
from millstream.projections.memory_store import MemoryStore
from millstream.projections.verify import compare, recompute
from millstream.streams.deciders import daybook as daybook_decider
from millstream.streams.deciders.table import decide
from millstream.streams.gpu.group import KernelGroup
from millstream.streams.runtime import server as server_module
from millstream.streams.runtime.answers import Answer
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.judge import Decide
from millstream.streams.runtime.owner import Owner
from millstream.streams.runtime.prefix import ensure_prefix, extra_specs
from tests.simulation.books import Books, Day, Violation
from tests.simulation.chaos import Chaos
from tests.simulation.checker import Partition
from tests.simulation.outputs import Outputs
from tests.simulation.parts import EPOCH_MS, SimCluster, SimCodec
from tests.simulation.processes import ClientProcess, KernelProcess, Process, ServerProcess
from tests.simulation.scenarios import Scenario, scenario_of
from tests.simulation.workload import Script, make_scripts
from tests.support.virtual_loop import Deadlock, VirtualLoop

SETTLE_S = 60.0
"""A fair time in virtual seconds: several back-offs and session time-outs one after the other."""

CODEC = SimCodec()


@dataclass(frozen=True)
class Rules:
    """What runs in the processes. A test that breaks a rule puts its own class here."""

    owner_type: type[Owner] = Owner
    client_type: type[Client] = Client
    kernel_type: type[KernelGroup] = KernelGroup
    decider: Decide = decide


@dataclass
class Report:
    """What a run was like. turns: callbacks that ran, in all and until everything was done; virtual_s: its own time.

    journal, dropped: transitions that count and that don't. seen: how often each event and each refusal was.
    """

    seed: int
    scenario: str
    turns: int = 0
    turns_to_settle: int = 0
    virtual_s: float = 0.0
    journal: int = 0
    dropped: int = 0
    claims: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    trace: list[str] | None = None


class Failed(AssertionError):
    """A seed broke a promise. Says how to see it again."""

    def __init__(self, seed: int, scenario: str, why: str, trace: Sequence[str] | None) -> None:
        self.seed, self.why, self.trace = seed, why, trace
        again = f"make sim SEED={seed}"
        if scenario != scenario_of(seed).name:
            again = f"python -m tests.simulation.run --seed {seed} --scenario {scenario}"
        lines = [f"seed {seed} (scenario {scenario}): {why}", f"replay it: {again}"]
        if trace:
            shown = trace[-60:]
            lines.append(f"the last {len(shown)} of {len(trace)} lines of its trace:")
            lines.extend(shown)
        super().__init__("\n".join(lines))


class World:
    def __init__(self, seed: int, scenario: Scenario, rules: Rules, traced: bool) -> None:
        self.seed, self.scenario, self.rules = seed, scenario, rules
        self.loop = VirtualLoop(spared=self._is_network)
        self.log_jumped_ms = 0
        self.cluster = SimCluster(self.log_ms, self._landed)
        rng = self._last = self.rng("world")
        self.topics = Topics("sim", rng.randint(*scenario.partitions))
        self.codec = CODEC
        self.outputs = Outputs(self.topics, self.codec)
        self.partitions = [
            Partition(
                n,
                self.topics,
                self.codec,
                self.outputs,
                slice_flights=scenario.slice_flights,
                steady_clock="set_log_clock_back" not in scenario.befalls,
            )
            for n in range(self.topics.partitions)
        ]
        self.report = Report(seed, scenario.name, trace=[] if traced else None)
        self.quiet = False
        self.stops_expected = False
        self.ends: list[str] = []
        """With what processes have ended by themselves."""
        self._checked = True
        self._failure: str | None = None
        self._failed = asyncio.Event()
        self._targets = self._make_targets()
        self.servers = [ServerProcess(self, f"server-{i}") for i in range(rng.randint(*scenario.servers))]
        self.kernels = [KernelProcess(self, f"kernel-{i}") for i in range(rng.randint(*scenario.kernels))]
        self.clients = [ClientProcess(self, f"client-{i}") for i in range(rng.randint(*scenario.clients))]
        self.scripts: list[Script] = make_scripts(self)
        self.chaos = Chaos(self)

    @property
    def processes(self) -> list[Process]:
        return [*self.servers, *self.kernels, *self.clients]

    def rng(self, name: str) -> random.Random:
        """A source of chance of its own: what one part draws doesn't change what others get."""
        return random.Random(f"{self.seed}/{name}")

    def log_ms(self) -> int:
        """The log's clock."""
        return EPOCH_MS + int(self.loop.time() * 1000) + self.log_jumped_ms

    def note(self, text: str, *args: object) -> None:
        """A line of the trace."""
        trace = self.report.trace
        if trace is not None:
            trace.append(f"{len(trace) + 1:6} {self.loop.time():9.4f}  {text % args if args else text}")

    def proved(self, store: MemoryStore, partition: int, fence: Fence) -> None:
        """An owner has proved an append and written it to this store. For those who look on."""

    def fail(self, why: str) -> None:
        """The first broken promise ends the run."""
        if self._failure is None:
            self._failure = why
            self.note("FAILED: %s", why)
            self._failed.set()

    def books(self, run_id: str) -> Books:
        return self.partitions[self.topics.partition_of(run_id)].books

    def day(self, run_id: str) -> Day | None:
        """The day book as the valid journal has it."""
        run = self.books(run_id).runs.get(run_id)
        return run if isinstance(run, Day) else None

    def told(self, command_id: str, answer: Answer) -> None:
        """A client was told this."""
        try:
            self.partitions[answer.partition].answered(command_id, answer.offset, answer.code, answer.reply)
        except Violation as broken:
            self.fail(str(broken))

    # ------------------------------------------------------------------ the whole run

    def run(self) -> Report:
        """Raises `Failed`."""
        main = self._main()
        before = daybook_decider.SLICE_FLIGHTS, server_module.COMMANDS_KEPT
        daybook_decider.SLICE_FLIGHTS, server_module.COMMANDS_KEPT = (
            self.scenario.slice_flights,
            self.scenario.commands_kept,
        )
        collecting = gc.isenabled()
        # Collections come at moments of their own, and what they close would run then.
        gc.disable()
        try:
            self.loop.run(main)
        except Deadlock as deadlock:
            self.fail(str(deadlock))
        except Exception:  # noqa: BLE001 - whatever goes wrong in a run is what its seed has found
            self.fail(traceback.format_exc(limit=-6))
        finally:
            daybook_decider.SLICE_FLIGHTS, server_module.COMMANDS_KEPT = before
            if collecting:
                gc.enable()
        report = self.report
        report.turns, report.virtual_s = self.loop.turns, self.loop.time()
        report.journal = sum(len(p.valid) for p in self.partitions)
        report.dropped = sum(p.dropped for p in self.partitions)
        for partition in self.partitions:
            report.seen.update(partition.seen)
        if self._failure is not None:
            raise Failed(self.seed, self.scenario.name, self._failure, report.trace)
        return report

    async def _main(self) -> None:
        story = asyncio.create_task(self._story(), name="story")
        failed = asyncio.create_task(self._failed.wait(), name="failed")
        await asyncio.wait([story, failed], return_when=asyncio.FIRST_COMPLETED)
        if story.done():
            story.result()
        self._checked = False
        for process in self.processes:
            process.crash()

    async def _story(self) -> None:
        admin = MemoryLog(self.cluster)
        await ensure_prefix(admin, self.topics, self.codec, extra_specs(self.topics))
        await self.chaos.begin()
        await self.chaos.run()
        self._make_quiet()
        await self._settle()
        await self._take_over_once_more()
        await self.check_stores()
        self._check_end()

    def _make_quiet(self) -> None:
        self.note("quiet: faults end, everybody is up and heard")
        self.quiet = True
        for process in self.processes:
            process.make_quiet()
        self.cluster.settle()
        self.chaos.last_copies()

    async def _settle(self) -> None:
        deadline = self.loop.time() + SETTLE_S
        while pending := self.pending():
            if self.loop.time() > deadline:
                shown = "\n  ".join(pending[:20])
                self.fail(f"{SETTLE_S:.0f} s after all faults have ended this still pends:\n  {shown}")
                return
            await asyncio.sleep(0.1)
        self.report.turns_to_settle = self.loop.turns
        self.note("settled")

    async def _take_over_once_more(self) -> None:
        """All owners die once more when all is done: whoever takes over has nothing to send again."""
        sent = self.outputs.landed
        for server in self.servers:
            server.crash(lost=self._last.random() < 0.2)
            server.start()
        deadline = self.loop.time() + SETTLE_S
        everything = set(range(self.topics.partitions))
        while everything - set().union(*(s.server.owns for s in self.servers if s.server is not None)):
            if self.loop.time() > deadline:
                return self.fail("nobody takes the partitions after all is done")
            await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
        if self.outputs.landed != sent:
            self.fail(f"{self.outputs.landed - sent} outputs were sent again after all had been acknowledged")
        return None

    def pending(self) -> list[str]:
        """What must still happen, in words."""
        found = [f"{s.run_id}: its script waits in {s.doing}" for s in self.scripts if not s.done]
        for partition in self.partitions:
            found += partition.pending()
        return found + self.outputs.pending()

    def _check_end(self) -> None:
        for server in self.servers:
            if server.server is not None and server.server.stopped:
                self.fail(f"{server.name} has stopped partitions: {server.server.stopped}")
        if self.loop.unhandled:
            self.fail("nobody took this: " + "; ".join(self.loop.unhandled))

    # ------------------------------------------------------------------ what lands

    def _make_targets(self) -> dict[str, Callable[[TopicPartition, StoredRecord], None]]:
        topics = self.topics
        return {
            topics.journal: self._journal_landed,
            topics.commands: self._command_landed,
            topics.kernel("day_figures"): self.outputs.kernel_landed,
            topics.stream("reports"): self.outputs.report_landed,
            topics.dead_letters: self.outputs.dead_letter_landed,
        }

    def _landed(self, tp: TopicPartition, records: Sequence[StoredRecord]) -> None:
        told = self._targets.get(tp.topic) if self._checked else None
        if told is None:
            return
        try:
            for record in records:
                if self.report.trace is not None:
                    self._note_landing(tp, record)
                told(tp, record)
        except Violation as broken:
            self.fail(str(broken))
        except Exception:  # noqa: BLE001 - whatever goes wrong in a run is what its seed has found
            self.fail(traceback.format_exc(limit=-6))

    def _journal_landed(self, tp: TopicPartition, record: StoredRecord) -> None:
        self.partitions[tp.partition].journal_landed(record)

    def _command_landed(self, tp: TopicPartition, record: StoredRecord) -> None:
        partition = self.partitions[tp.partition]
        partition.command_landed(record)
        self.outputs.command_landed(tp, record, partition.commands[-1][0])

    def _note_landing(self, tp: TopicPartition, record: StoredRecord) -> None:
        topic = tp.topic.removeprefix("sim.")
        try:
            value: object = self.codec.decode(record.value or b"")
        except MillstreamError as error:
            value = error
        if isinstance(value, Transition):
            fence = dict(record.headers)["fence"] or b""
            number = int.from_bytes(fence[-8:], "big")
            sent = (
                "" if value.sent is None else f" sent {value.sent.epoch_offset}/{value.sent.number}/{value.sent.index}"
            )
            epoch = int.from_bytes(fence[:8], "big")
            self.note(
                "%s %d @%d: %d/%d at %d by %s command %d%s: %s %s", topic, tp.partition, record.offset, epoch, number,
                value.at - EPOCH_MS, value.command_id, value.command_offset, sent, value.run_id, list(value.events),
            )  # fmt: skip
        elif isinstance(value, OwnershipClaimed):
            self.note("%s %d @%d: claimed by %s", topic, tp.partition, record.offset, value.owner)
        else:
            self.note("%s %d @%d: %s", topic, tp.partition, record.offset, value)

    def _is_network(self, handle: asyncio.Handle) -> bool:
        """An append that is on its way arrives, though its sender has been stopped; sometimes it was still in there."""
        network = isinstance(getattr(handle._callback, "__self__", None), MemoryLog)
        return network and self.chaos.frozen_network_goes_on

    # ------------------------------------------------------------------ stores

    async def check_stores(self) -> None:
        """Each live store equals a fold of the journal from the beginning up to its fence, to the byte."""
        for server in self.servers:
            for partition, store in list(server.disk.stores.items()):
                await self.check_store(f"{server.name}'s store of partition {partition}", partition, store.snapshot())

    async def check_store(self, name: str, partition: int, store: MemoryStore) -> None:
        """`store` must be a copy that nobody changes."""
        anew, fence = MemoryStore(), store.fence()
        anew.set_meta(store.meta()) if store.meta() is not None else None
        log = MemoryLog(self.cluster)
        await recompute(log, self.topics, partition, anew, fence, self.codec, slice_s=1e9)
        found = compare(store, anew)
        if found:
            rows = "\n  ".join(map(str, found[:5]))
            self.fail(f"{name} differs from the journal folded up to offset {fence.offset}:\n  {rows}")
        self.note("%s equals the journal up to offset %d", name, fence.offset)


def run_seed(
    seed: int, *, scenario: Scenario | None = None, rules: Rules | None = None, traced: bool = False
) -> Report:
    """Simulate one seed. A seed that fails is run again, traced, for its message. Raises `Failed`."""
    scenario, rules = scenario or scenario_of(seed), rules or Rules()
    try:
        return Context().run(World(seed, scenario, rules, traced).run)
    except Failed:
        if traced:
            raise
        Context().run(World(seed, scenario, rules, True).run)
        raise
