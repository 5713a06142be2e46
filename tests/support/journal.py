"""Build journals by hand: claims, transitions, gaps, zombies; and a random one that keeps to the protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import msgspec

from millstream.events import daybook, monthbook
from millstream.events import run as run_events
from millstream.events.codec import Codec
from millstream.events.daybook import Figures
from millstream.events.envelope import (
    FORMAT,
    Event,
    Fence,
    GapAccepted,
    OwnershipClaimed,
    Ref,
    Sent,
    Transition,
    claim_header,
    fence_header,
    gap_header,
    read_fence_header,
)
from millstream.events.errors import Undecodable
from millstream.events.logs.memory import MemoryLog
from millstream.events.logs.port import Record
from millstream.events.topics import Topics
from millstream.projections.fence import Judge, fence_after
from millstream.projections.fold import Runs, apply, finish
from millstream.projections.store import Store

TOPICS = Topics("test", 4)
PARTITION = 1
FIGURES = Figures(2, 1, 1, 7.5, 7.5, 0.0)

EVENTS = tuple(
    cls
    for module in (daybook, monthbook, run_events)
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, Event) and cls is not Event
)


class _Wire(msgspec.Struct, tag="Transition"):
    at: int
    run_id: str
    command_id: str | None
    command_offset: int
    sent: Sent | None
    reply: bytes | None
    events: list[msgspec.Raw]


class PlainCodec:
    """Reads and writes journal records as MessagePack: what a reader needs of a codec, without schemas."""

    def __init__(self) -> None:
        self._event = msgspec.msgpack.Decoder(EVENTS[0] | _union(EVENTS[1:])).decode  # type: ignore[operator]
        self._record = msgspec.msgpack.Decoder(_Wire | OwnershipClaimed | GapAccepted).decode

    def encode(self, record: msgspec.Struct) -> bytes:
        return msgspec.msgpack.encode(record)

    def decode(self, data: bytes) -> object:
        try:
            read = self._record(data)
            if not isinstance(read, _Wire):
                return read
            events = [self._event(raw) for raw in read.events]
        except msgspec.DecodeError as error:
            raise Undecodable(str(error)) from error
        return Transition(read.at, read.run_id, read.command_id, read.command_offset, read.sent, read.reply, events)


def _union(classes: Sequence[type]) -> object:
    first, *rest = classes
    united: object = first
    for cls in rest:
        united = united | cls  # type: ignore[operator]
    return united


CODEC = PlainCodec()


@dataclass
class Journal:
    """Records of one partition, by offset. `epoch` is that of the newest claim."""

    records: list[Record] = field(default_factory=list)
    epoch: tuple[int, int] = (-1, 0)
    number: int = 0
    at: int = 1_000_000
    command_offset: int = -1
    codec: PlainCodec | Codec = field(default_factory=lambda: CODEC)

    def claim(
        self, claim_id: int = 7, *, partitions: int = TOPICS.partitions, format: int = FORMAT, owner: str = "owner"
    ) -> tuple[int, int]:
        """Append a claim; what follows is of its epoch."""
        self.epoch, self.number = (len(self.records), claim_id), 0
        claim = OwnershipClaimed(owner, f"{owner}-{claim_id}", claim_id, partitions, format, self.at)
        self.records.append(Record(self.codec.encode(claim), None, (claim_header(claim_id),)))
        return self.epoch

    def add(
        self,
        run_id: str,
        *events: Event,
        command_id: str | None = None,
        sent: Sent | None = None,
        reply: bytes | None = None,
        epoch: tuple[int, int] | None = None,
        number: int | None = None,
    ) -> Ref:
        """Append a transition of the newest epoch, or of another one with `epoch` and `number`."""
        if epoch is None:
            epoch = self.epoch
            self.number = self.number + 1 if number is None else number
            number = self.number
        assert number is not None
        self.at += 10
        if command_id is not None:
            self.command_offset += 1
        transition = Transition(self.at, run_id, command_id, self.command_offset, sent, reply, events)
        mark = fence_header(*epoch, number)
        self.records.append(Record(self.codec.encode(transition), run_id.encode(), (mark,)))
        return Ref(PARTITION, *epoch, number)

    def accept_gap(self, epoch: tuple[int, int], *, after: int, before: int) -> None:
        gap = GapAccepted(*epoch, after, before, "someone", "the disk is gone", self.at)
        self.records.append(Record(self.codec.encode(gap), None, (gap_header(epoch[1]),)))


async def log_of(records: Sequence[Record]) -> MemoryLog:
    """A memory log whose journal partition has these records."""
    log = MemoryLog()
    await log.start()
    spec = next(s for s in TOPICS.specs() if s.name == TOPICS.journal)
    await log.ensure_topic(spec)
    for at in range(0, len(records), 500):
        await log.append(TOPICS.journal, PARTITION, records[at : at + 500])
    return log


def fold_records(store: Store, records: Sequence[Record], *, batch: int = 7, max_runs: int = 1000) -> Fence:
    """The reader's rule in ten lines, without a log: fold `records` (their offsets are their indices) from the fence on."""
    runs, fence = Runs(store, max_runs), store.fence()
    judge = Judge()
    rows: dict[bytes, bytes | None] = {}
    new = fence
    for offset in range(fence.offset + 1, len(records)):
        record = records[offset]
        mark = read_fence_header(record.headers)
        assert mark is not None
        verdict = judge(mark, offset, new)
        if verdict == "claim":
            new = fence_after(new, mark, offset)
        elif verdict == "apply":
            transition = CODEC.decode(record.value or b"")
            assert isinstance(transition, Transition)
            apply(runs, transition, Ref(PARTITION, mark.epoch_offset, mark.claim_id, mark.number), rows)
            new = fence_after(new, mark, offset, transition)
        if new != fence and (offset % batch == batch - 1 or offset == len(records) - 1):
            finish(runs, rows)
            runs.write(rows, new)
            fence, rows = new, {}
    if new != fence:
        finish(runs, rows)
        runs.write(rows, new)
    return new


def rows_of(store: Store) -> dict[bytes, bytes]:
    """All rows but what a store says of itself, and what scans have noted."""
    return {k: v for k, v in store.scan(b"") if k[:1] not in (b"m", b"z")}


class _Day:
    """What the random journal knows of a day book, to stay within what a decider would decide."""

    def __init__(self) -> None:
        self.flights = 0
        self.status = "none"
        self.shifted = 0
        self.request = ""
        self.timer: int | None = None


def random_journal(seed: int, length: int) -> Journal:
    """A journal of about `length` records with all events in it, and with zombies, retries, take-overs and watermarks."""
    r = Random(seed)
    journal = Journal()
    days: dict[str, _Day] = {}
    outputs: list[Sent] = []
    old_epochs: list[tuple[tuple[int, int], int]] = []
    commands: list[tuple[str, str]] = []
    month_days: dict[str, int] = {}
    claim_ids = iter(range(1, 1_000_000))
    journal.claim(next(claim_ids))

    def add(run_id: str, *events: Event, command: bool = True) -> None:
        command_id = f"c{len(journal.records)}" if command else None
        sent = outputs.pop(r.randrange(len(outputs))) if outputs and r.random() < 0.3 else None
        if sent is not None:
            outputs[:] = [o for o in outputs if o > sent]
        ref = journal.add(run_id, *events, command_id=command_id, sent=sent, reply=b"1" if r.random() < 0.5 else None)
        if command_id is not None and run_id:
            commands.append((run_id, command_id))
        outputs.extend(Sent(ref.epoch_offset, ref.claim_id, ref.number, i) for i, e in enumerate(events) if e.output)

    while len(journal.records) < length:
        chance = r.random()
        if chance < 0.03:
            old_epochs.append((journal.epoch, journal.number))
            journal.claim(next(claim_ids))
        elif chance < 0.08 and old_epochs:
            epoch, number = r.choice(old_epochs)
            journal.add("zombie", daybook.DayOpened("ZZ", "2013-01-01"), epoch=epoch, number=number + 1)
        elif chance < 0.11 and journal.number > 0:
            # A retry that lands twice: the same number again.
            journal.add(
                "twice", daybook.DayOpened("ZZ", "2013-01-01"), epoch=journal.epoch, number=r.randint(1, journal.number)
            )
        elif chance < 0.14 and commands:
            run_id, command_id = r.choice(commands)
            journal.add(run_id, run_events.CommandRepeated(None, ""), command_id=command_id)
        elif chance < 0.17:
            add("", run_events.CommandForwarded(len(journal.records), 2))
        elif chance < 0.19:
            add("", run_events.CommandDeadLettered(len(journal.records), "no schema"))
        elif chance < 0.22:
            refused: list[Event] = [run_events.CommandRefused("not-found", "there is none")]
            if r.random() < 0.5:
                refused.append(run_events.RefusalAnswered("asker", 3, "q", "not-found", "there is none"))
            add(f"nobody-{r.randrange(5)}", *refused)
        else:
            run_id = f"9E-2013-01-{r.randrange(1, 9):02}"
            _random_step(r, run_id, days.setdefault(run_id, _Day()), journal, add, month_days)
    return journal


def _random_step(
    r: Random,
    run_id: str,
    day: _Day,
    journal: Journal,
    add: Callable[..., None],
    month_days: dict[str, int],
) -> None:
    if day.status == "none":
        events: list[Event] = [daybook.DayOpened("9E", run_id[3:])]
        if r.random() < 0.7:
            day.timer = journal.at + r.randrange(1000)
            events.append(run_events.TimerSet("close", day.timer))
        add(run_id, *events)
        day.status, day.flights = "open", 0
    elif day.status == "open" and r.random() < 0.7:
        cancelled = r.random() < 0.1
        delay = None if cancelled else r.randrange(-30, 300) / 4
        add(run_id, daybook.FlightEntered(day.flights, "1", "JFK", "BOS", cancelled, delay))
        day.flights += 1
    elif day.status == "open" and day.flights > 2 and r.random() < 0.3:
        add(run_id, daybook.ShiftPlanned(2.5, day.flights))
        day.status, day.shifted = "shifting", 0
    elif day.status == "open":
        events = [daybook.DayClosing("client")]
        if day.timer is not None:
            over = run_events.TimerCancelled if r.random() < 0.5 else run_events.TimerFired
            events.append(over("close", day.timer))
            day.timer = None
        add(run_id, *events, daybook.FiguresAsked("9E", run_id[3:], [False], [1.5]))
        day.status = "closing"
    elif day.status == "shifting":
        count = min(2, day.flights - day.shifted)
        add(run_id, daybook.FlightsShifted(day.shifted, count, 2.5), command=False)
        day.shifted += count
        if day.shifted == day.flights:
            day.status = "open"
    elif day.status == "closing" and r.random() < 0.2:
        add(run_id, daybook.CloseFailed("the kernel has no device"))
        day.status = "open"
    elif day.status == "closing":
        add(run_id, daybook.FiguresRecorded(FIGURES), daybook.MonthAsked("9E-2013-01", "9E", run_id[3:], FIGURES))
        day.status = "asked"
    elif day.status == "asked":
        month = f"9E-2013-01-book-{r.randrange(3)}"
        count = month_days[month] = month_days.get(month, 0) + 1
        name = f"2013-01-{count:02}"
        added = monthbook.DayAdded("9E", name, FIGURES, count)
        add(month, added, monthbook.MonthAnswered(run_id, 2, "q", count))
        add(run_id, daybook.DayClosed("9E", run_id[3:], FIGURES, count))
        day.status = "closed"
    else:
        add(run_id, run_events.RunRemoved("old", journal.at + 1000))
        day.status = "none"
