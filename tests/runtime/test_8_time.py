"""Time of a partition: the log's, never going back; timers by it, in order; and how long one stretch of work lasts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from millstream.events.daybook import DayClosing
from millstream.events.logs.port import StoredRecord
from millstream.events.run import CommandRefused, TimerFired
from millstream.projections.run import Run
from millstream.projections.timers import Rows, Timers
from millstream.streams.deciders import table
from millstream.streams.deciders.cause import Cause, Decision, TimerDue
from millstream.streams.runtime import owner as owner_module
from millstream.streams.runtime.clock import PartitionClock
from millstream.streams.runtime.feed import Feed, Inlet
from millstream.streams.runtime.owner import Owner
from millstream.streams.runtime.timers import DueTimers
from tests.support.world import DAY, OPEN, SimCodec, World, book_of, day, flight, owner_with, play

HOUR_MS = 3_600_000

# ------------------------------------------------------------------ never back


class FollowsTheLog(PartitionClock):
    """The log's time, wherever it goes."""

    def not_before(self, at: int) -> None: ...

    def now(self) -> int:
        return self._log_ms + int((self._clock.monotonic() - self._heard_at) * 1000)


async def a_log_whose_clock_jumps(world: World, owner_type: type[Owner], jump_ms: int) -> list[int]:
    """`at` of all transitions; the clock jumps under an owner, and again before a take-over."""
    first = world.own(owner_type)
    for number in range(3):
        world.put(DAY, flight(), f"a-{number}")
        assert await world.decided(f"a-{number}")
        world.jump_log_clock(jump_ms)
    first.crash()
    world.jump_log_clock(jump_ms)
    world.own(owner_type)
    for number in range(3):
        world.put(DAY, flight(), f"b-{number}")
        assert await world.decided(f"b-{number}")
    return [v.transition.at for v in world.valid()]


def test_a_partitions_time_never_goes_back() -> None:
    for jump_ms in (-HOUR_MS, HOUR_MS):
        times = play(a_log_whose_clock_jumps, Owner, jump_ms)
        assert times == sorted(times)
    times = play(a_log_whose_clock_jumps, owner_with(time=FollowsTheLog), -HOUR_MS)
    assert times != sorted(times)


class BelievesItsHost(Owner):
    """Takes the host's clock for the time."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._time.now = given["clock"].wall_ms  # type: ignore[method-assign]


async def a_host_whose_clock_is_wrong(world: World, owner_type: type[Owner], wrong_ms: int) -> int:
    """How much later than it should the timer of a book fires, in seconds."""
    owning = world.own(owner_type)
    owning.clock.jumped_ms = wrong_ms
    due = world.log_ms() + 600_000
    run_id, opening = day(16, close_at=due)
    world.put(run_id, opening, "open")
    await asyncio.sleep(2 * HOUR_MS / 1000)
    assert [e.by for e in world.events(DayClosing)] == ["timer"]
    fired = next(v.offset for v in world.valid() if isinstance(v.transition.events[0], TimerFired))
    return round((world.journal()[fired].timestamp - due) / 1000)


@pytest.mark.parametrize("wrong_ms", [HOUR_MS, -HOUR_MS])
def test_a_clock_that_is_an_hour_wrong_moves_no_timer(wrong_ms: int) -> None:
    assert play(a_host_whose_clock_is_wrong, Owner, wrong_ms) == 0
    moved_s = play(a_host_whose_clock_is_wrong, BelievesItsHost, wrong_ms)
    assert moved_s == (-600 if wrong_ms > 0 else 3600)


async def a_clock_that_jumps_while_a_timer_waits(world: World) -> tuple[int, int]:
    """How often the timer fires, and whether before its time; the host's clock jumps an hour ahead and two back."""
    owning = world.own()
    run_id, opening = day(16, close_at=world.log_ms() + 60_000)
    world.put(run_id, opening, "open")
    for jump_ms in (HOUR_MS, -HOUR_MS):
        await asyncio.sleep(10)
        owning.clock.jumped_ms = jump_ms
    await asyncio.sleep(100)
    fired = [v.transition.at for v in world.valid() for e in v.transition.events if isinstance(e, TimerFired)]
    return len(fired), sum(at < opening.close_at for at in fired if opening.close_at is not None)


def test_a_timer_fires_once_and_never_early_while_clocks_jump() -> None:
    assert play(a_clock_that_jumps_while_a_timer_waits) == (1, 0)


# ------------------------------------------------------------------ a late answer and a time-out


class FiresOnSight(Owner):
    """A timer that is due comes before whatever waits."""

    def _own_cause(self, stored: StoredRecord | None) -> Cause | None:
        self._ripe_to = self._time.now()
        return super()._own_cause(None)


class CommandsFirst(Owner):
    """Whatever waits comes before a timer, however long that has been due."""

    def _own_cause(self, stored: StoredRecord | None) -> Cause | None:
        return super()._own_cause(stored) if stored is None or self._judge.open_plan() is not None else None


class DoesNotLookBehind(Owner):
    """Fires a timer when its time has come, without asking whether the log has taken commands before that."""

    async def _ripen(self, due: int, inlet: Inlet) -> None:
        self._ripe_to = self._time.now()


async def both_are_due(world: World, owner_type: type[Owner], command_after_ms: int) -> list[str | None]:
    """What becomes of a flight that is entered so long after the book closes itself; nobody was there meanwhile."""
    first = world.own()
    run_id, opening = day(16, close_at=world.log_ms() + 10_000)
    world.put(run_id, opening, "open")
    assert await world.decided("open")
    await first.leave()
    await asyncio.sleep(10.0 + command_after_ms / 1000 - (world.log_ms() - (opening.close_at or 0) + 10_000) / 1000)
    world.put(run_id, flight(), "enter")
    await asyncio.sleep(5.0)
    world.own(owner_type)
    assert await world.decided("enter")
    return ["entered" for _ in world.entered(run_id)] + [e.code for e in world.events(CommandRefused)]


def test_a_late_answer_and_a_time_out_that_are_both_due_are_ordered_by_the_log() -> None:
    assert play(both_are_due, Owner, -100) == ["entered"]
    assert play(both_are_due, Owner, 100) == ["not-open"]
    assert play(both_are_due, FiresOnSight, -100) == ["not-open"]
    assert play(both_are_due, CommandsFirst, 100) == ["entered"]


class LaggingInlet(Inlet):
    """Commands come to it a while after the log took them."""

    def push(self, records: list[StoredRecord]) -> None:
        asyncio.get_running_loop().call_later(0.3, super().push, records)


class Lagging(Feed):
    def open(self, partition: int, position: int, wake: Callable[[], None]) -> Inlet:
        inlet = super().open(partition, position, wake)
        inlet.__class__ = LaggingInlet
        return inlet


async def a_command_that_is_read_late(world: World, owner_type: type[Owner]) -> list[str | None]:
    """A flight is taken by the log a moment before the book closes itself, and reaches the owner after that."""
    world.own(owner_type, feed_type=Lagging)
    run_id, opening = day(16, close_at=world.log_ms() + 1000)
    world.put(run_id, opening, "open")
    assert await world.decided("open")
    await asyncio.sleep(0.9 - world.loop.time())
    world.put(run_id, flight(), "enter")
    assert await world.decided("enter")
    return ["entered" for _ in world.entered(run_id)] + [e.code for e in world.events(CommandRefused)]


def test_a_timer_waits_for_what_the_log_took_before_it() -> None:
    assert play(a_command_that_is_read_late, Owner) == ["entered"]
    assert play(a_command_that_is_read_late, DoesNotLookBehind) == ["not-open"]


# ------------------------------------------------------------------ timers


class AnyOrder(DueTimers):
    """Takes whichever of those that are due."""

    def cause(self, ripe_to: int, at: int) -> Cause | None:
        due = self._runs.timers.due(ripe_to, 1000)
        if not due:
            return None
        due_at, run_id, timer_id = due[-1]
        return Cause(run_id, TimerDue(timer_id, due_at), max(at, due_at))

    def put_back(self, cause: Cause) -> None: ...


async def timers_of_few_instants(world: World, owner_type: type[Owner]) -> tuple[list[tuple[int, str]], int]:
    """(due time, run) of each timer in the order in which it fired, and how many take-overs there were meanwhile."""
    owning = world.own(owner_type)
    begin = world.log_ms()
    for number in range(1, 251):
        run_id, opening = day(number, close_at=begin + 5000 + number % 3)
        world.put(run_id, opening, f"open-{number}")
    assert await world.decided("open-250")
    owners = 1
    await asyncio.sleep(5.0 - world.loop.time())
    while len(world.events(TimerFired)) < 250:
        owning.log.slow_s = 0.005
        await asyncio.sleep(0.02)
        if owners < 4:
            owning.crash()
            owning = world.own(owner_type)
            owners += 1
    await world.quiet()
    fired = [
        (e.due_at, v.transition.run_id) for v in world.valid() for e in v.transition.events if isinstance(e, TimerFired)
    ]
    return fired, owners


def test_timers_of_one_instant_fire_each_once_in_order_of_time_and_id_through_take_overs() -> None:
    fired, owners = play(timers_of_few_instants, Owner)
    assert owners > 1
    assert len(fired) == len(set(fired)) == 250
    assert fired == sorted(fired)
    fired, _ = play(timers_of_few_instants, owner_with(timers=AnyOrder))
    assert fired != sorted(fired)


class KeepsItsBound(Timers):
    """A timer below the noted bound doesn't lower it."""

    def change(self, due_at: int, run_id: str, timer_id: str, rows: Rows, *, is_set: bool) -> None:
        bound = self._bound
        super().change(due_at, run_id, timer_id, rows, is_set=is_set)
        self._bound = bound

    def next_due(self) -> int | None:
        bound = self._bound
        due = super().next_due()
        self._bound = max(bound, self._bound)
        return due


async def an_earlier_timer(world: World, timers_type: type[Timers]) -> list[str]:
    """Runs whose timers have fired an hour later. The second one is set below the first, and its owner is replaced."""
    first = world.own()
    first.owner._runs.timers.__class__ = timers_type
    late_id, late = day(16, close_at=world.log_ms() + 1_800_000)
    early_id, early = day(17, close_at=world.log_ms() + 600_000)
    world.put(late_id, late, "late")
    assert await world.decided("late")
    world.put(late_id, flight(), "enter")
    assert await world.decided("enter")
    world.put(early_id, early, "early")
    assert await world.decided("early")
    await first.leave()
    world.own(store=first.store)
    await asyncio.sleep(3600.0)
    return [v.transition.run_id for v in world.valid() if any(isinstance(e, TimerFired) for e in v.transition.events)]


def test_a_timer_below_the_saved_bound_lowers_it_in_the_same_write() -> None:
    assert play(an_earlier_timer, Timers) == ["9E-2013-01-17", "9E-2013-01-16"]
    # Both were set below where the bound had moved while there was none.
    assert play(an_earlier_timer, KeepsItsBound) == []


# ------------------------------------------------------------------ one stretch of work


class Stretches:
    """A clock that moves only as work is done, and how much of it fell into one turn of the loop."""

    def __init__(self, world: World) -> None:
        self._world, self._now_s = world, 0.0
        self._by_turn: Counter[int] = Counter()

    def monotonic(self) -> float:
        return self._now_s

    def wall_ms(self) -> int:
        return 0

    def work(self, s: float) -> None:
        self._now_s += s
        self._by_turn[self._world.loop.turns] += round(s * 1_000_000)

    @property
    def longest_s(self) -> float:
        return max(self._by_turn.values()) / 1_000_000


async def deciding(world: World, owner_type: type[Owner]) -> float:
    """The longest stretch while 1,200 commands and then 400 timers are decided, 0.2 ms each."""
    clock = Stretches(world)

    def slowly(run: Run | None, cause: Cause) -> Decision:
        clock.work(0.0002)
        return table.decide(run, cause)

    due = world.log_ms() + 60_000
    for number in range(1, 401):
        run_id, opening = day(number, close_at=due)
        world.put(run_id, opening, f"open-{number}")
        for again in range(2):
            world.put(run_id, flight(), f"enter-{number}-{again}")
    owning = world.own(owner_type, clock=clock, decide=slowly)
    owning.log.slow_s = 0.05
    assert await world.decided("enter-400-1")
    # The owner's own clock stands still where nothing is decided, so it is told the time by a command.
    world.log_jumped_ms += 120_000
    world.put(DAY, OPEN, "and on")
    assert await world.until(lambda: len(world.events(TimerFired)) == 400)
    return clock.longest_s


def test_deciding_gives_way_at_least_every_50_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert play(deciding, Owner) <= 0.05
    monkeypatch.setattr(owner_module, "SLICE_S", 1e9)
    assert play(deciding, Owner) > 0.05


class ReadsInOneGo(Owner):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._reader._slice_s = 1e9


async def catching_up(world: World, owner_type: type[Owner]) -> float:
    """The longest stretch while an owner folds a thousand records, 0.2 ms each."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    for number in range(1000):
        world.put(DAY, flight(), f"enter-{number}")
    assert await world.decided("enter-999")
    await first.leave()
    clock = Stretches(world)

    class Slowly(SimCodec):
        def decode(self, data: bytes) -> Any:
            clock.work(0.0002)
            return super().decode(data)

    following = world.own(owner_type, clock=clock, codec=Slowly())
    assert await world.until(lambda: following.works)
    assert len(book_of(following.owner._runs).flights) == 1000
    return clock.longest_s


def test_catching_up_gives_way_at_least_every_50_ms() -> None:
    assert play(catching_up, Owner) <= 0.0502
    assert play(catching_up, ReadsInOneGo) > 0.0502
