"""Read: records whose schema comes later or never, and clients, which read without a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from millstream.events.codec import Codec
from millstream.events.daybook import CloseFailed, DayOpened, FlightEntered
from millstream.events.envelope import (
    NO_FENCE,
    NOTHING_SENT,
    fence_header,
    read_fence_header,
)
from millstream.events.errors import (
    NewerFormat,
    Stop,
    UnknownSchema,
)
from millstream.events.logs.port import Record, StoredRecord
from millstream.events.registry import load_schemas, publish_schemas
from millstream.projections.fold import Runs
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import JournalReader
from millstream.streams.runtime.answers import JournalTail, fence_record
from millstream.streams.runtime.client import Client
from tests.support.world import DAY, OPEN, SimCodec, World, book_of, flight, owner_with, play

OPENED = DayOpened("9E", "2013-01-16")


def entered(position: int, delay_min: float) -> FlightEntered:
    return FlightEntered(position, "1234", "JFK", "BOS", False, delay_min)


# ------------------------------------------------------------------ schemas


class LooksInsideFirst(JournalReader):
    """Without the headers: a record must be decoded before it can be judged."""

    def _fold_batch(self, records: Any, begin: int, slice_end: float) -> tuple[int, Exception | None]:
        for index in range(begin, len(records)):
            try:
                self._decode(records[index].value or b"")
            except UnknownSchema as unknown:
                if index > begin:
                    return super()._fold_batch(records[:index], begin, slice_end)
                return index, unknown
        return super()._fold_batch(records, begin, slice_end)


async def a_zombie_of_a_newer_release(world: World, reader_type: type[JournalReader]) -> BaseException | None:
    old = world.ghost_claim(claim_id=1)
    world.ghost_claim(claim_id=2)
    newer = b"\xc3\x01" + b"\x07" * 8 + b"of a newer release"
    world.land(world.topics.journal, 0, Record(newer, DAY.encode(), (fence_header(old, 1, 1),)))
    owning = world.own(owner_with(reader=reader_type))
    world.put(DAY, OPEN, "open")
    await world.quiet()
    assert owning.failure is not None or "open" in world.ids()
    return owning.failure


def test_a_zombies_record_is_dropped_by_its_header_though_its_schema_is_unknown() -> None:
    assert play(a_zombie_of_a_newer_release, JournalReader) is None
    assert isinstance(play(a_zombie_of_a_newer_release, LooksInsideFirst), NewerFormat)


def schema_of_transitions(codec: Codec) -> str:
    schemas = [codec.schema_json(fingerprint) for fingerprint in sorted(codec.fingerprints)]
    (found,) = (schema for schema in schemas if json.loads(schema)["name"] == "millstream.Transition")
    return found


def newer_schema() -> str:
    """A transition as a later release may write it: with one field more, which this one leaves out."""
    of_transition = json.loads(schema_of_transitions(SimCodec()))
    of_transition["fields"].append({"name": "note", "type": "string", "default": ""})
    return json.dumps(of_transition)


async def a_schema_that_came_later(world: World, reads: bool) -> BaseException | None:
    """A new owner of a later release publishes its schema and writes; then one of this release takes over."""
    claimed = world.ghost_claim(claim_id=1)
    later = SimCodec()
    fingerprint = later.learn(newer_schema())
    await publish_schemas(world.admin, world.topics, later)
    record = world.transition((claimed, 1), 1, DAY, OPENED)
    assert record.value is not None
    value = record.value[:2] + fingerprint.to_bytes(8, "little") + record.value[10:] + b"\x0eunknown"
    world.land(world.topics.journal, 0, Record(value, record.key, record.headers))
    codec = SimCodec()

    async def learn() -> None:
        if reads:
            await load_schemas(world.admin, world.topics, codec)

    owning = world.own(codec=codec, learn=learn)
    world.put(DAY, flight(), "enter")
    await world.quiet()
    if owning.failure is None:
        assert [i.arr_delay_min for i in book_of(Runs(owning.store)).flights] == [1.0]
    return owning.failure


def test_an_unknown_fingerprint_first_reads_the_schemas_to_their_end() -> None:
    assert play(a_schema_that_came_later, True) is None
    assert isinstance(play(a_schema_that_came_later, False), NewerFormat)


class SkipsWhatItCantRead(JournalReader):
    """Sets a record that it can't read aside, as one would a command, and goes on."""

    async def _fold_some(self, records: Sequence[StoredRecord], begin: int, slice_end: float) -> int:
        try:
            return await super()._fold_some(records, begin, slice_end)
        except Stop:
            mark = read_fence_header(records[begin].headers)
            assert mark is not None
            self.fence = self.fence.__class__(
                records[begin].offset, mark.epoch_offset, mark.claim_id, mark.number, -1, NOTHING_SENT
            )
            return begin + 1


async def a_record_that_cant_be_read(world: World, reader_type: type[JournalReader]) -> tuple[int, str]:
    """How many of two flights a reader has, and what stops it."""
    world.ghost_claim(claim_id=1)
    good = world.transition((0, 1), 2, DAY, entered(0, 1.0))
    assert good.value is not None
    world.land(
        world.topics.journal,
        0,
        world.transition((0, 1), 1, DAY, OPENED),
        Record(good.value[:-3], good.key, good.headers),
        world.transition((0, 1), 3, DAY, entered(0, 2.0)),
    )
    store = MemoryStore()
    try:
        await world.fold(store, reader_type=reader_type, batch_records=1)
    except Stop as stop:
        return len(book_of(Runs(store)).flights), str(stop)
    return len(book_of(Runs(store)).flights), ""


def test_a_journal_record_is_never_dead_lettered() -> None:
    flights, said = play(a_record_that_cant_be_read, JournalReader)
    assert flights == 0
    assert "record at offset 2, can't be folded" in said
    assert "A journal record is never skipped" in said
    flights, said = play(a_record_that_cant_be_read, SkipsWhatItCantRead)
    assert flights == 1
    assert not said


async def an_event_of_a_later_release(world: World, reader_type: type[JournalReader]) -> tuple[int, str]:
    """How many flights a reader has behind an event of which it knows the schema and nothing else, and what stops it."""
    world.ghost_claim(claim_id=1)
    codec = SimCodec()
    renamed = schema_of_transitions(codec).replace("millstream.CloseFailed", "millstream.DayStamped")
    fingerprint = codec.learn(renamed)
    stamped = world.transition((0, 1), 2, DAY, CloseFailed("as of noon"))
    assert stamped.value is not None
    value = stamped.value[:2] + fingerprint.to_bytes(8, "little") + stamped.value[10:]
    world.land(
        world.topics.journal,
        0,
        world.transition((0, 1), 1, DAY, OPENED),
        Record(value, stamped.key, stamped.headers),
        world.transition((0, 1), 3, DAY, entered(0, 2.0)),
    )
    store = MemoryStore()
    try:
        await world.fold(store, reader_type=reader_type, codec=codec, batch_records=1)
    except NewerFormat as stop:
        return len(book_of(Runs(store)).flights), str(stop)
    return len(book_of(Runs(store)).flights), ""


def test_an_event_that_a_reader_does_not_know_stops_it() -> None:
    flights, said = play(an_event_of_a_later_release, JournalReader)
    assert flights == 0
    assert "millstream.DayStamped version 1 isn't known to this release. Upgrade" in said
    # What the event has changed is missing from all that is folded after it.
    assert play(an_event_of_a_later_release, SkipsWhatItCantRead) == (1, "")


# ------------------------------------------------------------------ clients


class TakesAllForTrue(JournalTail):
    """Begins at an offset, and takes what comes."""

    def _take(self, partition: int, records: list[StoredRecord]) -> None:
        for record in records:
            for name, cause in record.headers:
                if name == "cause":
                    self._valid(partition, record, cause)


class TrustingClient(Client):
    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self._tail.__class__ = TakesAllForTrue


async def an_answer_of_a_zombie(world: World, client_type: type[Client]) -> bool:
    """Whether the client's answer is of a transition that counts."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    key_and_value = fence_record(0, first.owner.fence)
    world.land(world.topics.fences, 0, Record(key_and_value[1], key_and_value[0]))
    async with world.client(client_type) as client:
        first.log.slow_s = 0.3
        asking = asyncio.create_task(client.ask(DAY, flight(), command_id="enter"))
        await asyncio.sleep(0.1)
        world.ghost_claim()
        answer = await asking
    return answer.offset in {v.offset for v in world.valid()}


def test_a_client_never_takes_a_zombies_transition_for_an_answer() -> None:
    assert play(an_answer_of_a_zombie, Client)
    assert not play(an_answer_of_a_zombie, TrustingClient)


class ReadsItAll(JournalTail):
    """Begins at the beginning, for want of a fence."""

    async def start(self) -> Any:
        positions = await super().start()
        self._fences = dict.fromkeys(self._fences, NO_FENCE)
        return dict.fromkeys(positions, 0)


async def a_late_client(world: World, tail_type: type[JournalTail]) -> int:
    """How many transitions a client goes through that comes after a hundred."""
    owning = world.own()
    for number in range(100):
        world.put(DAY, flight(), f"enter-{number}")
    assert await world.decided("enter-99")
    key, value = fence_record(0, owning.owner.fence)
    world.land(world.topics.fences, 0, Record(value, key))
    seen: list[int] = []
    tail = tail_type(world.admin, world.topics, lambda partition, record, cause: seen.append(record.offset))
    positions = await tail.start()
    following = asyncio.create_task(tail.run(positions))
    world.put(DAY, flight(), "last")
    assert await world.decided("last")
    await world.quiet()
    following.cancel()
    assert seen[-1] == len(world.journal()) - 1
    return len(seen)


def test_a_client_begins_at_the_newest_fence() -> None:
    assert play(a_late_client, JournalTail) == 1
    assert play(a_late_client, ReadsItAll) == 101
