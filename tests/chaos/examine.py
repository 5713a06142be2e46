"""When all is over: read the raw journal by rule 4, and compare with what clients were told.

The simulation's checker does the judging. It wants to be told of every record as it lands;
here everything has landed, so the journal is told first and its targets after it, and
the watermarks, which say what had been sent by then, are looked at last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from millstream.events.codec import Codec
from millstream.events.envelope import Sent, read_fence_header
from millstream.events.logs.port import Log, StoredRecord, TopicPartition, read_range
from millstream.events.topics import STREAM_PARTITIONS, Topics
from millstream.streams.deciders.daybook import SLICE_FLIGHTS
from millstream.streams.deciders.reactions import KERNEL, REPORTS
from tests.chaos.load import Told
from tests.chaos.place import Place
from tests.simulation.books import Violation, need
from tests.simulation.checker import Partition
from tests.simulation.outputs import Outputs

SETTLE_S = 45.0


class LateOutputs(Outputs):
    """Takes a watermark for true until all targets have been read."""

    def __init__(self, topics: Topics, codec: Codec) -> None:
        super().__init__(topics, codec)
        self.watermarks: dict[int, Sent] = {}

    def unsent_up_to(self, partition: int, sent: Sent) -> str | None:
        self.watermarks[partition] = sent
        return None

    def check_watermarks(self) -> None:
        for partition, sent in self.watermarks.items():
            unsent = super().unsent_up_to(partition, sent)
            need(unsent is None, f"the watermark {sent} says that {unsent} was sent, and it isn't on its topic")


@dataclass
class Examined:
    """A log as it must be read. claims: all of them; owners: those that have a valid transition. dropped: records that
    don't count. valid: command id -> offsets of the transitions that decided it, copies too."""

    partitions: list[Partition]
    outputs: LateOutputs
    claims: int = 0
    epochs_used: set[tuple[int, int]] = field(default_factory=set)
    valid: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        return sum(p.dropped for p in self.partitions)

    @property
    def transitions(self) -> int:
        return sum(len(p.valid) for p in self.partitions)

    def pending(self) -> list[str]:
        """What is still to come, in words."""
        return [line for p in self.partitions for line in p.pending()] + self.outputs.pending()

    def compare(self, told: Told, *, untold: Sequence[str] = ()) -> None:
        """The acknowledged set is the valid set. untold: beginnings of command ids whose askers died without an answer."""
        for command_id, answers in told.items():
            for answer in answers:
                self.partitions[answer.partition].answered(command_id, answer.offset, answer.code, answer.reply)
            need(len({(a.code, a.reply) for a in answers}) <= 1, f"{command_id} was told different answers: {answers}")
        ours = {c for c in self.valid if not _inner(c)}
        lost = set(told) - ours
        need(not lost, f"{len(lost)} acknowledged commands aren't in the journal: {sorted(lost)[:5]}")
        silent = {c for c in ours - set(told) if not c.startswith(tuple(untold))} if untold else ours - set(told)
        need(not silent, f"{len(silent)} decided commands were never acknowledged: {sorted(silent)[:5]}")


def _inner(command_id: str) -> bool:
    """Whether a run or a kernel has asked: ids made of an output's id."""
    return command_id.endswith("/answer") or (command_id.count("-") == 4 and "/" not in command_id)


async def examine(log: Log, topics: Topics) -> Examined | None:
    """Read everything, and check every rule that a log alone can show. Raises `Violation`.

    None where something has landed meanwhile: then the topics are not of one moment.
    """
    before = await _ends(log, topics)
    try:
        found = await _examine(log, topics)
    except (Violation, IndexError, KeyError):
        if await _ends(log, topics) != before:
            return None
        raise
    return found if await _ends(log, topics) == before else None


async def _ends(log: Log, topics: Topics) -> list[int]:
    counts = {topics.journal: topics.partitions, topics.commands: topics.partitions, topics.dead_letters: 1}
    counts |= {topics.kernel(KERNEL): topics.partitions, topics.stream(REPORTS): STREAM_PARTITIONS}
    return [(await log.bounds(topic, n)).end for topic, count in counts.items() for n in range(count)]


async def _examine(log: Log, topics: Topics) -> Examined:
    codec = Codec()
    outputs = LateOutputs(topics, codec)
    found = Examined(
        [
            Partition(n, topics, codec, outputs, slice_flights=SLICE_FLIGHTS, steady_clock=False)
            for n in range(topics.partitions)
        ],
        outputs,
    )
    commands = {n: [r async for r in _records(log, topics.commands, n)] for n in range(topics.partitions)}
    for number, partition in enumerate(found.partitions):
        for record in commands[number]:
            partition.command_landed(record)
    for number, partition in enumerate(found.partitions):
        async for record in _records(log, topics.journal, number):
            _journal_landed(found, partition, record)
    await _targets_landed(log, topics, found, commands)
    return found


def _journal_landed(found: Examined, partition: Partition, record: StoredRecord) -> None:
    mark = read_fence_header(record.headers)
    need(mark is not None, f"journal {partition.number} at offset {record.offset}: no fence header")
    assert mark is not None
    partition.journal_landed(record)
    if mark.kind == "claim":
        found.claims += 1
    elif record.offset in partition.valid:
        found.epochs_used.add((partition.number, mark.epoch_offset))
        command_id = partition.valid[record.offset].command_id
        if command_id is not None:
            found.valid.setdefault(command_id, []).append((partition.number, record.offset))


async def _targets_landed(log: Log, topics: Topics, found: Examined, commands: dict[int, list[StoredRecord]]) -> None:
    """What the outputs have got."""
    outputs = found.outputs
    for number, records in commands.items():
        tp = TopicPartition(topics.commands, number)
        for record, (command, _) in zip(records, found.partitions[number].commands, strict=True):
            outputs.command_landed(tp, record, command)
    for topic, count, landed in (
        (topics.kernel(KERNEL), topics.partitions, outputs.kernel_landed),
        (topics.stream(REPORTS), STREAM_PARTITIONS, outputs.report_landed),
        (topics.dead_letters, 1, outputs.dead_letter_landed),
    ):
        for number in range(count):
            async for record in _records(log, topic, number):
                landed(TopicPartition(topic, number), record)
    outputs.check_watermarks()


async def _records(log: Log, topic: str, partition: int) -> AsyncIterator[StoredRecord]:
    bounds = await log.bounds(topic, partition)
    async for records in read_range(log, topic, partition, bounds.first, bounds.end):
        for record in records:
            yield record


async def settled(place: Place, told: Told, *, untold: Sequence[str] = (), kernels: bool = False) -> Examined:
    """Wait until nothing is under way any more, and compare. kernels: whether somebody answers kernel calls."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLE_S
    async with place.log() as log:
        topics = await place.topics(log)
        while True:
            found = await examine(log, topics)
            pending = ["something is landing"] if found is None else found.pending()
            if not kernels:
                pending = [p for p in pending if "unanswered" not in p and "waits for an answer" not in p]
            if found is not None and not pending:
                found.compare(told, untold=untold)
                return found
            assert loop.time() < deadline, f"after {SETTLE_S:.0f} s this still pends:\n  " + "\n  ".join(pending[:20])
            await asyncio.sleep(0.25)


def transitions_of(found: Examined) -> list[int]:
    """How many valid transitions each partition has: what doesn't grow was not executed again."""
    return [len(p.valid) for p in found.partitions]
