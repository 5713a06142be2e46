"""Workers of the kernel group that are killed while days are closed: each day is closed once all the same."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.chaos.examine import settled
from tests.chaos.lengths import CHAOS_S, CHAOS_SEED, DEADLINE_S
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.simulation.books import Day
from tests.support.aio import run
from tests.support.processes import Programs


async def kill_workers(place: Place, *, seed: int, kills: int | None = None, seconds: float = 0.0) -> None:
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with Programs(place.cwd) as programs:
        server = place.server(programs).start()
        workers = [place.kernels(programs, name).start() for name in ("left", "right")]
        await server.says("owns partitions")
        for worker in workers:
            await worker.says("kernel day_figures on")
        async with Load(place, seed=seed, closes=True) as load:
            done = 0
            while done < kills if kills is not None else loop.time() < end:
                await load.answered(rng.randrange(20, 60))
                await asyncio.sleep(rng.uniform(0, 0.05))  # so that the kill falls anywhere in a batch
                worker = rng.choice(workers)
                worker.kill()
                worker.start()
                await worker.says("kernel day_figures on")
                done += 1
            told = await load.finish()
        found = await settled(place, told, kernels=True)
        days = [run for p in found.partitions for run in p.books.runs.values() if isinstance(run, Day)]
        closed = [f"{day.carrier}-{day.day}" for day in days if day.status == "closed"]
        assert sorted(closed) == sorted(load.closed_books)
        assert all(day.reports == 1 for day in days if day.status == "closed")
        for worker in workers:
            await worker.stop()
        await server.stop()
        await place.verify("server")


@pytest.mark.broker
def test_every_day_is_closed_once_however_often_workers_are_killed(kafka: Place) -> None:
    run(kill_workers(kafka, seed=4, kills=2), deadline_s=120)


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_S)
def test_every_day_is_closed_once_in_a_long_run_of_kills(place: Place) -> None:
    run(kill_workers(place, seed=CHAOS_SEED, seconds=CHAOS_S), deadline_s=DEADLINE_S)
