"""An owner that is stopped where it is (SIGSTOP) while another takes over, and goes on as if nothing had been."""

from __future__ import annotations

import pytest

from millstream.events.envelope import read_fence_header
from millstream.events.errors import AppendUnknown
from millstream.events.logs.port import Record, read_range
from millstream.events.logs.sqlite import SqliteLog
from tests.chaos.examine import settled
from tests.chaos.lengths import CHAOS_S, CHAOS_SEED, DEADLINE_S
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.support.aio import run
from tests.support.processes import Program, Programs

ROUNDS_MAX = 6


async def freeze_outside_the_lock(place: Place, program: Program) -> None:
    """Stop it, but on the embedded log not while it holds the lock that all processes write under."""
    if place.kind == "kafka":
        program.freeze()
        return
    async with SqliteLog(place.address, stuck_s=0.5) as log:
        topics = await place.topics(log)
        while True:
            program.freeze()
            try:
                await log.append(topics.fences, 0, [Record(None)])
                return
            except AppendUnknown:
                program.thaw()


async def stale_records(place: Place) -> int:
    """Records so far of an epoch that was over when they landed."""
    stale = 0
    async with place.log() as log:
        topics = await place.topics(log)
        for partition in range(topics.partitions):
            epoch = -1
            end = (await log.bounds(topics.journal, partition)).end
            async for records in read_range(log, topics.journal, partition, 0, end):
                for record in records:
                    mark = read_fence_header(record.headers)
                    assert mark is not None
                    epoch = record.offset if mark.kind == "claim" else epoch
                    stale += mark.kind == "transition" and mark.epoch_offset != epoch
    return stale


async def stop_owners(place: Place, *, seed: int, rounds: int) -> None:
    """The two servers take turns in being stopped."""
    async with Programs(place.cwd) as programs:
        one, two = place.server(programs, "one").start(), place.server(programs, "two")
        await one.says("owns partitions")
        async with Load(place, seed=seed) as load:
            await load.answered(50)
            two.start()
            await two.says("owns partitions")
            turn = 0
            # An owner that is stopped between two batches has nothing to write in vain: then it's the next one's turn.
            while turn < rounds or (await stale_records(place) == 0 and turn < ROUNDS_MAX):
                stopped = (one, two)[turn % 2]
                turn += 1
                await freeze_outside_the_lock(place, stopped)
                # All workers write to runs of both partitions: so much is answered only if the other has them all.
                await load.answered(100)
                stopped.thaw()
                await load.answered(50)
            told = await load.finish()
        found = await settled(place, told)
        assert found.dropped > 0, "who was stopped wrote under its old epoch"
        await one.stop()
        await two.stop()
        assert "stopped:" in one.said()
        await place.verify("one", "two")


def test_an_owner_stopped_past_its_session_writes_in_vain_and_steps_down_by_itself(place: Place) -> None:
    run(stop_owners(place, seed=3, rounds=1), deadline_s=120)


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_S)
def test_owners_that_are_stopped_in_turn_for_long_write_in_vain(place: Place) -> None:
    run(stop_owners(place, seed=CHAOS_SEED, rounds=max(4, int(CHAOS_S / place.session_s / 2))), deadline_s=DEADLINE_S)
