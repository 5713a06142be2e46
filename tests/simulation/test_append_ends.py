"""Every end of an append at every place, one at a time: enumerated, not sampled."""

from __future__ import annotations

import pytest

from millstream.events.logs.memory_faults import End
from tests.simulation.parts import SimFaults
from tests.simulation.scenarios import Scenario
from tests.simulation.world import Rules, World

ONE_OF_EACH = Scenario(
    "one fault", "one server, and one append that ends otherwise", servers=(1, 1), kernels=(1, 1), clients=(1, 1),
    partitions=(1, 1), books=(1, 1), flights=(2, 2), think_s=0.01, active_s=0.5,
)  # fmt: skip
SEED = 10
"""A day book with two flights that a client shifts, closes and removes."""


class _One(SimFaults):
    """All goes well but for the append number `at`, which ends as `end`."""

    def __init__(self, world: World, at: int, end: End) -> None:
        super().__init__(world.rng("one"), orphans_land=1.0 if end is End.LATE_SILENT else 0.0)
        self.left, self.end = at, end

    def next_end(self, topic: str, partition: int) -> End:
        self.left -= 1
        if self.left != -1:
            return End.OK
        # A lie about a claim's offset can't be told from a log that went back, and stops the owner.
        return End.LANDED_NO_OFFSET if self.claiming and self.end is End.LANDED_OTHER_OFFSET else self.end


def _run(process: str, at: int, end: End) -> tuple[World, _One]:
    world = World(SEED, ONE_OF_EACH, Rules(), False)
    faults = _One(world, at, end)
    next(p for p in world.processes if p.name == process).faults = faults
    world.run()
    return world, faults


@pytest.mark.parametrize("end", list(End), ids=lambda end: end.name.lower())
@pytest.mark.parametrize("process", ["server-0", "kernel-0", "client-0"])
def test_whatever_becomes_of_one_append_the_outcome_is_learned_from_the_log(process: str, end: End) -> None:
    at = 0
    while True:
        world, faults = _run(process, at, end)
        if faults.left >= 0:
            break
        assert world.report.seen["DayClosed"] == 1
        at += 1
    assert at > (5 if process == "server-0" else 0)
