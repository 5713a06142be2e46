"""A death at every turn of the event loop, one at a time: enumerated, not sampled."""

from __future__ import annotations

import pytest

from tests.simulation.processes import ServerProcess
from tests.simulation.scenarios import Scenario
from tests.simulation.world import Rules, World

ONE_DEATH = Scenario(
    "one death", "one of each, and one of them dies once", servers=(1, 1), kernels=(1, 1), clients=(1, 1),
    partitions=(2, 2), books=(1, 1), flights=(2, 2), think_s=0.01, active_s=0.5, flushes=0.5,
)  # fmt: skip
SEED = 10
"""A day book with two flights that a client shifts, closes and removes."""


def _turns() -> int:
    """How many turns it takes until all is done and quiet."""
    world = World(SEED, ONE_DEATH, Rules(), False)
    world.run()
    return world.report.turns_to_settle


@pytest.mark.parametrize(("process", "every"), [("server-0", 2), ("kernel-0", 5), ("client-0", 5)])
def test_a_process_may_die_at_any_moment_and_everything_still_happens_once(process: str, every: int) -> None:
    for turn in range(0, _turns(), every):
        world = World(SEED, ONE_DEATH, Rules(), False)
        dies = next(p for p in world.processes if p.name == process)

        def die(turn: int = turn, world: World = world, dies: object = dies) -> None:
            if isinstance(dies, ServerProcess):
                dies.crash(lost=turn % 4 == 0)
            else:
                dies.crash()
            world.loop.call_later(0.02, dies.start)

        world.loop.at_turn(turn, die)
        world.run()
        assert world.report.seen["DayClosed"] == 1
