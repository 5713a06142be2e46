"""The schemas topic has every schema once, and who reads it to its end can read the log."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.events.codec import Codec
from millstream.events.errors import AppendUnknown, SchemaUnreadable
from millstream.events.logs.memory import MemoryLog
from millstream.events.logs.memory_faults import End, Script
from millstream.events.logs.port import Log, LogLimits, Record, read_range
from millstream.events.registry import load_schemas, publish_schemas, schema_key
from millstream.events.topics import Topics
from tests.support.aio import run

TOPICS = Topics("test", 4)
STRANGER = {"type": "record", "name": "test.Stranger", "fields": [{"name": "n", "type": "long"}]}


def on_a_log(scenario: Callable[[Log], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with MemoryLog() as log:
            for spec in TOPICS.specs():
                await log.ensure_topic(spec)
            return await scenario(log)

    return run(inside())


async def keys(log: Log) -> list[bytes | None]:
    end = (await log.bounds(TOPICS.schemas, 0)).end
    return [r.key async for batch in read_range(log, TOPICS.schemas, 0, 0, end) for r in batch]


def test_every_schema_is_published_under_its_fingerprint() -> None:
    async def scenario(log: Log) -> None:
        codec = Codec()
        assert await publish_schemas(log, TOPICS, codec) == len(codec.fingerprints)
        assert sorted(await keys(log), key=repr) == sorted(map(schema_key, codec.fingerprints), key=repr)

    on_a_log(scenario)


def test_publishing_again_adds_only_what_is_new() -> None:
    async def scenario(log: Log) -> None:
        codec = Codec()
        await publish_schemas(log, TOPICS, codec)
        before = await keys(log)
        assert await publish_schemas(log, TOPICS, Codec()) == 0
        assert await keys(log) == before
        new = codec.learn(json.dumps(STRANGER))
        assert await publish_schemas(log, TOPICS, codec) == 1
        assert await keys(log) == [*before, schema_key(new)]

    on_a_log(scenario)


def test_a_reader_learns_what_others_published_and_goes_on_from_there() -> None:
    async def scenario(log: Log) -> None:
        writer, reader = Codec(), Codec()
        await publish_schemas(log, TOPICS, writer)
        end = await load_schemas(log, TOPICS, reader)
        assert end == len(writer.fingerprints)
        new = writer.learn(json.dumps(STRANGER))
        await publish_schemas(log, TOPICS, writer)
        assert new not in reader.fingerprints
        assert await load_schemas(log, TOPICS, reader, start=end) == end + 1
        assert new in reader.fingerprints
        assert json.loads(reader.schema_json(new)) == STRANGER

    on_a_log(scenario)


def test_an_empty_topic_teaches_nothing() -> None:
    async def scenario(log: Log) -> None:
        assert await load_schemas(log, TOPICS, Codec()) == 0

    on_a_log(scenario)


def test_a_deleted_schema_is_no_schema() -> None:
    async def scenario(log: Log) -> None:
        await log.append(TOPICS.schemas, 0, [Record(value=None, key=b"12345678")])
        assert await load_schemas(log, TOPICS, Codec()) == 1

    on_a_log(scenario)


@pytest.mark.parametrize("end", [End.LANDED_ERROR, End.LANDED_NO_OFFSET, End.REFUSED])
def test_an_append_whose_end_is_unknown_is_looked_up_and_tried_again(end: End) -> None:
    async def scenario() -> None:
        async with MemoryLog(faults=Script([end, end])) as log:
            await log.ensure_topic(TOPICS.specs()[0])
            codec = Codec()
            assert await publish_schemas(log, TOPICS, codec) == len(codec.fingerprints)
            assert sorted(await keys(log), key=repr) == sorted(map(schema_key, codec.fingerprints), key=repr)

    run(scenario())


def test_a_log_that_never_tells_is_given_up_after_five_tries() -> None:
    async def scenario() -> None:
        async with MemoryLog(faults=Script([End.REFUSED] * 9)) as log:
            await log.ensure_topic(TOPICS.specs()[0])
            with pytest.raises(AppendUnknown):
                await publish_schemas(log, TOPICS, Codec())
            assert await keys(log) == []

    run(scenario())


def test_schemas_go_in_batches_that_the_log_takes() -> None:
    async def scenario() -> None:
        async with MemoryLog(limits=LogLimits(record_bytes_max=12_000, batch_bytes_max=24_000)) as log:
            await log.ensure_topic(TOPICS.specs()[0])
            codec = Codec()
            assert await publish_schemas(log, TOPICS, codec) == len(codec.fingerprints)

    run(scenario())


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"not json", "not an Avro schema"),
        (b"\xff\xfe", "can't decode byte"),
        (b'{"type": "record", "name": "A", "fields": [{"name": "b", "type": "Missing"}]}', "UnknownType: Missing"),
        (json.dumps(STRANGER).encode(), "the fingerprint of its schema is "),
    ],
)
def test_what_isnt_a_schema_is_refused_with_its_offset(value: bytes, why: str) -> None:
    async def scenario(log: Log) -> None:
        codec = Codec()
        await publish_schemas(log, TOPICS, codec)
        await log.append(TOPICS.schemas, 0, [Record(value=value, key=b"12345678")])
        at = len(codec.fingerprints)
        for act in (load_schemas, publish_schemas):
            with pytest.raises(SchemaUnreadable, match=rf"the record at offset {at} of 'test\.schemas'.*{why}"):
                await act(log, TOPICS, Codec())

    on_a_log(scenario)
