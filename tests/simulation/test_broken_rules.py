"""The simulator can fail: each protocol with one rule broken is found out."""

from __future__ import annotations

import pytest

from tests.simulation.broken import BROKEN, Broken
from tests.simulation.scenarios import BY_NAME
from tests.simulation.world import Failed, Rules, World

SEEDS_MAX = 150


@pytest.mark.parametrize("broken", BROKEN, ids=[b.name for b in BROKEN])
def test_a_broken_rule_is_found(broken: Broken) -> None:
    assert _first_failure(broken.rules, broken.scenarios) is not None


def _first_failure(rules: Rules, scenarios: tuple[str, ...]) -> str | None:
    for seed in range(SEEDS_MAX):
        scenario = BY_NAME[scenarios[seed % len(scenarios)]]
        try:
            World(seed, scenario, rules, False).run()
        except Failed as failed:
            return failed.why
    return None
