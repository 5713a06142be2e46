"""Topics keep everything, are checked at every start, and are cut only by us; whoever reads them never skips."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from millstream.events.daybook import ShiftDay
from millstream.events.envelope import Fence
from millstream.events.errors import OffsetOutOfRange, PartitionCountMismatch, TopicSettingsUnsafe
from millstream.events.logs.memory_faults import End
from millstream.events.logs.port import Record, TopicPartition
from millstream.events.topics import Topics
from millstream.projections.fold import Runs
from millstream.projections.reader import JournalReader
from millstream.streams.deciders.reactions import CopyCommand
from millstream.streams.runtime import server as server_module
from millstream.streams.runtime.outbox import Outbox
from millstream.streams.runtime.owner import Owner
from millstream.streams.runtime.server import Server
from tests.runtime.serving import serve
from tests.simulation.parts import Disk
from tests.support.world import CLOSE, DAY, OPEN, World, book_of, flight, owner_with, play, play_with

# ------------------------------------------------------------------ settings


async def takes_them_as_they_are(*_: Any) -> None:
    """Without a look at the topics' settings."""


async def unsafe_topics(world: World, topic: str, **settings: Any) -> tuple[BaseException | None, int]:
    """What ends a server that finds `topic` made otherwise, and how many records there are on the journal."""
    spec = world.cluster.specs[f"t.{topic}"]
    world.cluster.specs[spec.name] = msgspec.structs.replace(spec, **settings)
    serving = serve(world)
    world.put(DAY, OPEN, "open")
    await world.quiet()
    return (serving.task.exception() if serving.task.done() else None), len(world.journal())


@pytest.mark.parametrize("topic", ["journal", "commands"])
@pytest.mark.parametrize("setting", ["keep_forever", "log_append_time"])
def test_an_owner_refuses_to_claim_on_topics_that_forget_or_believe_their_senders_clocks(
    topic: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure, records = play(unsafe_topics, topic, **{setting: False})
    assert isinstance(failure, TopicSettingsUnsafe)
    assert f"t.{topic}" in str(failure)
    assert records == 0
    monkeypatch.setattr(server_module, "ensure_prefix", takes_them_as_they_are)
    failure, records = play(unsafe_topics, topic, **{setting: False})
    assert failure is None
    assert records > 0


async def another_count(world: World) -> tuple[BaseException | None, int]:
    world.topics = Topics("t", 2)
    serving = serve(world)
    await world.quiet()
    return (serving.task.exception() if serving.task.done() else None), len(world.journal())


def test_a_server_that_counts_other_partitions_than_there_are_claims_none(monkeypatch: pytest.MonkeyPatch) -> None:
    failure, records = play_with(4, another_count)
    assert isinstance(failure, PartitionCountMismatch)
    assert records == 0
    monkeypatch.setattr(server_module, "ensure_prefix", takes_them_as_they_are)
    failure, records = play_with(4, another_count)
    assert failure is None
    assert records > 0


# ------------------------------------------------------------------ nothing is skipped


class BeginsWithWhatIsLeft(Owner):
    """Commands that are gone are gone: begins with the first that is there."""

    async def _open_commands(self, fence: Fence) -> None:
        first = (await self._log.bounds(self._topics.commands, self.partition)).first
        await super()._open_commands(
            msgspec.structs.replace(fence, command_offset=max(fence.command_offset, first - 1))
        )


async def commands_that_were_eaten(
    world: World, owner_type: type[Owner]
) -> tuple[BaseException | None, list[float | None]]:
    """What stops an owner whose next command is gone, and what is entered."""
    first = world.own()
    world.put(DAY, OPEN, "open")
    assert await world.decided("open")
    await first.leave()
    for number in range(3):
        world.put(DAY, flight(number), f"enter-{number}")
    await world.admin.delete_before(world.topics.commands, 0, 3)
    owning = world.own(owner_type)
    await world.quiet()
    return owning.failure, world.entered()


def test_commands_that_are_gone_stop_the_owner_loudly() -> None:
    failure, entered = play(commands_that_were_eaten, Owner)
    assert isinstance(failure, OffsetOutOfRange)
    assert "position 1 of 't.commands' partition 0 is outside the log, which holds 3 to 3" in str(failure)
    assert "Nothing was skipped" in str(failure)
    assert entered == []
    assert play(commands_that_were_eaten, BeginsWithWhatIsLeft) == (None, [2.0])


class ReadsWhatIsLeft(JournalReader):
    async def catch_up(self, until: int) -> Fence:
        self.position = max(self.position, (await self._log.bounds(self._topics.journal, self._partition)).first)
        return await super().catch_up(until)

    def rewind(self) -> None: ...


async def a_journal_that_was_eaten(
    world: World, reader_type: type[JournalReader]
) -> tuple[BaseException | None, list[float | None]]:
    """What stops an owner without a store when the beginning of the journal is gone, and the flights it goes on with."""
    first = world.own()
    second_id, second = "9E-2013-01-17", type(OPEN)("9E", "2013-01-17", None)
    world.put(second_id, second, "open the other")
    world.put(second_id, flight(1.0), "enter")
    assert await world.decided("enter")
    first.crash()
    following = world.own()
    world.put(DAY, OPEN, "open")
    world.put(DAY, ShiftDay(1.0), "refused")
    assert await world.decided("refused")
    following.crash()
    claim = following.told.claims[0]
    await world.admin.delete_before(world.topics.journal, 0, claim)
    owning = world.own(owner_with(reader=reader_type))
    await world.quiet()
    if owning.failure is not None:
        return owning.failure, []
    assert Runs(owning.store).get(second_id) is None
    return None, [item.arr_delay_min for item in book_of(Runs(owning.store)).flights]


def test_a_journal_without_its_beginning_stops_whoever_needs_it() -> None:
    failure, _ = play(a_journal_that_was_eaten, JournalReader)
    assert isinstance(failure, OffsetOutOfRange)
    assert "position 0 of 't.journal'" in str(failure)
    # A run is gone that was answered for, and its id is free.
    failure, flights = play(a_journal_that_was_eaten, ReadsWhatIsLeft)
    assert failure is None
    assert flights == []


# ------------------------------------------------------------------ cut by us


class ForgetsItsCopies(Outbox):
    """Doesn't say which commands it still has to copy."""

    def lowest_copy(self) -> int | None:
        return None


class ForgetsWhatWasSent(Outbox):
    """Says which commands it still has to copy itself, and not which the next owner has to."""

    def lowest_copy(self) -> int | None:
        waiting = (item.record for queue in self._queues.values() for item in queue)
        return min((what.offset for what in waiting if isinstance(what, CopyCommand)), default=None)


def whole_disk() -> Disk:
    """A disk on which every write is flushed."""
    return Disk(random.Random(1), 1.0)


async def a_letter_that_waits(world: World, owner_type: type[Owner]) -> list[bytes | None]:
    """Values on dead-letters. The topic is away while commands are decided and cut."""
    serving = serve(world, owner_type=owner_type, disk=whole_disk(), ends={"dead-letters": [End.REFUSED] * 100_000})
    world.put(DAY, OPEN, "open")
    world.land(world.topics.commands, 0, Record(b"no command"))
    for number in range(50):
        world.put(DAY, flight(number), f"enter-{number}")
    assert await world.decided("enter-49")
    await world.quiet()
    serving.log.script.by_topic.clear()
    await world.quiet(10.0)
    first = world.cluster.streams[TopicPartition(world.topics.commands, 0)].first
    assert first > 40
    return [letter.value for letter in world.dead_letters()]


def test_commands_are_cut_below_what_is_decided_and_none_that_still_has_to_be_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "COMMANDS_KEPT", 0)
    assert play(a_letter_that_waits, Owner) == [b"no command"]
    assert play(a_letter_that_waits, owner_with(outbox=ForgetsItsCopies)) == [None]


async def a_letter_that_is_sent_again(world: World, owner_type: type[Owner]) -> list[bytes | None]:
    """Values on dead-letters. An earlier output is stuck, so the next owner sends the letter again."""
    disk = whole_disk()
    first = serve(world, owner_type=owner_type, disk=disk, ends={"kernels.day_figures": [End.REFUSED] * 100_000})
    world.put(DAY, OPEN, "open")
    world.put(DAY, CLOSE, "close")
    world.land(world.topics.commands, 0, Record(b"no command"))
    for number in range(50):
        world.put(DAY, flight(number), f"enter-{number}")
    assert await world.decided("enter-49")
    await world.quiet(5.0)
    assert len(world.dead_letters()) == 1
    first.crash()
    serve(world, disk=disk)
    await world.quiet(5.0)
    return [letter.value for letter in world.dead_letters()]


def test_a_command_is_kept_until_nobody_can_have_to_copy_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "COMMANDS_KEPT", 0)
    assert play(a_letter_that_is_sent_again, Owner) == [b"no command"] * 2
    assert play(a_letter_that_is_sent_again, owner_with(outbox=ForgetsWhatWasSent)) == [b"no command", None]


class CutsAtOnce(Server):
    """Cuts by what the stores say, whether their partitions are claimed or not."""

    async def _cut_commands(self) -> None:
        claimed, self._claimed = self._claimed, set(self._owned)
        try:
            await super()._cut_commands()
        finally:
            self._claimed = claimed


async def a_take_over_before_the_letter_is_sent(
    world: World, keep: Callable[[int], None], server_type: type[Server]
) -> list[bytes | None]:
    """Values on dead-letters. The next server knows from its store what is decided long before it has claimed."""
    keep(100_000)
    disk = whole_disk()
    first = serve(world, disk=disk, ends={"dead-letters": [End.REFUSED] * 100_000})
    world.put(DAY, OPEN, "open")
    world.land(world.topics.commands, 0, Record(b"no command"))
    for number in range(50):
        world.put(DAY, flight(number), f"enter-{number}")
    assert await world.decided("enter-49")
    await world.quiet()
    first.crash()
    keep(0)
    following = serve(world, disk=disk, server_type=server_type, ends={"journal": [End.REFUSED] * 100_000})
    await world.quiet(5.0)
    following.log.script.by_topic.clear()
    await world.quiet(10.0)
    return [letter.value for letter in world.dead_letters()]


def test_nothing_is_cut_before_the_partition_is_claimed_and_its_outputs_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def keep(commands: int) -> None:
        monkeypatch.setattr(server_module, "COMMANDS_KEPT", commands)

    assert play(a_take_over_before_the_letter_is_sent, keep, Server) == [b"no command"]
    assert play(a_take_over_before_the_letter_is_sent, keep, CutsAtOnce) == [None]
