"""Commands once: ids, answers, tombstones, and what isn't a command or lies on the wrong partition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from millstream.events.daybook import DayOpened, OpenDay
from millstream.events.envelope import Command, Fence, read_fence_header
from millstream.events.kernel import DeadLetter
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Header, Record, StoredRecord
from millstream.events.run import CommandDeadLettered, CommandForwarded, CommandRefused, CommandRepeated, RemoveRun
from millstream.projections.fold import Answer, Runs
from millstream.streams.deciders.cause import NOTHING, Cause, Decision
from millstream.streams.deciders.reactions import CopyCommand
from millstream.streams.runtime.answers import JournalTail
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.judge import Judge
from millstream.streams.runtime.outbox import Outbox
from millstream.streams.runtime.owner import Owner
from tests.support.world import CLOSE, CODEC, DAY, OPEN, World, flight, owner_with, play, play_with

DAY_MS = 24 * 3600 * 1000

# ------------------------------------------------------------------ ids


class ForgetsIds(Runs):
    """Keeps no ids of what was decided."""

    def peek_answer(self, run_id: str, command_id: str) -> Answer | None:
        return None


class KnowsIdsWithoutAnswers(Judge):
    """Keeps the ids, and nothing of how the first copy was answered."""

    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        cause, decision = await super().judge(stored, at)
        if any(isinstance(e, CommandRepeated) for e in decision.events):
            return cause, Decision((CommandRefused("repeated", "this command was decided before"),))
        return cause, decision


async def a_clients_retry(world: World, owner_type: type[Owner]) -> tuple[list[float | None], list[bytes | None]]:
    """What is entered, and what the two askers are told. The second one asks later, of another owner."""
    first = world.own(owner_type)
    world.put(DAY, OPEN, "open")
    async with world.client() as client:
        world.put(DAY, flight(0.0), "another")
        replies = [(await client.ask(DAY, flight(), command_id="enter")).reply]
        first.crash()
        world.own(owner_type)
        replies.append((await client.ask(DAY, flight(), command_id="enter")).reply)
    return world.entered(), replies


def test_a_second_copy_adds_no_effect_and_gets_the_first_answer() -> None:
    assert play(a_clients_retry, Owner) == ([0.0, 1.0], [b"1", b"1"])
    assert play(a_clients_retry, owner_with(runs=ForgetsIds)) == ([0.0, 1.0, 1.0], [b"1", b"2"])
    assert play(a_clients_retry, owner_with(judge=KnowsIdsWithoutAnswers)) == ([0.0, 1.0], [b"1", None])


async def many_open_at_one_moment(
    world: World, owner_type: type[Owner]
) -> tuple[int, set[str | None], list[str | None]]:
    """How many times the book was opened; what those are told who ask under one id, 50 at once and one later; and
    those who ask for something else, each under an id of its own."""
    world.own(owner_type)
    async with world.client() as one, world.client() as two:
        later = OpenDay("9E", "2013-01-16", world.log_ms() + 3_600_000)
        same = [client.ask(DAY, OPEN, command_id="open") for client in (one, two) for _ in range(25)]
        others = [two.ask(DAY, later, command_id=f"other-{n}") for n in range(3)]
        answers = await asyncio.gather(*same, *others)
        answers.append(await one.ask(DAY, OPEN, command_id="open"))
    codes = [answer.code for answer in answers]
    return len(world.events(DayOpened)), {*codes[:50], codes[-1]}, codes[50:53]


def test_many_that_open_one_run_at_one_moment_open_it_once_and_all_are_told_so() -> None:
    assert play(many_open_at_one_moment, Owner) == (1, {None}, ["exists"] * 3)
    # Who asks once more is told that there was somebody before him: it was himself.
    _, codes, _ = play(many_open_at_one_moment, owner_with(runs=ForgetsIds))
    assert codes == {None, "exists"}


# ------------------------------------------------------------------ removed runs


async def close_and_remove(world: World) -> None:
    """The day is opened, closed, reported and removed by an owner that leaves then."""
    owning = world.own()
    kernel = world.compute()
    for command_id, body in (("open", OPEN), ("enter", flight()), ("close", CLOSE)):
        world.put(DAY, body, command_id)
    assert await world.until(lambda: len(world.reports()) == 1)
    world.put(DAY, RemoveRun("done"), "remove")
    assert await world.decided("remove")
    kernel.crash()
    await owning.leave()


class NoTombstones(Runs):
    def tombstone(self, run_id: str) -> int | None:
        return None


async def a_late_copy_of_a_start(world: World, owner_type: type[Owner], after_ms: int) -> tuple[int, list[str]]:
    """How many times the run was opened, and the refusals' codes. The copy comes `after_ms` after the removal."""
    await close_and_remove(world)
    world.log_jumped_ms += after_ms
    world.own(owner_type)
    world.put(DAY, OPEN, "open")
    await world.quiet()
    return len(world.events(DayOpened)), [e.code for e in world.events(CommandRefused)]


def test_a_removed_run_leaves_a_tombstone_for_seven_days() -> None:
    assert play(a_late_copy_of_a_start, Owner, 0) == (1, ["removed"])
    assert play(a_late_copy_of_a_start, Owner, 7 * DAY_MS - 60_000) == (1, ["removed"])
    assert play(a_late_copy_of_a_start, Owner, 7 * DAY_MS + 60_000) == (2, [])
    assert play(a_late_copy_of_a_start, owner_with(runs=NoTombstones), 0) == (2, [])


class TakesThemForNew(Judge):
    """Doesn't look at how long a command has lain on the log."""

    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        return await super().judge(msgspec.structs.replace(stored, timestamp=at), at)


async def a_copy_that_lay_there(world: World, owner_type: type[Owner]) -> tuple[int, list[str]]:
    """The copy of the start was appended soon after the removal; the next owner comes eight days later."""
    await close_and_remove(world)
    world.put(DAY, OPEN, "open")
    world.log_jumped_ms += 8 * DAY_MS
    world.own(owner_type)
    await world.quiet()
    return len(world.events(DayOpened)), [e.code for e in world.events(CommandRefused)]


def test_a_command_that_is_older_than_tombstones_is_refused() -> None:
    assert play(a_copy_that_lay_there, Owner) == (1, ["too-old"])
    assert play(a_copy_that_lay_there, owner_with(judge=TakesThemForNew)) == (2, [])


def test_the_answer_to_the_removal_itself_stands_in_the_tombstone() -> None:
    async def scenario(world: World) -> bool:
        await close_and_remove(world)
        world.own()
        async with world.client() as client:
            return (await client.ask(DAY, RemoveRun("done"), command_id="remove")).accepted

    assert play(scenario)


# ------------------------------------------------------------------ where a new owner resumes


class ResumesBehindTheNewestSeen(Owner):
    """Believes any record's `command_offset`, whether the record counts or not."""

    async def _open_commands(self, fence: Fence) -> None:
        records: list[StoredRecord] = (
            await self._log.reader(
                {(self._topics.journal, self.partition): 0}  # type: ignore[dict-item]
            ).read()
        )[(self._topics.journal, self.partition)]  # type: ignore[index]
        seen = [self._codec.decode(r.value or b"") for r in records]
        newest = max((t.command_offset for t in seen if hasattr(t, "command_offset")), default=-1)
        await super()._open_commands(msgspec.structs.replace(fence, command_offset=newest))


async def a_zombie_that_decided(world: World, owner_type: type[Owner]) -> list[float | None]:
    first = world.own()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    first.log.slow_s = 0.1
    world.put(DAY, flight(1.0), "enter")
    await asyncio.sleep(0.05)
    world.ghost_claim()
    await asyncio.sleep(0.06)
    first.crash()
    dropped = read_fence_header(world.journal()[-1].headers)
    assert dropped is not None
    assert dropped.number == 2
    world.own(owner_type)
    world.put(DAY, flight(2.0), "next")
    assert await world.decided("next")
    return world.entered()


def test_a_new_owner_resumes_behind_the_newest_command_offset_that_counts() -> None:
    assert play(a_zombie_that_decided, Owner) == [1.0, 2.0]
    assert play(a_zombie_that_decided, ResumesBehindTheNewestSeen) == [2.0]


# ------------------------------------------------------------------ answers survive the owner


class HearsNothing(JournalTail):
    async def run(self, positions: Any) -> None:
        await asyncio.Event().wait()


class AsksItsOwner(Client):
    """Is told by the owner that decided, and doesn't look at the journal."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._tail.__class__ = HearsNothing


def that_tells(client: Client) -> type[Owner]:
    class Tells(Owner):
        def _prove(self) -> None:
            assert self._flying is not None
            batch = self._flying[1]
            super()._prove()
            for offset, record in enumerate(batch.records, batch.base):
                for name, cause in record.headers:
                    if name == "cause":
                        client._waiting.take(0, StoredRecord(offset, 0, record.key, record.value), cause)

    return Tells


async def an_owner_that_dies_after_its_append(world: World, client_type: type[Client]) -> str:
    """How the asker is answered; the append has landed, and its owner died before it was told."""
    async with world.client(client_type) as client:
        owner_type = that_tells(client) if client_type is AsksItsOwner else Owner
        first = world.own(owner_type)
        assert (await client.ask(DAY, OPEN)).accepted
        first.log.script.by_topic["journal"] = [End.LANDED_ERROR]
        asking = asyncio.create_task(client.ask(DAY, flight(), command_id="enter", timeout_s=30.0))
        assert await world.decided("enter")
        first.crash()
        world.own(owner_type)
        try:
            return (await asking).code or "accepted"
        except TimeoutError:
            return "never"


def test_an_answer_is_read_from_the_journal_and_survives_its_owner() -> None:
    assert play(an_owner_that_dies_after_its_append, Client) == "accepted"
    assert play(an_owner_that_dies_after_its_append, AsksItsOwner) == "never"


# ------------------------------------------------------------------ the wrong partition


class DecidesAnywhere(Judge):
    """Decides a command where it lies."""

    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        here, self._partition = self._partition, self._topics.partition_of((await self._read(stored)).run_id)
        try:
            return await super().judge(stored, at)
        finally:
            self._partition = here


class MakesANewId(Outbox):
    """Sends a forwarded command as a command of its own."""

    async def _copy(self, what: CopyCommand, topic: str) -> Record:
        copy = await super()._copy(what, topic)
        command = self._codec.decode(copy.value or b"")
        renamed = msgspec.structs.replace(command, command_id=f"forwarded-{command.command_id}")
        return Record(self._codec.encode(renamed), copy.key, copy.headers)


async def another_clients_partitioner(world: World, owner_type: type[Owner]) -> tuple[int, list[float | None]]:
    """On how many partitions the run was opened, and what is entered where it lives. Each command is sent to the
    wrong partition, and again, by a client that knows better, to the right one."""
    right = world.topics.partition_of(DAY)
    for partition in range(2):
        world.own(owner_type, partition=partition)
    for command_id, body in (("open", OPEN), ("enter", flight())):
        world.put(DAY, body, command_id, partition=1 - right)
        world.put(DAY, body, command_id, partition=right)
        assert await world.decided(command_id, partition=right)
        await world.quiet()
    return sum(bool(world.events(DayOpened, p)) for p in range(2)), world.entered()


def test_a_command_on_the_wrong_partition_is_forwarded_with_the_same_id() -> None:
    assert play_with(2, another_clients_partitioner, Owner) == (1, [1.0])
    partitions, _ = play_with(2, another_clients_partitioner, owner_with(judge=DecidesAnywhere))
    assert partitions == 2
    assert play_with(2, another_clients_partitioner, owner_with(outbox=MakesANewId)) == (1, [1.0, 1.0])


HEADERS: Sequence[Header] = (
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("traceparent", b"\xff\x00 not a trace"),
    ("traceparent", None),
    *((f"h{n}", bytes([n])) for n in range(200)),
)
KEYS = [None, b"", b"\xff\x00", DAY.encode()]


class TextOnly(Outbox):
    """Takes keys and header values for text, and headers for a table."""

    async def _copy(self, what: CopyCommand, topic: str) -> Record:
        copy = await super()._copy(what, topic)
        key = (copy.key or b"").decode(errors="replace").encode()
        return Record(copy.value, key, tuple(dict(copy.headers).items()))


async def a_strange_record_on_the_wrong_partition(
    world: World, owner_type: type[Owner], key: bytes | None
) -> tuple[StoredRecord, StoredRecord]:
    right = world.topics.partition_of(DAY)
    for partition in range(2):
        world.own(owner_type, partition=partition)
    world.put(DAY, OPEN, "open", partition=1 - right, headers=HEADERS)
    assert await world.decided("open", partition=right)
    # `put` gives a key where it is told none, so the strange one is laid there as it is.
    value = world.codec.encode(Command("enter", DAY, None, flight()))
    world.land(world.topics.commands, 1 - right, Record(value, key, HEADERS))
    assert await world.decided("enter", partition=right)
    assert len(world.events(CommandForwarded, 1 - right)) == 2
    return world.records(world.topics.commands, 1 - right)[1], world.records(world.topics.commands, right)[1]


@pytest.mark.parametrize("key", KEYS)
def test_a_command_is_forwarded_byte_for_byte_whatever_its_key_and_headers(key: bytes | None) -> None:
    came, went = play_with(2, a_strange_record_on_the_wrong_partition, Owner, key)
    assert (went.key, went.value, went.headers) == (came.key, came.value, came.headers)
    assert went.key == key
    came, went = play_with(2, a_strange_record_on_the_wrong_partition, owner_with(outbox=TextOnly), key)
    assert went.headers != came.headers


# ------------------------------------------------------------------ what is no command


class DiesOfIt(Judge):
    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        self._codec.decode(stored.value or b"")
        return await super().judge(stored, at)


class PassesOverIt(Judge):
    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        cause, decision = await super().judge(stored, at)
        dead = any(isinstance(e, CommandDeadLettered) for e in decision.events)
        return (Cause("", NOTHING, at), Decision(())) if dead else (cause, decision)


class DoesNotCountIt(Owner):
    """What goes to dead-letters isn't decided: `command_offset` stays where it is."""

    def _put(self, cause: Cause, decision: Decision, offset: int | None) -> bool:
        dead = any(isinstance(e, CommandDeadLettered) for e in decision.events)
        return super()._put(cause, decision, None if dead else offset)


NOT_COMMANDS = {
    "null": None,
    "empty": b"",
    "not ours": b"\xff\xfe{}",
    "an unknown schema": b"\xc3\x01" + bytes(range(8)) + b"?",
    "cut short": "cut short",
    "another record of ours": "a dead letter",
    "a run id that may not be": "a bad id",
}


def bytes_of(world: World, value: bytes | str | None) -> bytes | None:
    if value == "cut short":
        return world.codec.encode(Command("c", DAY, None, flight()))[:-4]
    if value == "a dead letter":
        return world.codec.encode(DeadLetter("t", 0, 0, 0, "", 0))
    if value == "a bad id":
        return world.codec.encode(Command("c", "../etc", None, flight()))
    assert not isinstance(value, str)
    return value


async def a_poisoned_partition(
    world: World, owner_type: type[Owner], value: bytes | str | None, key: bytes | None
) -> tuple[bool, list[StoredRecord], StoredRecord]:
    """Whether what is behind the poison is decided by this owner or the next one, the dead letters, the poison."""
    world.own(owner_type)
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    world.land(world.topics.commands, 0, Record(bytes_of(world, value), key, HEADERS))
    await world.quiet()
    following = world.own(owner_type)
    world.put(DAY, flight(), "enter")
    decided = await world.decided("enter", within_s=10.0)
    await world.quiet()
    following.crash()
    poison = world.records(world.topics.commands)[1]
    return decided, world.dead_letters(), poison


@pytest.mark.parametrize("value", NOT_COMMANDS.values(), ids=NOT_COMMANDS.keys())
@pytest.mark.parametrize("key", KEYS)
def test_what_is_no_command_goes_to_dead_letters_byte_for_byte_and_counts_as_processed(
    value: bytes | str | None, key: bytes | None
) -> None:
    decided, letters, poison = play(a_poisoned_partition, Owner, value, key)
    assert decided
    (letter,) = letters
    assert (letter.key, letter.value, tuple(letter.headers[:-1])) == (poison.key, poison.value, tuple(HEADERS))
    name, note = letter.headers[-1]
    assert name == "dead-letter"
    told = CODEC.decode(note or b"")
    assert (told.topic, told.partition, told.offset, told.timestamp) == ("t.commands", 0, 1, poison.timestamp)
    assert told.reason


def test_without_dead_letters_a_poison_stops_the_partition_or_is_lost_without_a_trace() -> None:
    decided, _, _ = play(a_poisoned_partition, owner_with(judge=DiesOfIt), b"\xff\xfe{}", None)
    assert not decided
    decided, letters, _ = play(a_poisoned_partition, owner_with(judge=PassesOverIt), b"\xff\xfe{}", None)
    assert (decided, letters) == (True, [])
    _, letters, _ = play(a_poisoned_partition, DoesNotCountIt, b"\xff\xfe{}", None)
    assert len(letters) > 1
    _, letters, poison = play(a_poisoned_partition, owner_with(outbox=TextOnly), None, b"\xff\x00")
    assert letters[0].key != poison.key
