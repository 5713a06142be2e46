"""A broker that is killed, stopped, and not there yet, under a server, workers and clients that go on by themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from millstream.events.codec import Codec
from millstream.events.flight import Flight
from millstream.events.logs.port import read_range
from millstream.events.topics import STREAM_PARTITIONS
from millstream.streams.broker.server import Broker
from tests.chaos.examine import settled
from tests.chaos.lengths import CHAOS_S, CHAOS_SEED, DEADLINE_S
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.support.aio import run, until
from tests.support.commands import COMMAND, environment
from tests.support.processes import Programs

pytestmark = pytest.mark.broker

STALL_S = 60.0
"""Far more than a stall may last; a liveness bound for a machine that is busy with other things."""
LINES_MAX = 30


async def kill_the_broker(broker: Broker, place: Place, *, seed: int, kills: int | None, seconds: float = 0.0) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with Programs(place.cwd) as programs:
        server, kernels = place.server(programs).start(), place.kernels(programs).start()
        await server.says("owns partitions")
        async with Load(place, seed=seed, closes=True) as load:
            done = 0
            while done < kills if kills is not None else loop.time() < end:
                await load.answered(50)
                broker.kill()
                await asyncio.to_thread(broker.start)
                await load.answered(30, deadline_s=STALL_S)
                done += 1
            told = await load.finish()
        found = await settled(place, told, kernels=True)
        assert found.transitions > 0
        # Neither was started again, and neither fills a disk with what it says.
        for program in (server, kernels):
            await program.stop()
            assert program.starts == 1
            assert len(program.said().splitlines()) < LINES_MAX * (done + 1), program.said()
        await place.verify("server")


def test_a_broker_killed_three_times_loses_and_doubles_nothing_and_all_go_on(
    mortal_broker: Broker, tmp_path: Path
) -> None:
    place = Place("kafka", mortal_broker.address, tmp_path)
    run(kill_the_broker(mortal_broker, place, seed=21, kills=3), deadline_s=240)


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_S)
def test_a_broker_killed_for_long_loses_and_doubles_nothing(mortal_broker: Broker, tmp_path: Path) -> None:
    place = Place("kafka", mortal_broker.address, tmp_path)
    run(kill_the_broker(mortal_broker, place, seed=CHAOS_SEED, kills=None, seconds=CHAOS_S), deadline_s=DEADLINE_S)


LINE_BYTES = 20_000
OFFERED = 2_500
HELD_BYTES_MAX = 64 << 20
RSS_MAX = 400 << 20


def lines(count: int) -> Iterator[bytes]:
    """Flights as JSON lines, 20 KB each; `flight` numbers them."""
    for n in range(count):
        flight = {
            "year": 2013, "month": 1, "day": 1, "dep_time": 517, "sched_dep_time": 515, "dep_delay": 2.0,
            "arr_time": 830, "sched_arr_time": 819, "arr_delay": 11.0, "carrier": "UA", "flight": n,
            "tailnum": "N" * LINE_BYTES, "origin": "EWR", "dest": "IAH", "air_time": 227.0, "distance": 1400.0,
        }  # fmt: skip
        yield json.dumps(flight).encode() + b"\n"


async def publish_through_an_absence(broker: Broker, place: Place) -> None:
    """A publisher meets a stopped broker: it takes so much from its source, and waits with the rest in the source.

    A server that is started meanwhile waits, says so once, and goes on when the broker is there.
    """
    given = 0
    async with Programs(place.cwd) as programs:
        server = place.server(programs).start()
        await server.says("owns partitions")
        async with Load(place, seed=9) as load:
            await load.answered(50)
            errors = place.folder("publish-errors")
            with errors.open("wb") as file:
                publisher = await asyncio.create_subprocess_exec(
                    *COMMAND, "publish", "flights", *place.where, cwd=place.cwd, env=environment(),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=file,
                )  # fmt: skip

            async def feed() -> None:
                nonlocal given
                assert publisher.stdin is not None
                for line in lines(OFFERED):
                    publisher.stdin.write(line)
                    given += 1
                    if given % 10 == 0:
                        await publisher.stdin.drain()
                publisher.stdin.close()

            try:
                feeding = asyncio.ensure_future(feed())
                await until(lambda: given > 200, "the publisher reads", 30.0)
                await asyncio.to_thread(broker.stop)
                await _held_back(lambda: given)
                assert given * LINE_BYTES < HELD_BYTES_MAX, f"{given} lines were taken while nobody took them from it"
                assert psutil.Process(publisher.pid).memory_info().rss < RSS_MAX
                assert psutil.Process(server.pid).memory_info().rss < RSS_MAX
                late = Place("kafka", place.address, place.cwd)
                waiting = late.server(programs, "late").start()
                await waiting.says("does not answer")
                await asyncio.to_thread(broker.start)
                await waiting.says("owns partitions")
                assert waiting.said().count("does not answer") == 1, waiting.said()
                assert place.address in waiting.said()
                await feeding
                out, _ = await asyncio.wait_for(publisher.communicate(), STALL_S)
                assert publisher.returncode == 0, errors.read_text()
                assert f"published {OFFERED:,} records" in out.decode()
            finally:
                feeding.cancel()
                if publisher.returncode is None:
                    publisher.kill()
                    await publisher.wait()
            assert len(errors.read_text().splitlines()) < LINES_MAX, errors.read_text()
            await load.answered(50, deadline_s=STALL_S)
            told = await load.finish()
        await settled(place, told)
        assert len((await server.stop()).splitlines()) < LINES_MAX, server.said()
        await place.verify("server")
    assert await _flights(place) >= set(range(OFFERED)), "a published record is missing"


async def _held_back(taken: Callable[[], int]) -> None:
    """Until nothing more is taken: a hundred looks in a row at the same number."""
    seen, same = -1, 0

    def still() -> bool:
        nonlocal seen, same
        now = taken()
        seen, same = now, same + 1 if now == seen else 0
        return same >= 100

    await until(still, "the publisher takes no more", 60.0, pause_s=0.02)
    assert seen < OFFERED, "all was taken: nothing held the publisher back"


async def _flights(place: Place) -> set[int]:
    codec, found = Codec(), set[int]()
    async with place.log() as log:
        topic = (await place.topics(log)).stream("flights")
        for partition in range(STREAM_PARTITIONS):
            bounds = await log.bounds(topic, partition)
            async for records in read_range(log, topic, partition, bounds.first, bounds.end):
                flights = [codec.decode(r.value or b"") for r in records]
                found |= {flight.flight for flight in flights if isinstance(flight, Flight)}
    return found


def test_while_the_broker_is_stopped_publishers_are_held_back_and_a_new_server_waits(
    mortal_broker: Broker, tmp_path: Path
) -> None:
    place = Place("kafka", mortal_broker.address, tmp_path)
    run(publish_through_an_absence(mortal_broker, place), deadline_s=180)
