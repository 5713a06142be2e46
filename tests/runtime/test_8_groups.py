"""Groups only hand out partitions: what is decided, and by whom, follows from the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from millstream.events.daybook import CloseFailed, DayClosed
from millstream.events.envelope import Command, Fence
from millstream.events.errors import InstanceInUse
from millstream.events.kernel import DeadLetter, KernelCalled
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Group, Record, TopicPartition
from millstream.events.run import CommandRefused, CommandRepeated
from millstream.streams.gpu.figures import compute
from millstream.streams.gpu.group import KernelGroup
from millstream.streams.runtime.outbox import Outbox
from millstream.streams.runtime.owner import Owner
from tests.runtime.serving import SESSION_S, serve
from tests.support.world import (
    CLOSE,
    DAY,
    OPEN,
    World,
    day,
    flight,
    owner_with,
    play,
    play_with,
)

KERNEL_TOPIC = "kernels.day_figures"


# ------------------------------------------------------------------ the group's positions


class BeginsWhereTheGroupSays(Owner):
    """Reads commands from the group's committed position, or from the end where that is gone."""

    async def _open_commands(self, fence: Fence) -> None:
        bounds = await self._log.bounds(self._topics.commands, self.partition)
        self._inlet = self._feed.open(self.partition, bounds.end, self._wake_up)


class BeginsAtTheBeginning(Owner):
    """Reads commands from the group's committed position, or from the first that there is where that is gone."""

    async def _open_commands(self, fence: Fence) -> None:
        self._inlet = self._feed.open(self.partition, 0, self._wake_up)


async def a_quiet_week(world: World, owner_type: type[Owner]) -> tuple[int, list[float | None]]:
    """Commands that are decided again, and what is entered. The group forgets its positions; a command had come."""
    first = serve(world)
    for number in range(20):
        world.put(DAY, flight(number) if number else OPEN, f"c{number}")
    assert await world.decided("c19")
    await world.quiet()
    first.crash()
    world.put(DAY, flight(20), "c20")
    for group in world.cluster.groups.values():
        group.committed.clear()
    serve(world, owner_type=owner_type)
    await world.quiet()
    world.put(DAY, flight(21), "c21")
    assert await world.decided("c21")
    return len(world.events(CommandRepeated)), world.entered()[19:]


def test_commands_are_read_from_where_the_journal_is_and_not_from_where_the_group_says() -> None:
    assert play(a_quiet_week, Owner) == (0, [20, 21])
    assert play(a_quiet_week, BeginsWhereTheGroupSays) == (0, [21])
    repeated, _ = play(a_quiet_week, BeginsAtTheBeginning)
    assert repeated == 20


class BeginsAtTheEnd(KernelGroup):
    async def _positions(self, group: Group, assignment: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: (await self._log.bounds(tp.topic, tp.partition)).end for tp in assignment}


async def a_quiet_week_of_the_kernel(world: World, group_type: type[KernelGroup]) -> tuple[int, list[str]]:
    """Reports in the end, and refusals. The group forgets its positions; a call had come."""
    world.own()
    first = world.compute()
    (one, open_one), (two, open_two) = day(16), day(17)
    for run_id, opening in ((one, open_one), (two, open_two)):
        world.put(run_id, opening, f"open {run_id}")
        world.put(run_id, flight(), f"enter {run_id}")
    world.put(one, CLOSE, "close one")
    assert await world.until(lambda: len(world.reports()) == 1)
    await world.quiet()
    first.crash()
    world.put(two, CLOSE, "close two")
    await world.quiet(5.0)
    for group in world.cluster.groups.values():
        group.committed.clear()
    world.compute(group_type)
    await world.quiet(20.0)
    assert len({e.day for e in world.events(DayClosed)}) == len(world.events(DayClosed))
    return len(world.reports()), [e.code for e in world.events(CommandRefused)]


def test_a_kernel_group_that_lost_its_positions_computes_again_and_changes_nothing_twice() -> None:
    assert play(a_quiet_week_of_the_kernel, KernelGroup) == (2, [])
    assert play(a_quiet_week_of_the_kernel, BeginsAtTheEnd) == (1, [])


class CommitsFirst(KernelGroup):
    """Commits its position before its answers are durable."""

    async def _answer(self, calls: Sequence[KernelCalled], answers: Sequence[Command]) -> None:
        self._under_way = asyncio.ensure_future(super()._answer(calls, answers))
        await asyncio.sleep(0)


async def a_worker_dies_before_its_answer(world: World, group_type: type[KernelGroup]) -> int:
    """Reports in the end."""
    world.own()
    worker = world.compute(group_type, ends={"commands": [End.NEVER]})
    for command_id, body in (("open", OPEN), ("enter", flight()), ("close", CLOSE)):
        world.put(DAY, body, command_id)
    assert await world.until(lambda: "commands" in worker.log.tries)
    await asyncio.sleep(0.1)
    worker.crash()
    world.compute(group_type)
    await world.quiet(20.0)
    return len(world.reports())


def test_a_kernel_worker_commits_when_its_answers_are_durable() -> None:
    assert play(a_worker_dies_before_its_answer, KernelGroup) == 1
    assert play(a_worker_dies_before_its_answer, CommitsFirst) == 0


class AllOrNothing(KernelGroup):
    """If one call of a launch is bad, the launch is."""

    def _launch(self, calls: Sequence[Any]) -> list[Command]:
        return self._compute(calls)


async def one_bad_call_of_ten(world: World, group_type: type[KernelGroup]) -> tuple[int, list[str]]:
    """Reports in the end, and why closings failed. One call raises, and one record on the topic is no call."""
    world.own()
    runs = [day(number) for number in range(1, 11)]
    for run_id, opening in runs:
        world.put(run_id, opening, f"open {run_id}")
        world.put(run_id, flight(), f"enter {run_id}")
        world.put(run_id, CLOSE, f"close {run_id}")
    assert await world.until(lambda: len(world.calls()) == 10)
    headers = (("h", b"\xff"), ("h", None))
    world.land(world.topics.kernel("day_figures"), 0, Record(b"no call", b"\xff\x00", headers))

    def strange(calls: Sequence[Any]) -> list[Command]:
        if any(call.run_id == runs[4][0] for call in calls):
            raise RuntimeError("flight 5 is strange")
        return compute(calls)

    world.compute(group_type, compute=strange)
    await world.quiet(20.0)
    if world.dead_letters():
        (letter,) = world.dead_letters()
        assert (letter.key, letter.value, tuple(letter.headers[:-1])) == (b"\xff\x00", b"no call", headers)
        note = world.codec.decode(letter.headers[-1][1] or b"")
        assert isinstance(note, DeadLetter)
        assert (note.topic, note.offset) == ("t.kernels.day_figures", 10)
    return len(world.reports()), [e.reason for e in world.events(CloseFailed)]


def test_only_the_bad_call_of_a_launch_is_answered_with_its_error() -> None:
    reports, failed = play(one_bad_call_of_ten, KernelGroup)
    assert reports == 9
    assert len(failed) == 1
    assert "RuntimeError: flight 5 is strange" in failed[0]
    assert play(one_bad_call_of_ten, AllOrNothing) == (0, [])


# ------------------------------------------------------------------ revocation


async def a_server_joins(world: World) -> tuple[set[int], set[int], int, int]:
    """Partitions of both servers; commands decided; commands decided again. The second joins while the first works."""
    first = serve(world, "first")
    runs = [day(number) for number in range(1, 29)]
    for run_id, opening in runs:
        world.put(run_id, opening, f"open {run_id}")
    for number in range(10):
        for run_id, _ in runs:
            world.put(run_id, flight(number), f"enter {run_id} {number}")
        await asyncio.sleep(0.01)
        if number == 3:
            first.log.slow_s = 0.1
            second = serve(world, "second")
    partitions = range(world.topics.partitions)
    assert await world.until(lambda: sum(len(world.ids(p) - {None}) for p in partitions) == 28 * 11)
    assert await world.until(lambda: len(second.owns) == 2)
    repeated = sum(len(world.events(CommandRepeated, p)) for p in partitions)
    for run_id, _ in runs:
        assert world.entered(run_id) == list(range(10))
    return first.owns, second.owns, sum(len(world.valid(p)) for p in partitions), repeated


def test_partitions_change_hands_while_commands_come_and_none_is_lost_or_decided_twice() -> None:
    first, second, decided, repeated = play_with(4, a_server_joins)
    assert len(first) == len(second) == 2
    assert first | second == {0, 1, 2, 3}
    assert (decided, repeated) == (28 * 11, 0)


# ------------------------------------------------------------------ twins


class BearsATwin(Owner):
    """Doesn't look who claims."""

    def _refuse_a_twin(self, claim_offset: int) -> None: ...


async def a_copied_folder(world: World, owner_type: type[Owner]) -> tuple[list[BaseException], int]:
    """What stopped one of two processes that go by one instance id, and how many claims there were in a minute."""
    twins = [world.own(owner_type, name=f"twin-{n}", instance="the same") for n in range(2)]
    for number in range(120):
        world.put(DAY, flight(), f"c{number}")
        await asyncio.sleep(0.5)
    claims = sum(len(twin.told.claims) for twin in twins)
    return [twin.failure for twin in twins if twin.failure is not None], claims


def test_an_owner_that_reads_claims_of_another_process_with_its_own_instance_id_exits_and_says_so() -> None:
    (failure,), claims = play(a_copied_folder, Owner)
    assert isinstance(failure, InstanceInUse)
    assert "claims it under our own instance id 'the same'. The data folder was probably copied." in str(failure)
    assert "instance-id" in str(failure)
    assert claims < 12
    # Both throw each other out for ever.
    failures, claims = play(a_copied_folder, BearsATwin)
    assert not failures
    assert claims > 100


async def claims_of_a_twin(world: World, process: str) -> BaseException | None:
    """What stops an owner between whose appends another process claims, again and again, under its instance id."""
    owning = world.own(Owner, instance="the same")
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    for number in range(6):
        world.ghost_claim(owner="the same", process=process, claim_id=700 + number)
        world.put(DAY, flight(), f"enter-{number}")
        await world.quiet()
    return owning.failure


def test_of_two_twins_only_the_one_that_began_earlier_gives_way_so_that_one_is_left() -> None:
    # Names of processes sort by when they began; these sort after and before any other.
    assert isinstance(play(claims_of_a_twin, "~ began later"), InstanceInUse)
    assert play(claims_of_a_twin, "! began earlier") is None


class SuspectsAll(Owner):
    """Takes one claim under its instance id for a twin."""

    def _refuse_a_twin(self, claim_offset: int) -> None:
        for _, claim in self._claims:
            if claim.owner == self._identity.instance and claim.process != self._identity.process:
                raise InstanceInUse("a twin")


async def ones_own_past(world: World, owner_type: type[Owner]) -> BaseException | None:
    """What stops a process that was restarted, when a claim of its former life lands late."""
    owning = world.own(owner_type, instance="the same")
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.ghost_claim(owner="the same", process="before the restart")
    world.put(DAY, flight(), "enter")
    await world.quiet()
    assert owning.failure is not None or world.entered() == [1.0]
    return owning.failure


def test_a_late_claim_of_its_own_former_life_is_no_twin() -> None:
    assert play(ones_own_past, Owner) is None
    assert isinstance(play(ones_own_past, SuspectsAll), InstanceInUse)


# ------------------------------------------------------------------ a silent group


class AlwaysOpen(Outbox):
    """Sends, whether the group is heard or not."""

    async def _until_heard(self) -> None: ...


class AskedNowAndThen(Outbox):
    """Held back by the housekeeping alone, whenever that comes."""

    async def _until_heard(self) -> None:
        await self._gate.wait()


async def a_group_that_is_silent(world: World, owner_type: type[Owner]) -> tuple[int, int]:
    """Calls that were sent while the group was silent for longer than a session, and after it was heard again."""
    serving = serve(world, owner_type=owner_type)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    serving.log.fall_silent()
    await asyncio.sleep(SESSION_S + 0.5)
    world.put(DAY, CLOSE, "close")
    await world.quiet()
    silent = len(world.calls())
    serving.log.speak_again()
    await world.quiet()
    return silent, len(world.calls())


def test_an_owner_that_has_not_heard_from_its_group_for_a_session_starts_no_effect() -> None:
    assert play(a_group_that_is_silent, Owner) == (0, 1)
    assert play(a_group_that_is_silent, owner_with(outbox=AlwaysOpen)) == (1, 1)


async def a_server_that_was_stopped(world: World, owner_type: type[Owner], tries: int) -> int:
    """Outputs that a process sends which goes on after SIGSTOP, before it hears from its group. Another one has taken
    over meanwhile."""
    first = serve(world, "first", owner_type=owner_type, ends={KERNEL_TOPIC: [End.REFUSED] * tries})
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.put(DAY, CLOSE, "close")
    assert await world.until(lambda: len(first.log.tries.get(KERNEL_TOPIC, ())) == tries)
    world.loop.freeze(first.part)
    first.log.fall_silent()
    await asyncio.sleep(3 * SESSION_S)
    serve(world, "second")
    assert await world.until(lambda: len(world.calls()) == 1)
    before = len(first.log.tries[KERNEL_TOPIC])
    world.loop.thaw(first.part)
    await asyncio.sleep(1.0)
    sent = len(first.log.tries[KERNEL_TOPIC]) - before
    first.log.speak_again()
    await world.quiet()
    return sent


def test_a_process_that_was_stopped_past_its_session_sends_nothing_before_it_is_heard() -> None:
    # Stopped while it waits for so many tries: what it goes on with first is its next one, or its housekeeping.
    for tries in range(1, 7):
        assert play(a_server_that_was_stopped, Owner, tries) == 0, f"stopped after {tries}"
        assert play(a_server_that_was_stopped, owner_with(outbox=AlwaysOpen), tries) == 1
    assert any(play(a_server_that_was_stopped, owner_with(outbox=AskedNowAndThen), tries) for tries in range(1, 7))
