"""What `millstream serve` won't go on with: each said once, with what to do, an exit code, and no traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from millstream.events.codec import Codec
from millstream.events.daybook import DayOpened
from millstream.events.envelope import (
    FORMAT,
    OwnershipClaimed,
    Transition,
    claim_header,
    fence_header,
    read_fence_header,
)
from millstream.events.logs.port import Record, TopicSpec, read_range
from tests.chaos.place import Place
from tests.chaos.setting import serve_once
from tests.support.aio import run
from tests.support.processes import Programs

REFUSED = 4


async def refusal(place: Place, *options: str) -> str:
    """What `millstream serve` says when it ends by itself, as it must, at once."""
    done = await place.run("serve", "--folder", place.folder("server"), *options, code=REFUSED)
    assert done.stderr.count("error:") == 1, done.stderr
    return done.stderr


@pytest.mark.broker
def test_a_topic_whose_settings_would_eat_the_log_is_refused_by_name(kafka: Place) -> None:
    async def check() -> None:
        await serve_once(kafka, flights=1)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address.removeprefix("kafka://"))
        await admin.start()
        async with kafka.log() as log:
            journal = (await kafka.topics(log)).journal
        wrong = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime", "retention.ms": "86400000"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, journal, configs=wrong)])
        await admin.close()
        said = await refusal(kafka)
        assert repr(journal) in said
        assert "retention.ms = '86400000', expected '-1'" in said

    run(check(), deadline_s=60)


def test_another_partition_count_is_refused(place: Place) -> None:
    async def check() -> None:
        await serve_once(place, flights=1)
        assert "has 2 partitions, expected 5" in await refusal(place, "--partitions", "5")

    run(check(), deadline_s=60)


async def append_to_journal(place: Place, make: Callable[[tuple[int, int], int], Record]) -> None:
    """Append a record made of the epoch (offset and claim id) and number with which the journal ends."""
    async with place.log() as log:
        topics = await place.topics(log)
        end = (await log.bounds(topics.journal, 0)).end
        epoch, number = (-1, 0), 0
        async for records in read_range(log, topics.journal, 0, 0, end):
            for record in records:
                mark = read_fence_header(record.headers)
                assert mark is not None
                epoch = (record.offset, mark.claim_id) if mark.kind == "claim" else epoch
                number = mark.number
        await log.append(topics.journal, 0, [make(epoch, number)])


def test_a_journal_of_a_newer_release_is_refused(embedded: Place) -> None:
    def newer(epoch: tuple[int, int], number: int) -> Record:
        claim = OwnershipClaimed("later", "later-1", 7, 1, FORMAT + 98, 0)
        return Record(Codec().encode(claim), None, (claim_header(7),))

    async def check() -> None:
        embedded.partitions = 1
        await serve_once(embedded, flights=1)
        await append_to_journal(embedded, newer)
        said = await refusal(embedded)
        assert "journal format 99" in said
        assert "Upgrade" in said

    run(check(), deadline_s=60)


def test_a_hole_in_the_journal_is_refused_and_named(embedded: Place) -> None:
    def behind_a_hole(epoch: tuple[int, int], number: int) -> Record:
        opened = DayOpened("ZZ", "2013-01-01")
        transition = Transition(2_000_000_000_000, "ZZ-2013-01-01", "c", 400, None, None, [opened])
        return Record(Codec().encode(transition), b"ZZ-2013-01-01", (fence_header(*epoch, number + 3),))

    async def check() -> None:
        embedded.partitions = 1
        await serve_once(embedded, flights=1)
        await append_to_journal(embedded, behind_a_hole)
        said = await refusal(embedded)
        assert "2 records are missing from the journal" in said
        assert "GapAccepted" in said
        assert "after=8 and before=11" in said

    run(check(), deadline_s=60)


def test_a_log_restored_from_an_older_copy_is_refused_and_gone_on_with_when_the_newer_is_back(embedded: Place) -> None:
    async def check() -> None:
        embedded.partitions = 1
        await serve_once(embedded, day=1, flights=3)
        older, newer = embedded.folder("older"), embedded.folder("newer")
        shutil.copytree(embedded.address, older)
        await serve_once(embedded, day=2, flights=3)
        shutil.move(embedded.address, newer)
        shutil.copytree(older, embedded.address)
        said = await refusal(embedded)
        assert "was restored from an older copy" in said
        assert "delete the store" in said
        shutil.rmtree(embedded.address)
        shutil.move(newer, embedded.address)
        await embedded.verify("server")

    run(check(), deadline_s=60)


def test_commands_that_were_made_anew_beside_their_journal_are_refused(embedded: Place) -> None:
    async def check() -> None:
        embedded.partitions = 1
        await serve_once(embedded, flights=1)
        async with embedded.log() as log:
            topics = await embedded.topics(log)
            await log.delete_topic(topics.commands)
            await log.ensure_topic(TopicSpec(topics.commands, 1))
        said = await refusal(embedded)
        assert "ends at 0, but the journal has decided command 7" in said
        assert "Restore both topics from one moment, or begin a new prefix" in said

    run(check(), deadline_s=60)


def test_of_several_partitions_only_the_one_with_the_hole_stops(embedded: Place) -> None:
    def behind_a_hole(epoch: tuple[int, int], number: int) -> Record:
        return Record(b"", b"x", (fence_header(*epoch, number + 2),))

    async def check() -> None:
        await serve_once(embedded, flights=1)
        await append_to_journal(embedded, behind_a_hole)
        async with Programs(embedded.cwd) as programs:
            server = embedded.server(programs).start()
            await server.says("partition 0 stopped: ")
            await server.says("owns partitions (number@epoch): 1@")
            assert "1 record is missing" in server.said()
            await server.stop()

    run(check(), deadline_s=60)
