"""The protocol under everything that can befall it: some hundred seeds over all scenarios. `make sim` runs more."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.scenarios import BY_NAME, SCENARIOS
from tests.simulation.world import Failed, Report, run_seed

SEEDS_EACH = 18
ROOT = Path(__file__).parents[2]


def _seeds(scenario: str) -> range:
    """Seeds whose own scenario is this one, so that `make sim SEED=n` replays them."""
    first = [s.name for s in SCENARIOS].index(scenario)
    return range(first, first + SEEDS_EACH * len(SCENARIOS), len(SCENARIOS))


_reports: dict[str, list[Report]] = {}


def _run(scenario: str) -> list[Report]:
    if scenario not in _reports:
        _reports[scenario] = [run_seed(seed) for seed in _seeds(scenario)]
    return _reports[scenario]


@pytest.mark.parametrize("scenario", [s.name for s in SCENARIOS])
def test_every_promise_is_kept_whatever_befalls(scenario: str) -> None:
    reports = _run(scenario)
    assert sum(r.journal for r in reports) > SEEDS_EACH


def test_two_owners_of_one_partition_drop_each_others_records_and_agree() -> None:
    reports = _run("fight")
    assert sum(r.dropped for r in reports) > SEEDS_EACH
    assert sum(r.claims for r in reports) > 5 * SEEDS_EACH


def test_the_seeds_reach_everything_that_can_happen() -> None:
    seen: Counter[str] = Counter()
    for scenario in BY_NAME:
        for report in _run(scenario):
            seen.update(report.seen)
    events = {
        "DayOpened", "FlightEntered", "ShiftPlanned", "FlightsShifted", "DayClosing", "FiguresAsked", "FiguresRecorded",
        "MonthAsked", "DayAdded", "MonthAnswered", "DayClosed", "CloseFailed", "TimerSet", "TimerCancelled", "TimerFired",
        "RunRemoved", "CommandRepeated", "CommandForwarded", "CommandDeadLettered",
    }  # fmt: skip
    words = {"!exists", "!stale", "!removed", "!too-large", "!not-open", "!not-found"}
    assert not (events | words) - set(seen)


def test_a_seed_is_the_same_run_in_every_process() -> None:
    def trace(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation.run", "--seed", "13", "--trace"]
        env = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join((str(ROOT), *sys.path))}
        return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    first = trace("1")
    assert first.count("\n") > 100
    assert trace("2") == first


def test_a_failure_says_how_to_see_it_again() -> None:
    failed = Failed(27, "all", "a promise was broken", ["1 first", "2 then"])
    assert "make sim SEED=27" in str(failed)
    assert "2 then" in str(failed)
    of_another = Failed(27, "calm", "a promise was broken", None)
    assert "python -m tests.simulation.run --seed 27 --scenario calm" in str(of_another)
