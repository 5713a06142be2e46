"""Timers against a model that is a set: whatever is set, over, written, lost or read back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millstream.events.envelope import NO_FENCE
from millstream.projections.keys import TIMER, TIMER_BOUND_KEY
from millstream.projections.memory_store import MemoryStore
from millstream.projections.timers import Rows, Timers

TIMERS = st.tuples(st.integers(-3, 30), st.sampled_from("abc"), st.sampled_from("xy"))


class TimersModel(RuleBasedStateMachine):
    """`live`: what is decided. `proved`: what is written. Batches are written in order, or all unwritten ones are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.timers = Timers(self.store, page=3, near_max=6)
        self.live: set[tuple[int, str, str]] = set()
        self.proved: set[tuple[int, str, str]] = set()
        self.rows: Rows = {}
        self.sealed: list[tuple[Rows, set[bytes], set[tuple[int, str, str]]]] = []

    @rule(timer=TIMERS)
    def set_one(self, timer: tuple[int, str, str]) -> None:
        self.timers.change(*timer, self.rows, is_set=True)
        self.live.add(timer)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def one_is_over(self, data: st.DataObject) -> None:
        timer = data.draw(st.sampled_from(sorted(self.live)))
        self.timers.change(*timer, self.rows, is_set=False)
        self.live.discard(timer)

    @rule()
    def the_first_fires(self) -> None:
        if self.timers.next_due() is not None:
            timer = self.timers.due(100, 1)[0]
            assert timer == min(self.live)
            self.timers.change(*timer, self.rows, is_set=False)
            self.live.discard(timer)

    @rule()
    def finish_a_batch(self) -> None:
        keys = self.timers.seal(self.rows)
        self.sealed.append((self.rows, keys, set(self.live)))
        self.rows = {}

    @precondition(lambda self: self.sealed)
    @rule()
    def write_a_batch(self) -> None:
        rows, keys, self.proved = self.sealed.pop(0)
        self.store.write(rows, NO_FENCE)
        self.timers.written(keys)

    @rule()
    def lose_what_is_not_written(self) -> None:
        self.sealed, self.rows = [], {}
        self.live = set(self.proved)
        self.timers.clear()

    @rule()
    def open_the_store_again(self) -> None:
        self.lose_what_is_not_written()
        self.timers = Timers(self.store, page=3, near_max=6)

    @rule(now=st.integers(-5, 35), limit=st.integers(1, 40))
    def ask_what_is_due(self, now: int, limit: int) -> None:
        assert self.timers.due(now, limit) == sorted(t for t in self.live if t[0] <= now)[:limit]

    @invariant()
    def the_next_is_the_earliest(self) -> None:
        assert self.timers.next_due() == min((t[0] for t in self.live), default=None)

    @invariant()
    def no_written_timer_lies_below_the_noted_bound(self) -> None:
        bound = self.store.get(TIMER_BOUND_KEY) or TIMER
        assert all(key >= bound for key, _ in self.store.scan(TIMER))


TimersModel.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_timers_keep_to_the_model_in_small_pages = TimersModel.TestCase


def test_a_hundred_thousand_timers_at_one_instant_are_read_a_page_at_a_time_each_once() -> None:
    store = MemoryStore()
    timers = Timers(store)
    rows: Rows = {}
    count = 100_000
    for n in range(count):
        timers.change(500, f"run-{n:06}", "t", rows, is_set=True)
    keys = timers.seal(rows)
    store.write(rows, NO_FENCE)
    timers.written(keys)
    fired: list[str] = []
    timers = Timers(store)
    while page := timers.due(500):
        rows = {}
        for due_at, run_id, timer_id in page:
            assert timers.next_due() == due_at
            timers.change(due_at, run_id, timer_id, rows, is_set=False)
            fired.append(run_id)
        keys = timers.seal(rows)
        store.write(rows, NO_FENCE)
        timers.written(keys)
    assert fired == [f"run-{n:06}" for n in range(count)]
    assert timers.next_due() is None
    assert len(timers._near) == 0


def test_timers_that_are_far_off_do_not_stay_in_memory() -> None:
    store = MemoryStore()
    timers = Timers(store, near_max=100)
    assert timers.next_due() is None
    rows: Rows = {}
    count = 1000
    for n in range(count):
        timers.change(n, "run", "t", rows, is_set=True)
    store.write(rows, NO_FENCE)
    timers.written(timers.seal(rows))
    assert len(timers._near) <= 100
    assert [due for due, _, _ in timers.due(count, count)] == list(range(count))
