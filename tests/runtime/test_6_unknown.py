"""Unknown: every other end of an append. Throw away what isn't proved, claim again, read, learn."""

from __future__ import annotations

import asyncio

import pytest

from millstream.events.envelope import Fence, read_fence_header
from millstream.events.errors import AppendUnknown, HoleInJournal, LogUnavailable, LogWentBack
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Appended, Bounds, TopicPartition
from millstream.events.run import CommandRepeated
from millstream.projections.fold import Runs
from millstream.projections.reader import JournalReader
from millstream.streams.runtime.batch import Batch
from millstream.streams.runtime.owner import Owner
from tests.support.world import (
    APPEND_TIMEOUT_S,
    CLOSE,
    DAY,
    OPEN,
    Handle,
    World,
    book_of,
    day,
    flight,
    owner_with,
    play,
)

ENDS = [end for end in End if end is not End.OK]


# ------------------------------------------------------------------ every end of each of the first appends


async def one_append_ends_otherwise(world: World, owner_type: type[Owner], end: End, number: int) -> list[str]:
    """What is wrong after a whole day, if anything. Append `number` to the journal (0: the claim) ends so."""
    owning = world.own(owner_type, ends={"journal": [End.OK] * number + [end]})
    world.compute()
    wrong: list[str] = []
    async with world.client() as client:
        bodies = [OPEN, flight(0.0), flight(1.0), flight(2.0), CLOSE]
        for index, body in enumerate(bodies):
            try:
                answer = await client.ask(DAY, body, command_id=f"c{index}", timeout_s=20.0)
            except TimeoutError:
                return [f"no answer to {type(body).__name__}"]
            wrong += [f"{type(body).__name__} is refused: {answer.reason}"] if not answer.accepted else []
    closed = await world.until(lambda: len(world.reports()) > 0, within_s=20.0)
    wrong += [] if closed else ["no report"]
    world.land_late()
    world.put(DAY, OPEN, "last")
    wrong += [] if await world.decided("last", within_s=20.0) else ["the partition doesn't go on"]
    await world.quiet()
    return wrong + double_or_lost(world) + ([repr(owning.failure)] if owning.failure else [])


def double_or_lost(world: World) -> list[str]:
    entered, valid = world.entered(), world.valid()
    first = [v.transition for v in valid if not isinstance((*v.transition.events, None)[0], CommandRepeated)]
    ids = [t.command_id for t in first if t.command_id is not None]
    wrong = [] if entered == [0.0, 1.0, 2.0] else [f"entered {entered}"]
    wrong += [f"{i} has {ids.count(i)} effects" for i in sorted(set(ids)) if ids.count(i) > 1]
    reports = {r.event_id for r in world.reports()}
    wrong += [] if len(reports) == 1 else [f"{len(reports)} reports"]
    calls = {c.request_id for c in world.calls()}
    return wrong + ([] if len(calls) == 1 else [f"{len(calls)} calls"])


@pytest.mark.parametrize("end", ENDS, ids=[end.name.lower() for end in ENDS])
def test_whatever_the_end_of_an_append_the_outcome_is_learnt_from_the_log(end: End) -> None:
    # A wrong offset for a claim is a lie that no log tells; a reader can only take it for a log that went back.
    first = 1 if end is End.LANDED_OTHER_OFFSET else 0
    for number in range(first, 12):
        assert play(one_append_ends_otherwise, Owner, end, number) == [], f"append {number}"


class ErrorMeansRefused(Owner):
    """An error is taken for "it didn't land, and never will": the asker may ask again, and the owner goes on."""

    def _prove(self) -> None:
        assert self._flying is not None
        if isinstance(self._flying[0].exception(), AppendUnknown):
            self._flying = self._pending = None
            self._runs.clear()
        else:
            super()._prove()


class ErrorMeansLanded(Owner):
    """An error is taken for "it will have landed"."""

    def _prove(self) -> None:
        assert self._flying is not None
        task, batch = self._flying
        if isinstance(task.exception(), AppendUnknown):
            told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
            told.set_result(Appended(batch.base, -1))
            self._flying = (told, batch)  # type: ignore[assignment]
        super()._prove()


class KeepsTheTentativeState(Owner):
    """What was decided stays decided, whether it is on the log or not."""

    async def _forget(self, why: str) -> None:
        batch = None
        if self._flying is not None:
            batch = self._flying[1]
        await super()._forget(why)
        if batch is not None:
            self._store.write(batch.rows, self._store.fence())
            self._runs.clear()

    def _prove(self) -> None:
        flying = self._flying
        try:
            super()._prove()
        except AppendUnknown:
            self._flying = flying
            raise


class ClaimsWithoutReading(Owner):
    """Claims again and goes on from what it has proved itself."""

    async def _read_up_to_claim(self) -> None:
        assert self._epoch is not None
        if not self._fence.number:
            await super()._read_up_to_claim()
            return
        offset, claim_id = self._epoch
        self._fence = Fence(offset, offset, claim_id, 0, self._fence.command_offset, self._fence.sent)
        self._judge.reset()
        await self._open_commands(self._fence)
        self._watcher.claimed(self.partition, offset)


@pytest.mark.parametrize(
    ("broken", "end", "fault"),
    [
        (ErrorMeansRefused, End.REFUSED, "no answer to EnterFlight"),
        (ErrorMeansLanded, End.REFUSED, "no answer to EnterFlight"),
        (KeepsTheTentativeState, End.REFUSED, "entered [0.0, 2.0]"),
        (ClaimsWithoutReading, End.LANDED_ERROR, "entered [0.0, 1.0, 1.0, 2.0]"),
        (ClaimsWithoutReading, End.LANDED_NO_OFFSET, "c2 has 2 effects"),
    ],
)
def test_an_owner_that_thinks_it_knows_the_end_loses_or_doubles(broken: type[Owner], end: End, fault: str) -> None:
    assert fault in play(one_append_ends_otherwise, broken, end, 3)


# ------------------------------------------------------------------ retiring


class Flaky(Handle):
    """Once, on demand, it doesn't say where a topic ends."""

    fails = False

    async def bounds(self, topic: str, partition: int) -> Bounds:
        if self.fails:
            self.fails = False
            raise LogUnavailable("the log doesn't answer now")
        return await super().bounds(topic, partition)


class StopsPolitely(Flaky):
    """A producer that isn't cut off: what it was given it goes on trying to send."""

    async def retire(self) -> None: ...


async def an_append_that_is_given_up(world: World, handle_type: type[Flaky]) -> tuple[int, int]:
    """Records that no reader takes, and claims, after a batch was given up on its way."""
    handle = handle_type(world.cluster, ends={}, late_after=1, orphans_land=False, limits=None, session_timeout_s=3.0)
    owning = world.own(handle=handle)
    run_id, opening = day(16, close_at=world.log_ms() + 500)
    world.put(run_id, opening, "open")
    assert await world.decided("open")
    await asyncio.sleep(0.4)
    handle.slow_s = 0.8
    world.put(run_id, flight(), "enter")
    await asyncio.sleep(0.05)
    handle.slow_s, handle.fails = 0.001, True
    await world.quiet()
    assert world.entered(run_id) == [1.0]
    world.put(run_id, OPEN, "last")
    assert await world.decided("last")
    claims = sum(1 for r in world.journal() if (read_fence_header(r.headers) or (None,))[0] == "claim")
    assert owning.failure is None
    return len(world.journal()) - len(world.valid()) - claims, claims


def test_what_is_given_up_is_cut_off_so_that_no_ghost_of_it_lands_over_the_new_claim() -> None:
    assert play(an_append_that_is_given_up, Flaky) == (0, 2)
    ghosts, claims = play(an_append_that_is_given_up, StopsPolitely)
    assert ghosts > 0
    assert claims > 2


# ------------------------------------------------------------------ the log went back


class TakesItForAnotherWriter(Owner):
    """A lower offset is an end like any other: claim again and go on."""

    def _unproved(self, appended: Appended, batch: Batch) -> AppendUnknown | LogWentBack:
        return AppendUnknown("somebody else wrote")


async def a_journal_that_loses_its_end(
    world: World, owner_type: type[Owner]
) -> tuple[BaseException | None, list[float | None], str]:
    """What stopped the owner, the flights in its store, and what every other reader says."""
    owning = world.own(owner_type)
    for command_id, body in (("open", OPEN), ("one", flight(1.0)), ("two", flight(2.0))):
        world.put(DAY, body, command_id)
        assert await world.decided(command_id)
    world.cluster.truncate(TopicPartition(world.topics.journal, 0), 3)
    world.put(DAY, flight(3.0), "three")
    await world.quiet()
    flights = [item.arr_delay_min for item in book_of(Runs(owning.store)).flights]
    try:
        await world.fold()
        others = ""
    except HoleInJournal as hole:
        others = str(hole)
    return owning.failure, flights, others


def test_an_offset_lower_than_expected_stops_the_owner_loudly() -> None:
    failure, flights, others = play(a_journal_that_loses_its_end, Owner)
    assert isinstance(failure, LogWentBack)
    assert "landed at offset 3, but records up to 3 were proved before" in str(failure)
    assert flights == [1.0, 2.0]
    assert "expected number 3, found 4" in others
    failure, flights, others = play(a_journal_that_loses_its_end, TakesItForAnotherWriter)
    # It works on, with what nobody else can ever read.
    assert failure is None
    assert flights == [1.0, 2.0, 3.0]
    assert "expected number 3, found 4" in others


class BelievesTheEnd(Owner):
    """Begins where the commands end, if that is before what the journal has decided."""

    async def _open_commands(self, fence: Fence) -> None:
        bounds = await self._log.bounds(self._topics.commands, self.partition)
        position = min(fence.command_offset + 1, bounds.end)
        self._inlet = self._feed.open(self.partition, position, self._wake_up)


async def commands_that_were_made_anew(
    world: World, owner_type: type[Owner]
) -> tuple[BaseException | None, list[float | None]]:
    """What stopped the owner, and what was entered. A command that the log had taken is gone."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, flight(1.0), "one")
    assert await world.decided("one")
    await first.leave()
    world.put(DAY, flight(2.0), "taken and lost")
    await world.admin.delete_topic(world.topics.commands)
    await world.make_topics()
    owning = world.own(owner_type)
    await asyncio.sleep(0.1)
    world.put(DAY, flight(3.0), "three")
    await world.quiet()
    return owning.failure, world.entered()


def test_commands_that_end_before_what_was_decided_stop_the_owner_loudly() -> None:
    failure, entered = play(commands_that_were_made_anew, Owner)
    assert isinstance(failure, LogWentBack)
    assert "ends at 0, but the journal has decided command 1" in str(failure)
    assert "Restore both topics from one moment" in str(failure)
    assert entered == [1.0]
    failure, entered = play(commands_that_were_made_anew, BelievesTheEnd)
    # One that was taken is missing, and nobody ever hears of it.
    assert failure is None
    assert entered == [1.0, 3.0]


def test_an_append_without_an_answer_is_unknown_after_its_time_out_and_the_partition_goes_on() -> None:
    async def scenario(world: World) -> float:
        owning = world.own(ends={"journal": [End.OK, End.NEVER]})
        world.put(DAY, OPEN, "open")
        assert await world.decided("open")
        assert len(owning.told.whys) == 1
        return world.loop.time()

    assert APPEND_TIMEOUT_S < play(scenario) < APPEND_TIMEOUT_S + 0.2


# ------------------------------------------------------------------ a log that is away at the start


class AwayAtFirst(JournalReader):
    """The log doesn't answer when the store is first compared with it."""

    asked = 0

    async def prepare(self) -> str | None:
        self.asked += 1
        if self.asked == 1:
            raise LogUnavailable("the log doesn't answer now")
        return await super().prepare()


class PreparesOnce(Owner):
    """Compares before it does anything else, and doesn't wait for a log that is away."""

    async def run(self) -> None:
        await self._prepare()
        await super().run()


async def a_log_away_at_the_start(world: World, owner_type: type[Owner]) -> tuple[bool, BaseException | None]:
    """Whether a command is decided in the end, and what stopped the owner."""
    owning = world.own(owner_with(owner_type, reader=AwayAtFirst))
    world.put(DAY, OPEN, "open")
    await world.quiet()
    return "open" in world.ids(), owning.failure


def test_a_log_that_is_away_when_the_store_is_compared_is_waited_for() -> None:
    assert play(a_log_away_at_the_start, Owner) == (True, None)
    decided, failure = play(a_log_away_at_the_start, PreparesOnce)
    assert not decided
    assert isinstance(failure, LogUnavailable)
