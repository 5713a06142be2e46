"""Three processes that each believe a partition to be their own fight for it, and are killed and stopped meanwhile.

A seed gives what befalls whom, and when; what the machine makes of it is its own.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.chaos.examine import settled
from tests.chaos.lengths import CHAOS_S, CHAOS_SEED, DEADLINE_S
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.support.aio import run
from tests.support.processes import Program, Programs

FIGHTER = Path(__file__).parent / "fighter.py"
FIGHTERS = ("one", "two", "three")


async def fight(place: Place, *, seed: int, seconds: float) -> None:
    place.partitions = 1
    rng = random.Random(seed)
    async with Programs(place.cwd) as programs:
        fighters = [
            programs.python(name, FIGHTER, place.address, place.prefix, place.folder(name), str(place.partitions))
            for name in FIGHTERS
        ]
        for fighter in fighters:
            fighter.start()
        for fighter in fighters:
            await fighter.says("fights")
        async with Load(place, seed=seed) as load:
            await load.answered(20)
            await _befall(fighters, rng, seconds)
            await load.answered(20)
            told = await load.finish()
        found = await settled(place, told)
        for fighter in fighters:
            await fighter.stop()
            assert "stopped" not in fighter.said_ever(), fighter.said_ever()
        assert len(found.epochs_used) >= 3, f"{found.claims} claims, and only {found.epochs_used} decided anything"
        assert found.dropped > 0, "nobody ever wrote under an epoch that was over"
        await place.verify(*FIGHTERS)


async def _befall(fighters: list[Program], rng: random.Random, seconds: float) -> None:
    """Kill one and start it again, or stop one for a while, at moments of the seed's own."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await asyncio.sleep(rng.uniform(0.2, 1.2))
        fighter = rng.choice(fighters)
        if rng.random() < 0.4:
            fighter.kill()
            fighter.start()
        else:
            fighter.freeze()
            await asyncio.sleep(rng.uniform(0.1, 1.0))
            fighter.thaw()
    for fighter in fighters:
        await fighter.says("fights")


def test_three_owners_that_fight_for_one_partition_lose_and_double_nothing(place: Place) -> None:
    # The embedded log claims so much faster that it has had its hundreds of epochs earlier.
    run(fight(place, seed=5, seconds=10 if place.kind == "kafka" else 6), deadline_s=120)


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_S)
def test_three_owners_that_fight_for_long_lose_and_double_nothing(place: Place) -> None:
    run(fight(place, seed=CHAOS_SEED, seconds=CHAOS_S), deadline_s=DEADLINE_S)
