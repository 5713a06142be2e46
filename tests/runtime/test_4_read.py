"""Read: which records a reader takes, what it must remember for that, and where it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from millstream.events.daybook import DayOpened, FlightEntered, FlightsShifted, ShiftDay
from millstream.events.envelope import (
    NO_FENCE,
    NOTHING_SENT,
    Fence,
    FenceMark,
    GapAccepted,
    gap_header,
    read_fence_header,
)
from millstream.events.errors import (
    HoleInJournal,
    LogWentBack,
    Stop,
    StoreAheadOfLog,
)
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Record, TopicPartition
from millstream.projections import fence as fences
from millstream.projections.fold import FOLDS_VERSION, Runs
from millstream.projections.keys import FENCE_KEY
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import JournalReader
from millstream.projections.store import StoreMeta
from tests.support.world import DAY, OPEN, World, book_of, flight, owner_with, play

OPENED = DayOpened("9E", "2013-01-16")


def entered(position: int, delay_min: float) -> FlightEntered:
    return FlightEntered(position, "1234", "JFK", "BOS", False, delay_min)


# ------------------------------------------------------------------ the fence is kept


class KnowsItsOffset(JournalReader):
    """Keeps an offset and no epoch: after its restart it waits for the next claim before it takes anything."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        old = self.fence
        self.fence = Fence(old.offset, -1, 0, 0, old.command_offset, old.sent)

    def rewind(self) -> None: ...


class TakesTheNextEpoch(KnowsItsOffset):
    """Keeps an offset and no epoch: after its restart it trusts whatever epoch it meets first."""

    def _fold_batch(self, records: Any, begin: int, slice_end: float) -> tuple[int, Exception | None]:
        mark = read_fence_header(records[begin].headers)
        if self.fence.claim_id == 0 and mark is not None and mark.kind == "transition":
            _, epoch_offset, claim_id, number = mark
            self.fence = Fence(self.fence.offset, epoch_offset, claim_id, number - 1, -1, NOTHING_SENT)
        return super()._fold_batch(records, begin, slice_end)


async def a_reader_that_is_restarted_at_each_offset(
    world: World, reader_type: type[JournalReader]
) -> list[list[float | None]]:
    """What it has at the end, for each offset at which it was restarted. A zombie's batch lies behind a claim."""
    world.ghost_claim(claim_id=1)
    world.land(
        world.topics.journal,
        0,
        world.transition((0, 1), 1, DAY, OPENED),
        world.transition((0, 1), 2, DAY, entered(0, 1.0)),
        world.transition((0, 1), 3, DAY, entered(1, 2.0)),
    )
    claimed = world.ghost_claim(claim_id=2)
    world.land(
        world.topics.journal,
        0,
        world.transition((0, 1), 4, DAY, entered(2, 666.0)),
        world.transition((claimed, 2), 1, DAY, entered(2, 3.0)),
    )
    found = []
    for restart in range(1, len(world.journal())):
        store = MemoryStore()
        given = {"log": world.admin, "topics": world.topics, "partition": 0, "codec": world.codec}
        await JournalReader(runs=Runs(store), **given).catch_up(restart)  # type: ignore[arg-type]
        runs = Runs(store)
        try:
            await reader_type(runs=runs, **given).catch_up_to_end()  # type: ignore[arg-type]
        except Stop:
            found.append([None])
            continue
        found.append([item.arr_delay_min for item in book_of(runs).flights])
    return found


def test_a_reader_that_is_restarted_at_any_offset_takes_what_counts_and_nothing_else() -> None:
    right = [1.0, 2.0, 3.0]
    restarts = play(a_reader_that_is_restarted_at_each_offset, JournalReader)
    assert restarts == [right] * 6
    waits = play(a_reader_that_is_restarted_at_each_offset, KnowsItsOffset)
    assert waits != restarts
    assert [1.0, 2.0] in waits
    trusts = play(a_reader_that_is_restarted_at_each_offset, TakesTheNextEpoch)
    assert [1.0, 2.0, 666.0] in trusts


class TwoWrites(MemoryStore):
    """The rows are one write and the fence is another; the process dies between them."""

    dies = False

    def write(self, puts: Any, fence: Fence) -> None:
        super().write(puts, self.fence() if self.dies else fence)
        self.flush()
        if self.dies:
            raise SystemError("killed")


class Dies(MemoryStore):
    """The process dies in the middle of a write."""

    dies = False

    def write(self, puts: Any, fence: Fence) -> None:
        super().write(puts, fence)
        if self.dies:
            self.crash()
            raise SystemError("killed")


async def a_crash_in_the_middle_of_a_write(world: World, store_type: type[TwoWrites | Dies]) -> list[float | None]:
    owning = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(1.0), "enter")
    world.put(DAY, ShiftDay(10.0), "shift")
    assert await world.decided("shift")
    await owning.leave()
    store = store_type()
    reader = JournalReader(
        log=world.admin, topics=world.topics, partition=0, runs=Runs(store), codec=world.codec, batch_records=1
    )
    await reader.prepare()
    await reader.catch_up(len(world.journal()) - 1)
    store.flush()
    store.dies = True
    with pytest.raises(SystemError):
        await reader.catch_up_to_end()
    store.dies = False
    return await world.flights(store=store)


def test_rows_and_fence_are_one_write_so_that_a_crash_applies_nothing_twice() -> None:
    assert play(a_crash_in_the_middle_of_a_write, Dies) == [11.0]
    assert play(a_crash_in_the_middle_of_a_write, TwoWrites) == [21.0]


def snapshot(store: MemoryStore) -> MemoryStore:
    return store.snapshot()


def rows_only(store: MemoryStore) -> MemoryStore:
    """A copy of the rows without the fence that belongs to them."""
    copy = MemoryStore()
    copy.write({key: value for key, value in store.scan(b"") if key != FENCE_KEY}, NO_FENCE)
    return copy


async def a_snapshot_and_the_tail(world: World, copied: Callable[[MemoryStore], MemoryStore]) -> list[float | None]:
    owning = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(1.0), "enter")
    world.put(DAY, ShiftDay(10.0), "shift")
    assert await world.decided("shift")
    copy = copied(owning.store)
    world.put(DAY, flight(2.0), "tail")
    assert await world.decided("tail")
    return await world.flights(store=copy)


def test_the_fence_is_part_of_every_snapshot() -> None:
    assert play(a_snapshot_and_the_tail, snapshot) == [11.0, 2.0]
    assert play(a_snapshot_and_the_tail, rows_only) != [11.0, 2.0]


# ------------------------------------------------------------------ which record counts


class TakesAnyEpoch(fences.Judge):
    """Takes what comes next by its number, whoever wrote it."""

    __slots__ = ()

    def __call__(self, mark: FenceMark, offset: int, fence: Fence) -> fences.Verdict:
        return "claim" if mark.kind == "claim" else "apply"


class TakesLowerNumbers(fences.Judge):
    __slots__ = ()

    def __call__(self, mark: FenceMark, offset: int, fence: Fence) -> fences.Verdict:
        verdict = super().__call__(mark, offset, fence)
        same = (mark.epoch_offset, mark.claim_id) == (fence.epoch_offset, fence.claim_id)
        return "apply" if verdict == "drop" and same else verdict


class PassesHoles(fences.Judge):
    __slots__ = ()

    def __call__(self, mark: FenceMark, offset: int, fence: Fence) -> fences.Verdict:
        try:
            return super().__call__(mark, offset, fence)
        except HoleInJournal:
            return "apply"


def reads_with(judge: type[fences.Judge]) -> type[JournalReader]:
    class Reads(JournalReader):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self._judge = judge()

    return Reads


async def a_zombie_writes(world: World, reader_type: type[JournalReader]) -> list[float | None]:
    first = world.own()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    first.log.slow_s = 0.3
    world.put(DAY, flight(), "enter")
    await asyncio.sleep(0.1)
    first.log.slow_s = 0.001
    world.own()
    assert await world.decided("enter")
    await world.quiet()
    return await world.flights(reader_type=reader_type)


def test_what_is_of_another_epoch_is_dropped() -> None:
    assert play(a_zombie_writes, JournalReader) == [1.0]
    assert play(a_zombie_writes, reads_with(TakesAnyEpoch)) == [1.0, 1.0]


async def a_batch_that_lands_twice(world: World, reader_type: type[JournalReader]) -> list[float | None]:
    world.own(ends={"journal": [End.OK, End.OK, End.TWICE]}, late_after=1)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.put(DAY, flight(), "enter")
    assert await world.decided("enter")
    assert await world.until(lambda: len(world.journal()) > len(world.valid()) + 1)
    return await world.flights(reader_type=reader_type)


def test_a_lower_number_is_dropped() -> None:
    assert play(a_batch_that_lands_twice, JournalReader) == [1.0]
    assert play(a_batch_that_lands_twice, reads_with(TakesLowerNumbers)) == [1.0, 1.0]


async def lose_a_record(world: World) -> None:
    """A record of the journal is gone, in the middle of an epoch, and nobody was there to see it go."""
    owning = world.own()
    for command_id, body in (("open", OPEN), ("one", flight(1.0)), ("shift", ShiftDay(10.0))):
        world.put(DAY, body, command_id)
        assert await world.decided(command_id)
    world.cluster.truncate(TopicPartition(world.topics.journal, 0), 3)
    world.put(DAY, flight(3.0), "three")
    await world.quiet()
    assert isinstance(owning.failure, LogWentBack)


async def a_hole(world: World, reader_type: type[JournalReader]) -> tuple[list[float | None], str]:
    """The flights that an owner goes on with, and what stopped it."""
    await lose_a_record(world)
    owning = world.own(owner_with(reader=reader_type), name="the next one")
    await world.quiet()
    flights = [i.arr_delay_min for i in book_of(Runs(owning.store)).flights] if owning.failure is None else []
    return flights, str(owning.failure or "")


class GoesPastHoles(JournalReader):
    @property
    def _judge(self) -> fences.Judge:  # type: ignore[override]
        return PassesHoles()

    @_judge.setter
    def _judge(self, judge: fences.Judge) -> None: ...


def test_at_a_higher_number_it_stops_and_names_epoch_number_and_offset() -> None:
    flights, said = play(a_hole, JournalReader)
    assert not flights
    assert "epoch 0 (claim " in said
    assert "expected number 3, found 4 at offset 3" in said
    assert "1 record is missing" in said
    assert "GapAccepted for this epoch with after=2 and before=4" in said
    flights, said = play(a_hole, GoesPastHoles)
    # A shift that was answered for is gone, and nobody says so.
    assert flights == [1.0, 3.0]
    assert not said


async def an_accepted_gap(world: World, told: bool) -> tuple[list[float | None], BaseException | None, bool]:
    """With what an owner goes on, what stopped it, and whether a client hears of what is behind the hole."""
    await lose_a_record(world)
    if told:
        mark = read_fence_header(world.journal()[3].headers)
        assert mark is not None
        gap = GapAccepted(mark.epoch_offset, mark.claim_id, 2, 4, "someone", "the disk is gone", 0)
        world.land(world.topics.journal, 0, Record(world.codec.encode(gap), None, (gap_header(mark.claim_id),)))
    owning = world.own(name="the next one")
    await world.quiet()
    if owning.failure is not None:
        return [], owning.failure, False
    async with world.client() as client:
        answered = (await client.ask(DAY, flight(4.0), timeout_s=20.0)).accepted
    return [i.arr_delay_min for i in book_of(Runs(owning.store)).flights], None, answered


def test_an_operators_record_lets_all_readers_past_that_hole() -> None:
    assert play(an_accepted_gap, True) == ([1.0, 3.0, 4.0], None, True)
    _, failure, _ = play(an_accepted_gap, False)
    assert isinstance(failure, HoleInJournal)


# ------------------------------------------------------------------ the store against its log


class TrustsItsStore(JournalReader):
    """Without a look at the record at the store's offset."""

    async def check(self) -> None: ...


async def a_journal_that_was_made_anew(
    world: World, reader_type: type[JournalReader]
) -> tuple[list[float | None], list[str]]:
    """The flights that an owner with the old store has, and what it says of a rebuild."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(666.0), "of the old log")
    assert await world.decided("of the old log")
    await first.leave()
    for topic in (world.topics.journal, world.topics.commands):
        await world.admin.delete_topic(topic)
    await world.make_topics()
    second = world.own()
    for command_id, body in (("open", OPEN), ("one", flight(1.0)), ("two", flight(2.0))):
        world.put(DAY, body, command_id)
        assert await world.decided(command_id)
    await second.leave()
    third = world.own(owner_with(reader=reader_type), store=first.store)
    world.put(DAY, flight(3.0), "three")
    await world.decided("three", within_s=5.0)
    return [i.arr_delay_min for i in book_of(Runs(third.store)).flights], third.told.rebuilds


def test_a_store_of_another_log_is_dropped_loudly_and_rebuilt() -> None:
    flights, said = play(a_journal_that_was_made_anew, JournalReader)
    assert flights == [1.0, 2.0, 3.0]
    assert len(said) == 1
    assert "The topic was probably made anew" in said[0]
    flights, said = play(a_journal_that_was_made_anew, TrustsItsStore)
    assert flights[0] == 666.0
    assert not said


async def a_log_that_was_restored(world: World, reader_type: type[JournalReader]) -> tuple[str, list[float | None]]:
    """What stops an owner whose store knows more than the log, and what it has if nothing does."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    for number in range(3):
        world.put(DAY, flight(number), f"enter-{number}")
        assert await world.decided(f"enter-{number}")
    await first.leave()
    world.cluster.truncate(TopicPartition(world.topics.journal, 0), 3)
    second = world.own(owner_with(reader=reader_type), store=first.store)
    await world.quiet(10.0)
    assert second.failure is None or isinstance(second.failure, StoreAheadOfLog)
    return str(second.failure or ""), [i.arr_delay_min for i in book_of(Runs(second.store)).flights]


def test_a_store_that_is_ahead_of_its_log_is_refused() -> None:
    said, _ = play(a_log_that_was_restored, JournalReader)
    assert "is folded up to offset 4, but 't.journal' partition 0 ends at 3" in said
    said, flights = play(a_log_that_was_restored, TrustsItsStore)
    # It goes on with flights that the log doesn't have.
    assert not said
    assert flights == [0.0, 1.0, 2.0]
    assert len(flights) > 2


async def a_store_of_older_folds(world: World, reader_type: type[JournalReader]) -> tuple[list[float | None], str]:
    """What an owner has whose store was folded when a shift was still lost, and what it says."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(1.0), "enter")
    world.put(DAY, ShiftDay(10.0), "shift")
    assert await world.decided("shift")
    await first.leave()
    store = first.store
    meta = store.meta()
    assert meta is not None
    shifted = next(v for v in world.valid() if any(isinstance(e, FlightsShifted) for e in v.transition.events))
    old = MemoryStore()
    before = Runs(old)
    given = {"log": world.admin, "topics": world.topics, "partition": 0, "codec": world.codec}
    await JournalReader(runs=before, **given).catch_up(shifted.offset)  # type: ignore[arg-type]
    old.write({}, store.fence())
    old.set_meta(StoreMeta(FOLDS_VERSION - 1, meta.log_identity, meta.prefix, meta.partition, meta.partitions))
    second = world.own(owner_with(reader=reader_type), store=old)
    world.put(DAY, flight(2.0), "next")
    assert await world.decided("next")
    return [i.arr_delay_min for i in book_of(Runs(old)).flights], "".join(second.told.rebuilds)


def test_a_store_of_another_version_of_the_folds_is_rebuilt() -> None:
    flights, said = play(a_store_of_older_folds, JournalReader)
    assert flights == [11.0, 2.0]
    assert f"made by folds of version {FOLDS_VERSION - 1}" in said
    flights, said = play(a_store_of_older_folds, TrustsItsStore)
    assert flights == [1.0, 2.0]
    assert not said
