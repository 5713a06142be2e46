"""Append: what is decided, on which state, in which order, and in how large a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from millstream.events.daybook import FlightEntered, FlightsShifted, ShiftDay, ShiftPlanned
from millstream.events.errors import AppendUnknown, BatchTooLarge, HoleInJournal, RecordTooLarge
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Appended, LogLimits, Record, StoredRecord
from millstream.events.logs.sizes import record_bytes
from millstream.events.run import CommandRefused, TimerFired
from millstream.projections.fold import Runs
from millstream.projections.run import Run
from millstream.streams.deciders import daybook, table
from millstream.streams.deciders.cause import Cause, Decision, SliceDue
from millstream.streams.runtime import batch as batches
from millstream.streams.runtime.batch import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch
from millstream.streams.runtime.feed import Feed, Inlet
from millstream.streams.runtime.judge import Judge
from millstream.streams.runtime.owner import Owner
from tests.support.world import DAY, OPEN, World, book_of, day, flight, owner_with, play

# ------------------------------------------------------------------ the tentative state


class JudgesTheProvedState(Judge):
    """Without the tentative state: what is decided and not proved isn't seen by what is decided next."""

    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        tentative, self._runs = self._runs, Runs(self._runs.store)
        try:
            return await super().judge(stored, at)
        finally:
            self._runs = tentative


async def two_copies_in_one_batch(world: World, owner_type: type[Owner]) -> list[float | None]:
    owning = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.put(DAY, flight(), "enter")
    world.put(DAY, flight(), "enter")
    assert await world.until(lambda: owning.told.batches[-1][0].command_offset == 2)
    assert owning.told.batches[-1][1] == 2
    return world.entered()


def test_two_copies_of_a_command_in_one_batch_take_effect_once() -> None:
    assert play(two_copies_in_one_batch, Owner) == [1.0]
    assert play(two_copies_in_one_batch, owner_with(judge=JudgesTheProvedState)) == [1.0, 1.0]


class ShowsWhatIsDecided(Owner):
    """Writes the rows when they are decided: whoever reads the store sees the tentative state."""

    def _append(self) -> None:
        super()._append()
        assert self._flying is not None
        self._store.write(self._flying[1].rows, self._flying[1].fence)


async def a_query_before_the_proof(world: World, owner_type: type[Owner]) -> int:
    """How many flights a query sees while the batch is on its way; it never lands."""
    owning = world.own(owner_type, ends={"journal": [End.OK, End.OK, End.NEVER]})
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.put(DAY, flight(), "enter")
    await asyncio.sleep(0.5)
    seen = len(book_of(Runs(owning.store.snapshot())).flights)
    owning.crash()
    assert not world.entered()
    return seen


def test_a_query_never_sees_the_tentative_state() -> None:
    assert play(a_query_before_the_proof, Owner) == 0
    assert play(a_query_before_the_proof, ShowsWhatIsDecided) == 1


class AnswersAtOnce(Owner):
    """Without waiting for the proof: who asked is told what was decided."""

    heard: dict[str, str | None]

    def _put(self, cause: Cause, decision: Decision, offset: int | None) -> bool:
        took = super()._put(cause, decision, offset)
        if took and cause.command_id is not None:
            refused = [e.code for e in decision.events if isinstance(e, CommandRefused)]
            self.heard.setdefault(cause.command_id, refused[0] if refused else None)
        return took


async def an_answer_and_a_crash(world: World, owner_type: type[Owner]) -> tuple[list[str | None], str | None]:
    """What was answered before the crash, and what became of the command. The batch never lands; the next owner comes
    after a week."""
    AnswersAtOnce.heard = {}
    first = world.own(owner_type, ends={"journal": [End.OK, End.OK, End.NEVER]})
    async with world.client() as client:
        assert (await client.ask(DAY, OPEN)).accepted
        asking = asyncio.create_task(client.ask(DAY, flight(), command_id="enter"))
        await asyncio.sleep(0.5)
        answers = [(await asking).code] if asking.done() else []
        answers += [code for command_id, code in AnswersAtOnce.heard.items() if command_id == "enter"]
        first.crash()
        world.log_jumped_ms += 8 * 24 * 3600 * 1000
        world.own()
        return answers, (await asking).code


def test_an_answer_never_comes_of_the_tentative_state() -> None:
    assert play(an_answer_and_a_crash, Owner) == ([], "too-old")
    assert play(an_answer_and_a_crash, AnswersAtOnce) == ([None], "too-old")


# ------------------------------------------------------------------ one batch in flight


class TwoInFlight(Owner):
    """Two appends at once: the first record alone, and the others."""

    def _append(self) -> None:
        super()._append()
        assert self._flying is not None
        task, batch = self._flying
        if len(batch.records) > 1:
            task.cancel()
            self._flying = asyncio.get_running_loop().create_task(self._both(batch.records)), batch
            self._flying[0].add_done_callback(lambda _: self._wake_up())

    async def _both(self, records: Sequence[Record]) -> Appended:
        log, topic, partition = self._log, self._topics.journal, self.partition
        first = asyncio.create_task(log.append(topic, partition, records[:1]))
        rest = asyncio.create_task(log.append(topic, partition, records[1:]))
        await asyncio.wait([first, rest])
        return first.result()


async def a_batch_that_is_lost(world: World, owner_type: type[Owner]) -> tuple[list[float | None], list[BaseException]]:
    """What is entered, and what stopped this owner and the next one. The first append after the opening is lost."""
    owning = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    owning.log.script.by_topic["journal"] = [End.REFUSED]
    for number in range(3):
        world.put(DAY, flight(number), f"enter-{number}")
    await world.quiet()
    owning.crash()
    following = world.own()
    await world.quiet()
    stops = [p.failure for p in (owning, following) if p.failure is not None]
    return [] if stops else world.entered(), stops


def test_with_one_batch_in_flight_a_lost_one_leaves_no_hole() -> None:
    assert play(a_batch_that_is_lost, Owner) == ([0.0, 1.0, 2.0], [])
    entered, stops = play(a_batch_that_is_lost, TwoInFlight)
    assert not entered
    assert [type(stop).__mro__[1] for stop in stops] == [HoleInJournal, HoleInJournal]
    assert "expected number 2, found 3" in str(stops[1])


# ------------------------------------------------------------------ offset order


class AsideInlet(Inlet):
    """Sets a command aside that it has to wait for, and goes on with what is behind it."""

    def peek(self) -> StoredRecord | None:
        first = super().peek()
        if first is None or b"slow" not in (first.value or b""):
            return first
        return self._queue[1] if len(self._queue) > 1 else None

    def pop(self) -> StoredRecord:
        if b"slow" not in (self._queue[0].value or b""):
            return super().pop()
        taken = self._queue[1]
        del self._queue[1]
        return taken


class SetsAside(Feed):
    def open(self, partition: int, position: int, wake: Callable[[], None]) -> Inlet:
        inlet = super().open(partition, position, wake)
        inlet.__class__ = AsideInlet
        return inlet


async def a_crash_while_one_is_set_aside(world: World, feed_type: type[Feed]) -> list[float | None]:
    first = world.own(feed_type=feed_type)
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(1.0), "slow")
    world.put(DAY, flight(2.0), "quick")
    assert await world.decided("quick")
    first.crash()
    world.own()
    await world.decided("slow", within_s=10.0)
    return world.entered()


def test_command_offset_means_that_it_and_all_before_it_have_their_whole_effect() -> None:
    assert play(a_crash_while_one_is_set_aside, Feed) == [1.0, 2.0]
    assert play(a_crash_while_one_is_set_aside, SetsAside) == [2.0]


# ------------------------------------------------------------------ sizes


class Uncut(Batch):
    """Without a cut: a batch takes all that is there."""

    __slots__ = ()

    def takes(self, size: int) -> bool:
        return True


class NeverCuts(Owner):
    def _new_batch(self) -> Batch:
        batch = super()._new_batch()
        batch.__class__ = Uncut
        return batch


async def twenty_of_a_hundred_kilobytes(world: World, owner_type: type[Owner]) -> tuple[list[int], list[BaseException]]:
    """Bytes of each batch, and what stopped this owner and the next one."""
    world.put(DAY, OPEN, "open")
    for number in range(20):
        world.put(DAY, flight(name="x" * 100_000), f"enter-{number}")
    stops = []
    for _ in range(2):
        owning = world.own(owner_type)
        await world.quiet()
        stops += [owning.failure] if owning.failure is not None else []
        sizes = [sum(map(record_bytes, batch)) for batch in owning.log.batches["journal"]]
        owning.crash()
        if not stops:
            assert len(world.entered()) == 20
            return sizes, []
    return [], stops


def test_a_batch_is_cut_at_512_kib_of_our_own_measure() -> None:
    sizes, _ = play(twenty_of_a_hundred_kilobytes, Owner)
    assert 400_000 < max(sizes) <= BATCH_BYTES_MAX == 512 * 1024
    _, stops = play(twenty_of_a_hundred_kilobytes, NeverCuts)
    assert [type(stop) for stop in stops] == [BatchTooLarge, BatchTooLarge]


async def thousands_of_small_ones(world: World, owner_type: type[Owner]) -> int:
    """The records of the largest batch; they come while an append is on its way."""
    owning = world.own(owner_type)
    owning.log.slow_s = 0.05
    for number in range(2500):
        world.put(DAY, flight(), f"enter-{number}")
    assert await world.decided("enter-2499")
    return max(map(len, owning.log.batches["journal"]))


def test_a_batch_is_cut_at_a_thousand_records() -> None:
    assert play(thousands_of_small_ones, Owner) == BATCH_RECORDS_MAX == 1000
    assert play(thousands_of_small_ones, NeverCuts) > 1000


class NeverMeasures(Owner):
    """Without a look at a transition's size before it is sent."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given, record_bytes_max=1 << 40)


async def one_that_is_too_large(world: World, owner_type: type[Owner]) -> tuple[list[str], list[BaseException]]:
    """The texts of refusals, and what stopped this owner and the next one."""
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(name="x" * 60_000), "large")
    world.put(DAY, flight(), "small")
    stops = []
    for _ in range(2):
        owning = world.own(owner_type, limits=LogLimits(record_bytes_max=50_000))
        await world.quiet()
        stops += [owning.failure] if owning.failure is not None else []
        owning.crash()
    if not stops:
        assert world.entered() == [1.0]
    return [e.reason for e in world.events(CommandRefused)], stops


def test_a_transition_over_the_limit_is_refused_by_size_and_limit_and_the_partition_goes_on() -> None:
    texts, stops = play(one_that_is_too_large, Owner)
    assert not stops
    assert len(texts) == 1
    assert "EnterFlight would record is 60," in texts[0]
    assert "over the limit of 49,880 bytes" in texts[0]
    texts, stops = play(one_that_is_too_large, NeverMeasures)
    assert not texts
    assert [type(stop) for stop in stops] == [RecordTooLarge, RecordTooLarge]


class TimerGoesOn(Judge):
    """A timer whose transition is too large is refused, and doesn't count as fired."""

    def too_large(self, cause: Cause, size: int, limit: int) -> Decision:
        return Decision(table.too_large(cause, size, limit).events[-1:])


async def a_timer_that_leads_to_too_much(world: World, owner_type: type[Owner]) -> tuple[int, int]:
    """How many times the timer fired, and how many times its transition was refused, within 3 ms."""
    run_id, opening = day(16, close_at=world.log_ms() + 1000)
    owning = world.own(owner_type, limits=LogLimits(record_bytes_max=2000))
    world.put(run_id, opening, "open")
    for number in range(200):
        world.put(run_id, flight(), f"enter-{number}")
    await asyncio.sleep(1.003)
    assert len(world.entered(run_id)) == 200
    assert owning.failure is None
    return len(world.events(TimerFired)), len(world.events(CommandRefused))


def test_a_timer_whose_transition_is_too_large_fires_once_all_the_same() -> None:
    assert play(a_timer_that_leads_to_too_much, Owner) == (1, 1)
    fired, refused = play(a_timer_that_leads_to_too_much, owner_with(judge=TimerGoesOn))
    assert not fired
    assert refused > 50


# ------------------------------------------------------------------ numbers


class UsesNumbersAgain(Owner):
    """After an error it throws the batch away and goes on in its epoch: the numbers are used for what comes next."""

    def _prove(self) -> None:
        assert self._flying is not None
        if isinstance(self._flying[0].exception(), AppendUnknown):
            self._flying = self._pending = None
            self._runs.clear()
        else:
            super()._prove()


async def a_batch_that_lands_after_its_error(world: World, owner_type: type[Owner]) -> list[float | None]:
    owning = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    owning.log.script.by_topic["journal"] = [End.LATE_ERROR]
    world.put(DAY, flight(1.0), "a")
    world.put(DAY, flight(2.0), "b")
    await world.quiet()
    world.put(DAY, flight(3.0), "c")
    assert await world.decided("c")
    world.land_late()
    world.put(DAY, flight(4.0), "d")
    assert await world.decided("d")
    return world.entered()


def test_a_number_that_was_handed_to_the_producer_is_used_for_nothing_else() -> None:
    assert play(a_batch_that_lands_after_its_error, Owner) == [1.0, 2.0, 3.0, 4.0]
    # The late batch has numbers 2 and 3, and 2 has been c's: half of it counts, and a is lost.
    assert play(a_batch_that_lands_after_its_error, UsesNumbersAgain) == [3.0, 2.0, 4.0]


async def epochs_and_numbers(world: World) -> list[tuple[int, int]]:
    owning = world.own()
    for number in range(4):
        world.put(DAY, flight(), f"enter-{number}")
        assert await world.decided(f"enter-{number}")
    owning.crash()
    world.own()
    world.put(DAY, flight(), "enter-4")
    assert await world.decided("enter-4")
    return [(v.ref.epoch_offset, v.ref.number) for v in world.valid()]


def test_numbers_count_up_from_one_in_each_epoch() -> None:
    assert play(epochs_and_numbers) == [(0, 1), (0, 2), (0, 3), (0, 4), (5, 1)]


# ------------------------------------------------------------------ plans


class ForgetsPlans(Judge):
    """Without `resume`: a plan is gone on with by the owner that made it, or by nobody."""

    def reset(self) -> None:
        self._plans = {}


class SlicesInMemory(Owner):
    """Without a plan on the journal: the first slice is the record, and the others are remembered."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**{**given, "decide": self._decide})
        self._left: dict[str, tuple[int, int, float]] = {}
        self._then: tuple[int, int, float] | None = None
        self._note = self._judge.note
        self._judge.note = self._go_on  # type: ignore[method-assign]
        self._judge.open_plan = lambda: next(iter(self._left), None)  # type: ignore[method-assign]

    def _decide(self, run: Run | None, cause: Cause) -> Decision:
        decision = table.decide(run, cause)
        if isinstance(cause.body, ShiftDay):
            assert run is not None
            first = (0, len(daybook._book(run).flights), cause.body.minutes)
        elif isinstance(cause.body, SliceDue):
            first = self._left[cause.run_id]
        else:
            return decision
        done, flights, minutes = first
        count = min(daybook.SLICE_FLIGHTS, flights - done)
        self._then = (done + count, flights, minutes)
        return Decision((FlightsShifted(done, count, minutes),))

    def _go_on(self, run_id: str) -> None:
        self._note(run_id)
        if self._then is not None:
            done, flights, _ = self._left[run_id] = self._then
            self._then = None
            if done == flights:
                del self._left[run_id]


async def a_crash_between_two_slices(world: World, owner_type: type[Owner]) -> list[float | None]:
    first = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    for number in range(5):
        world.put(DAY, flight(1.0), f"enter-{number}")
    assert await world.decided("enter-4")
    # The plan and its first slice land, or the first two slices where there is no plan.
    first.log.script.by_topic["journal"] = [End.OK, End.OK, End.NEVER]
    world.put(DAY, ShiftDay(10.0), "shift")
    await asyncio.sleep(0.5)
    assert 1 <= len(world.events(FlightsShifted)) <= 2
    first.crash()
    world.put(DAY, flight(7.0), "behind")
    world.own(owner_type)
    assert await world.decided("behind")
    await world.quiet()
    return await world.flights()


def test_a_plan_is_recorded_first_and_gone_on_with_after_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daybook, "SLICE_FLIGHTS", 2)
    monkeypatch.setattr(batches, "BATCH_RECORDS_MAX", 1)
    assert play(a_crash_between_two_slices, Owner) == [11.0] * 5 + [7.0]
    # The day is half shifted for good: nobody knows what was left.
    assert play(a_crash_between_two_slices, SlicesInMemory) == [11.0] * 4 + [1.0] + [7.0]
    # Nobody goes on until somebody else asks for something, and that is refused: the book is still shifting.
    assert play(a_crash_between_two_slices, owner_with(judge=ForgetsPlans)) == [11.0] * 5


async def a_large_day_is_shifted(world: World) -> tuple[list[int], set[float | None]]:
    world.own()
    world.put(DAY, OPEN, "open")
    for number in range(1200):
        world.put(DAY, flight(1.0), f"enter-{number}")
    world.put(DAY, ShiftDay(10.0), "shift")
    world.put(DAY, flight(11.0), "behind")
    assert await world.decided("behind")
    kinds = [v.transition.events for v in world.valid()][-5:]
    assert isinstance(kinds[0][0], ShiftPlanned)
    assert isinstance(kinds[-1][0], FlightEntered)
    return [e.count for e in world.events(FlightsShifted)], set(await world.flights())


def test_a_large_day_is_shifted_by_slices_each_a_record_of_its_own_before_anything_else() -> None:
    assert play(a_large_day_is_shifted) == ([500, 500, 200], {11.0})
