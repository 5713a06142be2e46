"""Claim: who may append, from when on, and how one gets back in. Each test shows what goes wrong without the rule."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from millstream.events.daybook import DayOpened, FlightEntered
from millstream.events.envelope import FORMAT, Fence, FenceMark
from millstream.events.errors import NewerFormat, PartitionCountMismatch
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import TopicPartition
from millstream.events.topics import Topics
from millstream.projections import fence as fences
from millstream.projections.fence import fence_after
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import JournalReader
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.owner import CLAIM_BACKOFF_CAP_S, CLAIM_BACKOFF_FIRST_S, Owner
from tests.support.world import DAY, OPEN, World, book_of, flight, owner_with, play, play_with

OPENED = DayOpened("9E", "2013-01-16")


def entered(position: int, delay_min: float) -> FlightEntered:
    return FlightEntered(position, "1234", "JFK", "BOS", False, delay_min)


# ------------------------------------------------------------------ the epoch


class EpochIsTheOffset(fences.Judge):
    """Without the claim id: an epoch is known by the offset of its claim alone."""

    __slots__ = ()

    def __call__(self, mark: FenceMark, offset: int, fence: Fence) -> fences.Verdict:
        return super().__call__(
            mark._replace(claim_id=fence.claim_id) if mark.kind == "transition" else mark, offset, fence
        )


class ReadsByOffset(JournalReader):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self._judge = EpochIsTheOffset()


async def a_claim_at_the_same_offset_after_a_cut(world: World, reader_type: type[JournalReader]) -> list[float | None]:
    """What a reader that goes on over the cut has: the first owner's records, or a mixture."""
    tp = TopicPartition(world.topics.journal, 0)
    world.ghost_claim(claim_id=1)
    opened = world.transition((0, 1), 1, DAY, OPENED)
    world.land(*tp, opened, world.transition((0, 1), 2, DAY, entered(0, 1.0)))
    store = MemoryStore()
    runs = await world.fold(store)
    reader = reader_type(log=world.admin, topics=world.topics, partition=0, runs=runs, codec=world.codec)

    world.cluster.truncate(tp, 0)
    world.ghost_claim(claim_id=2)
    opened = world.transition((0, 2), 1, DAY, OPENED)
    world.land(*tp, opened, world.transition((0, 2), 2, DAY, entered(0, 5.0)))
    world.land(*tp, world.transition((0, 2), 3, DAY, entered(1, 6.0)))
    assert await world.flights() == [5.0, 6.0]
    await reader.catch_up_to_end()
    return [item.arr_delay_min for item in book_of(runs).flights]


def test_the_claim_id_tells_two_claims_at_one_offset_apart() -> None:
    assert play(a_claim_at_the_same_offset_after_a_cut, JournalReader) == [1.0]
    assert play(a_claim_at_the_same_offset_after_a_cut, ReadsByOffset) == [1.0, 6.0]


# ------------------------------------------------------------------ reading up to the claim


class DecidesAtOnce(Owner):
    """Without reading: begins from what its store has."""

    async def _read_up_to_claim(self) -> None:
        assert self._epoch is not None
        offset, claim_id = self._epoch
        self._fence = Fence(offset, offset, claim_id, 0, self._store.fence().command_offset, self._store.fence().sent)
        await self._open_commands(self._fence)
        self._watcher.claimed(self.partition, offset)


async def a_take_over_with_an_empty_store(world: World, owner_type: type[Owner]) -> list[float | None]:
    first = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(), "enter")
    assert await world.decided("open", "enter")
    first.crash()
    world.own(owner_type)
    world.put(DAY, flight(2.0), "another")
    assert await world.decided("another")
    return await world.flights()


def test_an_owner_reads_up_to_its_claim_before_it_decides() -> None:
    assert play(a_take_over_with_an_empty_store, Owner) == [1.0, 2.0]
    assert play(a_take_over_with_an_empty_store, DecidesAtOnce) == [1.0, 1.0, 2.0]


class ReadsToWhereTheLogEndedBefore(Owner):
    """Reads, but only what was there when it began to claim."""

    async def _claim(self) -> None:
        self._seen = (await self._log.bounds(self._topics.journal, self.partition)).end
        await super()._claim()

    async def _read_up_to_claim(self) -> None:
        assert self._epoch is not None
        offset, claim_id = self._epoch
        old = await self._reader.catch_up(self._seen)
        self._fence = Fence(offset, offset, claim_id, 0, old.command_offset, old.sent)
        self._judge.reset()
        await self._open_commands(self._fence)
        self._watcher.claimed(self.partition, offset)


async def a_batch_that_lands_while_another_claims(world: World, owner_type: type[Owner]) -> list[float | None]:
    first = world.own()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    first.log.slow_s = 0.2
    world.put(DAY, flight(), "enter")
    await asyncio.sleep(0.1)
    second = world.own(owner_type, handle=world.handle())
    second.log.slow_s = 0.3
    assert await world.decided("enter")
    await world.quiet()
    return await world.flights()


def test_what_lands_before_the_claim_is_read_however_late() -> None:
    assert play(a_batch_that_lands_while_another_claims, Owner) == [1.0]
    assert play(a_batch_that_lands_while_another_claims, ReadsToWhereTheLogEndedBefore) == [1.0, 1.0]


# ------------------------------------------------------------------ claiming again


class ClaimsOnce(Owner):
    """Without claiming again: what isn't its own any more, it leaves to whoever is assigned, and that is itself."""

    async def _claim(self) -> None:
        if self._epoch is not None:
            await asyncio.Event().wait()
        await super()._claim()


async def a_late_claim_of_a_dead_owner(world: World, owner_type: type[Owner]) -> bool:
    living = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.ghost_claim(owner="the dead one")
    world.put(DAY, flight(), "enter")
    decided = await world.decided("enter")
    assert living.failure is None
    return decided


def test_an_owner_claims_again_as_long_as_the_partition_is_assigned_to_it() -> None:
    assert play(a_late_claim_of_a_dead_owner, Owner)
    assert not play(a_late_claim_of_a_dead_owner, ClaimsOnce)


class Patient(Chance):
    """Without jitter: the whole delay, always."""

    def jitter(self, delay_s: float) -> float:
        return delay_s


class Hasty(Chance):
    def jitter(self, delay_s: float) -> float:
        return 0.0


async def a_log_that_refuses_for_a_while(world: World, chance: Chance, for_s: float = 10.0) -> list[float]:
    """When the owner tried to claim, in seconds from the first."""
    owning = world.own(ends={"journal": [End.REFUSED] * 100_000}, chance=chance)
    await asyncio.sleep(for_s)
    owning.log.script.by_topic.clear()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    tries = owning.log.tries["journal"]
    return [at - tries[0] for at in tries if at <= for_s]


def test_it_waits_longer_before_each_claim_up_to_two_seconds() -> None:
    append_s = 0.001
    tries = play(a_log_that_refuses_for_a_while, Patient())
    waits = [after - before - append_s for before, after in pairwise(tries)]
    doubling = [CLAIM_BACKOFF_FIRST_S * 2**n for n in range(20)]
    assert [round(w, 3) for w in waits] == [min(d, CLAIM_BACKOFF_CAP_S) for d in doubling[: len(waits)]]
    assert len(play(a_log_that_refuses_for_a_while, Patient(), for_s=1.0)) == 5
    assert len(play(a_log_that_refuses_for_a_while, Hasty(), for_s=1.0)) > 500


def test_two_that_lost_together_do_not_claim_together() -> None:
    one, two = (play(a_log_that_refuses_for_a_while, Chance(seed)) for seed in (1, 2))
    assert not {round(at, 3) for at in one[1:]} & {round(at, 3) for at in two[1:]}
    waits = [after - before - 0.001 for before, after in pairwise(one)]
    for n, wait in enumerate(waits):
        whole = min(CLAIM_BACKOFF_FIRST_S * 2**n, CLAIM_BACKOFF_CAP_S)
        assert whole / 2 <= round(wait, 6) <= whole
    assert play(a_log_that_refuses_for_a_while, Patient()) == play(a_log_that_refuses_for_a_while, Patient())


async def progress_after_a_quarrel(world: World) -> float:
    """The wait before the next claim, after something was proved in between."""
    owning = world.own(chance=Patient(), ends={"journal": [End.REFUSED] * 4})
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    before = len(owning.log.tries["journal"])
    owning.log.script.by_topic["journal"] = [End.REFUSED]
    world.put(DAY, flight(), "enter")
    assert await world.decided("enter")
    failed, claimed = owning.log.tries["journal"][before : before + 2]
    return claimed - failed


def test_after_something_was_proved_the_wait_is_short_again() -> None:
    assert play(progress_after_a_quarrel) < 2 * CLAIM_BACKOFF_FIRST_S


# ------------------------------------------------------------------ count and format


class TakesAnyClaim(JournalReader):
    """Without a look at what a claim says."""

    def _claimed(self, fence: Fence, mark: FenceMark, offset: int, claim: object) -> Fence:
        return fence_after(fence, mark, offset)


async def two_partition_counts(world: World, owner_type: type[Owner]) -> tuple[int, BaseException | None]:
    """How many times one run was opened, and what stopped the owner that counts otherwise."""
    run_id = next(f"9E-2013-01-{n:02}" for n in range(1, 29) if two_homes(f"9E-2013-01-{n:02}"))
    opening = type(OPEN)("9E", run_id[3:], None)
    right, wrong = Topics("t", 4).partition_of(run_id), Topics("t", 2).partition_of(run_id)
    for partition in (right, wrong):
        world.own(partition=partition, name=f"right-{partition}")
    world.put(run_id, opening, "open")
    assert await world.decided("open", partition=right)
    world.put(run_id, opening, "open-2", partition=wrong)
    assert await world.until(lambda: len(world.records(world.topics.commands, right)) == 2)
    other = world.own(owner_type, partition=wrong, topics=Topics("t", 2), name="counts otherwise")
    await world.quiet()
    world.put(run_id, opening, "open-3", partition=wrong)
    await world.quiet()
    opened = sum(len(world.events(DayOpened, partition)) for partition in (right, wrong))
    return opened, other.failure


def two_homes(run_id: str) -> bool:
    return Topics("t", 4).partition_of(run_id) != Topics("t", 2).partition_of(run_id)


def test_whoever_sees_another_partition_count_stops_and_says_so() -> None:
    opened, failure = play_with(4, two_partition_counts, Owner)
    assert opened == 1
    assert isinstance(failure, PartitionCountMismatch)
    assert "partition 1 of 4 partitions" in str(failure) or "partition 0 of 4 partitions" in str(failure)
    assert "has 2" in str(failure)

    opened, failure = play_with(4, two_partition_counts, owner_with(reader=TakesAnyClaim))
    assert opened == 2
    assert failure is None


async def a_claim_of_a_newer_release(world: World, owner_type: type[Owner]) -> tuple[bool, BaseException | None]:
    """Whether this release appends behind the claim of a newer format, and what stopped it."""
    claimed = world.ghost_claim(format=FORMAT + 1)
    owning = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    await world.quiet()
    return any(v.offset > claimed for v in world.valid()), owning.failure


def test_whoever_sees_a_newer_format_stops_and_says_so() -> None:
    appended, failure = play(a_claim_of_a_newer_release, Owner)
    assert not appended
    assert isinstance(failure, NewerFormat)
    assert f"journal format {FORMAT + 1}" in str(failure)
    assert "Upgrade" in str(failure)

    appended, failure = play(a_claim_of_a_newer_release, owner_with(reader=TakesAnyClaim))
    assert appended
    assert failure is None
