"""The search itself: it finds what is there, by the shortest way, and says when it has not seen all."""

from collections.abc import Iterable
from dataclasses import dataclass

from tests.models.explorer import Action, Kind, Violation, explore


@dataclass(frozen=True)
class Counter:
    """Counts up to `last` in ones or twos; `bad` breaks a promise, `trap` is a place that a calm run never leaves."""

    last: int = 6
    bad: int | None = None
    trap: int | None = None
    rests_at: int = 6

    def start(self) -> int:
        return 0

    def steps(self, state: int) -> Iterable[tuple[Action, int]]:
        for step in (1, 2):
            if state + step <= self.last:
                yield ("from {} go {} further", state, step), state + step

    def broken(self, state: int) -> Violation | None:
        return Violation(Kind.DOUBLE_EFFECT, f"at {state}") if state == self.bad else None

    def calm(self, state: int) -> int | None:
        return state

    def calm_step(self, state: int) -> tuple[Action, int] | None:
        if state == self.trap:
            return ("stay at {}", state), state
        return (("go on from {}", state), state + 1) if state < self.rests_at else None

    def unfinished(self, state: int) -> Violation | None:
        return Violation(Kind.WAITS_FOR_EVER, f"rests at {state}") if state < self.last else None


def test_a_sound_model_is_searched_to_its_end() -> None:
    result = explore(Counter())
    assert result.violation is None
    assert result.exhausted
    assert (result.states, result.depth) == (7, 3)


def test_a_violation_comes_with_a_shortest_trace_in_sentences() -> None:
    result = explore(Counter(rests_at=3, last=3, bad=3))
    assert result.violation == (Kind.DOUBLE_EFFECT, "at 3")
    assert len(result.trace) + len(result.afterwards) <= 3
    assert "go on from 0" in str(result)


def test_a_bad_state_that_no_calm_run_passes_is_found_by_its_faults() -> None:
    result = explore(Counter(last=6, bad=5, rests_at=2))
    # The calm run from 0 rests at 2, short of the end: that comes first.
    assert result.violation == (Kind.WAITS_FOR_EVER, "rests at 2")
    assert result.trace == ()
    assert result.afterwards == ("go on from 0", "go on from 1")


def test_going_round_is_told_from_coming_to_rest() -> None:
    result = explore(Counter(trap=4))
    assert result.violation is not None
    assert result.violation.kind == Kind.NO_PROGRESS


def test_a_search_that_was_stopped_does_not_claim_to_be_exhaustive() -> None:
    result = explore(Counter(last=60, rests_at=60), states_max=10)
    assert result.violation is None
    assert not result.exhausted
    assert "NOT exhausted" in str(result)
