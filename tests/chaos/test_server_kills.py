"""A server that is killed over and over while clients ask, and each time started again on the same folder."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.chaos.examine import settled
from tests.chaos.lengths import CHAOS_S, CHAOS_SEED, DEADLINE_S
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.support.aio import run
from tests.support.processes import Programs


async def kill_the_server(place: Place, *, seed: int, kills: int | None = None, seconds: float = 0.0) -> None:
    """So many kills, or as many as there are in so many seconds."""
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with Programs(place.cwd) as programs:
        server = place.server(programs).start()
        await server.says("owns partitions")
        async with Load(place, seed=seed) as load:
            while server.starts <= kills if kills is not None else loop.time() < end:
                await load.answered(rng.randrange(30, 120))
                server.kill()
                server.start()
                await server.says("owns partitions")
                assert "dropped" not in server.said(), "the store goes on from its fence"
            told = await load.finish()
        found = await settled(place, told)
        assert found.claims >= server.starts * place.partitions
        assert "0 unknown ends" in await server.stop()
        await place.verify("server")


def test_a_server_killed_over_and_over_goes_on_from_its_fence_and_loses_nothing(place: Place) -> None:
    run(kill_the_server(place, seed=11, kills=3), deadline_s=120)


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_S)
def test_a_server_killed_for_long_goes_on_from_its_fence_and_loses_nothing(place: Place) -> None:
    run(kill_the_server(place, seed=CHAOS_SEED, seconds=CHAOS_S), deadline_s=DEADLINE_S)
