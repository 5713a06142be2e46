"""Simulate seed after seed, or one again. `make sim` runs this.

    python -m tests.simulation.run                   for a minute, from a seed that the clock gives
    python -m tests.simulation.run --seed 4812       that one again; --trace shows all that happened
    python -m tests.simulation.run --scenario fight --seconds 600

A failure prints the seed, what broke, the end of its trace, and how to see it again; the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulation.scenarios import BY_NAME, SCENARIOS
from tests.simulation.world import Failed, run_seed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--first", type=int, help="first seed of many; else the clock's milliseconds")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to run seeds (default: 60)")
    parser.add_argument("--scenario", choices=sorted(BY_NAME), help="this scenario only; else each seed has its own")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened, line by line")
    return parser.parse_args()


def run_one(seed: int, scenario: str | None, *, trace: bool) -> int:
    try:
        report = run_seed(seed, scenario=BY_NAME[scenario] if scenario else None, traced=trace)
    except Failed as failed:
        if trace and failed.trace:
            print("\n".join(failed.trace))
        print(failed, file=sys.stderr)
        return 1
    if report.trace:
        print("\n".join(report.trace))
    print(
        f"seed {seed} ({report.scenario}): all promises kept. {report.journal} transitions that count,"
        f" {report.dropped} that don't, {report.claims} claims, {report.virtual_s:.1f} s of its own time"
    )
    return 0


def run_many(first: int, seconds: float, scenario: str | None) -> int:
    console = Console(stderr=True)
    counts: Counter[str] = Counter()
    began = time.monotonic()
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=seconds)
        seed = first
        while (passed := time.monotonic() - began) < seconds:
            try:
                report = run_seed(seed, scenario=BY_NAME[scenario] if scenario else None)
            except Failed as failed:
                progress.stop()
                print(failed, file=sys.stderr)
                return 1
            counts.update(
                seeds=1, transitions=report.journal, dropped=report.dropped, claims=report.claims, turns=report.turns
            )
            seed += 1
            rate = counts["seeds"] / max(passed, 0.1) * 60
            progress.update(bar, completed=passed, description=f"{counts['seeds']} seeds, {rate:,.0f} a minute")
    passed = time.monotonic() - began
    print(
        f"{counts['seeds']} seeds from {first} on ({scenario or f'{len(SCENARIOS)} scenarios'}) kept all promises:"
        f" {counts['seeds'] / passed * 60:,.0f} a minute, {counts['transitions']:,} transitions that count,"
        f" {counts['dropped']:,} that don't, {counts['claims']:,} claims"
    )
    return 0


def main() -> int:
    given = _arguments()
    # What the processes log is in the trace, where it matters.
    logging.disable(logging.CRITICAL)
    if given.seed is not None:
        return run_one(given.seed, given.scenario, trace=given.trace)
    first = given.first if given.first is not None else int(time.time() * 1000) % 1_000_000_000
    return run_many(first, given.seconds, given.scenario)


if __name__ == "__main__":
    sys.exit(main())
