"""Reads: what an answer carries, how a read waits for it, and what a client may refuse by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.events.daybook import RecordFigures
from millstream.events.errors import BadId, HoleInJournal, RecordTooLarge
from millstream.events.logs.port import TopicPartition
from millstream.projections.fold import Runs
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import JournalReader
from millstream.streams.runtime.answers import Answer
from millstream.streams.runtime.client import Client
from tests.support.world import CLOSE, DAY, OPEN, World, book_of, flight, play

# ------------------------------------------------------------------ own writes


class Reading:
    """A host that folds the journal from its own position and answers queries; it owns nothing."""

    def __init__(self, world: World) -> None:
        self.runs = Runs(MemoryStore())
        self.reader = JournalReader(
            log=world.admin, topics=world.topics, partition=0, runs=self.runs, codec=world.codec
        )

    async def after(self, answer: Answer) -> int:
        """Flights, once the fold has reached the answer."""
        await self.reader.catch_up(answer.offset + 1)
        return len(book_of(self.runs).flights)

    async def fresh(self) -> int:
        await self.reader.catch_up_to_end()
        return len(book_of(self.runs).flights)

    async def as_it_is(self) -> int:
        return len(book_of(self.runs).flights)


async def read_your_writes(world: World) -> list[tuple[int, int]]:
    """What a read finds that waits for the answer, and what one finds that doesn't, after each of three flights."""
    world.own()
    found = []
    async with world.client() as client:
        opened = await client.ask(DAY, OPEN)
        reading, other = Reading(world), Reading(world)
        await other.after(opened)
        for number in range(3):
            answer = await client.ask(DAY, flight(number))
            assert (answer.partition, answer.offset) == (0, len(world.journal()) - 1)
            found.append((await reading.after(answer), await other.as_it_is()))
    return found


def test_a_read_that_brings_its_answers_offset_waits_until_the_fold_is_there() -> None:
    assert play(read_your_writes) == [(1, 0), (2, 0), (3, 0)]


async def fresh_reads(world: World) -> list[tuple[int, int]]:
    world.own()
    found = []
    async with world.client() as client:
        opened = await client.ask(DAY, OPEN)
        reading, other = Reading(world), Reading(world)
        await other.after(opened)
        for number in range(3):
            world.put(DAY, flight(number), f"of somebody else {number}")
            assert await world.decided(f"of somebody else {number}")
            found.append((await reading.fresh(), await other.as_it_is()))
    return found


def test_a_fresh_read_asks_the_log_for_its_end_and_waits_for_that() -> None:
    assert play(fresh_reads) == [(1, 0), (2, 0), (3, 0)]


# ------------------------------------------------------------------ form, never state


class RefusesByWhatItKnows(Client):
    """Looks into a store of its own, and refuses what that says is pointless."""

    runs: Runs

    async def ask(self, run_id: str, body: Any, **given: Any) -> Answer:
        if isinstance(body, type(flight())) and book_of(self.runs, run_id).status != "open":
            return Answer("not-open", "the book is closing", None, 0, -1, 0)
        return await super().ask(run_id, body, **given)


async def a_store_that_lags(world: World, client_type: type[Client]) -> list[str | None]:
    """Answers to a flight while the day closes, and after that has failed, of which the client's store doesn't know."""
    world.own()
    async with world.client(client_type) as client:
        for body in (OPEN, flight(), CLOSE):
            assert (await client.ask(DAY, body)).accepted if isinstance(body, type(OPEN)) else True
            if not isinstance(body, type(OPEN)):
                await Client.ask(client, DAY, body)
        RefusesByWhatItKnows.runs = await world.fold()
        codes = [(await client.ask(DAY, flight())).code]
        assert await world.until(lambda: len(world.calls()) == 1)
        failed = RecordFigures(world.calls()[0].request_id, None, "the device was lost")
        assert (await Client.ask(client, DAY, failed)).accepted
        codes.append((await client.ask(DAY, flight())).code)
    return codes


def test_a_client_refuses_on_form_only_never_on_state() -> None:
    assert play(a_store_that_lags, Client) == ["not-open", None]
    assert play(a_store_that_lags, RefusesByWhatItKnows) == ["not-open", "not-open"]


async def wrong_form(world: World) -> int:
    world.own()
    async with world.client() as client:
        with pytest.raises(BadId, match="A run id is"):
            await client.ask("../etc/passwd", OPEN)
        with pytest.raises(RecordTooLarge, match="over the limit"):
            await client.ask(DAY, flight(name="x" * 1_000_001))
        assert len(client._waiting) == 0
    return len(world.commands())


def test_what_has_the_wrong_form_is_refused_before_anything_is_sent() -> None:
    assert play(wrong_form) == 0


# ------------------------------------------------------------------ a client that can't hear


class WaitsForEver(Client):
    """Doesn't notice that nobody reads answers any more."""

    def _raise_why_deaf(self) -> None: ...

    def _tail_ended(self, task: asyncio.Task[None]) -> None: ...


async def a_journal_with_a_hole(world: World, client_type: type[Client]) -> list[str]:
    """What happens to who is asking when the client comes to a hole, and to who asks after that."""
    first = world.own()
    async with world.client(client_type) as client:
        assert (await client.ask(DAY, OPEN)).accepted
        for _ in range(2):
            assert (await client.ask(DAY, flight())).accepted
        epoch = first.owner.fence.epoch_offset, first.owner.fence.claim_id
        first.crash()
        asking = asyncio.create_task(client.ask(DAY, flight(), timeout_s=30.0))
        await asyncio.sleep(0.1)
        world.land(TopicPartition(world.topics.journal, 0).topic, 0, world.transition(epoch, 9, DAY))
        said = []
        for task in (asking, client.ask(DAY, flight(), timeout_s=30.0)):
            try:
                await task
            except (HoleInJournal, TimeoutError) as error:
                said.append(type(error).__mro__[-5 if isinstance(error, HoleInJournal) else 0].__name__)
    return said


def test_a_client_that_can_hear_no_answers_says_why_to_everybody_who_asks() -> None:
    assert play(a_journal_with_a_hole, Client) == ["Stop", "Stop"]
    assert play(a_journal_with_a_hole, WaitsForEver) == ["TimeoutError", "TimeoutError"]
