"""Run the models and print what was searched.

python -m tests.models.run                    the bounds that `make test` searches
python -m tests.models.run --bounds large     minutes, for `make chaos`
python -m tests.models.run --broken           each broken rule, and by what it is caught
python -m tests.models.run --trace "one batch is in flight"
"""

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.models.explorer import explore
from tests.models.rules import PROTOCOL
from tests.models.scenarios import BROKEN, LARGE, SMALL, Bounds, model_of

# About 1 KB a state: the whole search stays under 2 GB.
STATES_MAX = 1_500_000


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when everything holds (or every broken rule is caught), else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.models.run", description="search the protocol's models")
    parser.add_argument("--bounds", choices=("small", "large"), default="small")
    parser.add_argument("--broken", action="store_true", help="break each rule and show by what it is caught")
    parser.add_argument("--trace", metavar="RULE", help="print the shortest trace for broken rules whose name has this")
    chosen = parser.parse_args(arguments)
    console = Console()
    if chosen.trace:
        return _print_traces(console, chosen.trace)
    if chosen.broken:
        return _print_broken(console)
    return _print_holding(console, SMALL if chosen.bounds == "small" else LARGE)


def _print_holding(console: Console, scenarios: dict[str, Bounds]) -> int:
    table = Table("model", "bounds", "result", title="All rules on")
    for heading in ("states", "depth", "seconds"):
        table.add_column(heading, justify="right")
    failed = 0
    for name, bounds in scenarios.items():
        began = time.perf_counter()
        result = explore(model_of(bounds, PROTOCOL), states_max=STATES_MAX)
        seconds = time.perf_counter() - began
        if result.violation is not None:
            console.print(f"{name}: {result}", markup=False)
        holds = result.violation is None and result.exhausted
        failed += not holds
        verdict = "holds, exhausted" if holds else (result.violation or "not exhausted")
        table.add_row(name, str(bounds), str(verdict), f"{result.states:,}", str(result.depth), f"{seconds:.1f}")
        console.print(f"{name}: {verdict}, {result.states:,} states", style="dim", markup=False)
    console.print(table)
    return int(failed > 0)


def _print_broken(console: Console) -> int:
    table = Table("rule", "without it", "caught as", title="One rule broken at a time")
    for heading in ("states", "steps"):
        table.add_column(heading, justify="right")
    missed = 0
    for row in BROKEN:
        result = explore(model_of(SMALL[row.bounds], row.rules))
        caught = result.violation is not None and result.violation.kind == row.kind
        missed += not caught
        verdict = result.violation.kind if result.violation is not None else "NOT CAUGHT"
        steps = len(result.trace) + len(result.afterwards)
        table.add_row(row.rule, row.then, verdict, f"{result.states:,}", str(steps))
    console.print(table)
    return int(missed > 0)


def _print_traces(console: Console, wanted: str) -> int:
    rows = [row for row in BROKEN if wanted in row.rule]
    if not rows:
        console.print(f"no rule is called {wanted!r}; --broken lists them", markup=False)
        return 1
    for row in rows:
        result = explore(model_of(SMALL[row.bounds], row.rules))
        console.print(f"{row.rule}; without it, {row.then}\n{result}\n", markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
