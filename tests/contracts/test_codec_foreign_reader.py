"""Anybody can read our topics with an Avro library and the schemas topic, without a line of ours."""

from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import msgspec

from millstream.events.codec import Codec
from millstream.events.daybook import CloseDay, DayClosed, Figures, FlightEntered
from millstream.events.envelope import Command, Origin, OwnershipClaimed, Sent, Transition
from millstream.events.logs.memory import MemoryLog
from millstream.events.logs.port import Log, Record, StoredRecord, read_range
from millstream.events.registry import publish_schemas
from millstream.events.topics import Topics
from tests.support.aio import run

TOPICS = Topics("foreign", 1)
FIGURES = Figures(2, 1, 1, 7.5, 7.5, 0.0)
WRITTEN: list[msgspec.Struct] = [
    OwnershipClaimed("owner-1", "process-1", 0xFEDC_BA98_7654_3210, 1, 1, 1_700_000_000_000),
    Transition(
        at=1_700_000_000_001,
        run_id="9E-2013-01-16",
        command_id="c1",
        command_offset=0,
        sent=Sent(0, 0xFEDC_BA98_7654_3210, 1, 0),
        reply=b'"ok"',
        events=[FlightEntered(0, "1234", "JFK", "BUF", False, None), DayClosed("9E", "2013-01-16", FIGURES, 1)],
    ),
    Command("c2", "9E-2013-01-16", Origin("9E-2013-01", 0), CloseDay()),
]


def foreign_read(schema_records: list[StoredRecord], records: list[StoredRecord]) -> list[tuple[str, Any]]:
    """What a stranger does: the schemas by key, then each record by the fingerprint in its head."""
    schemas = {r.key: fastavro.parse_schema(json.loads(r.value or b"")) for r in schema_records}
    found = []
    for record in records:
        value = record.value or b""
        assert value[:2] == b"\xc3\x01"
        schema = schemas[value[2:10]]
        found.append(
            (schema["name"], fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None, return_record_name=True))
        )
    return found


async def all_of(log: Log, topic: str) -> list[StoredRecord]:
    end = (await log.bounds(topic, 0)).end
    return [record async for batch in read_range(log, topic, 0, 0, end) for record in batch]


def test_a_journal_is_read_with_an_avro_library_and_the_schemas_topic_alone() -> None:
    async def scenario() -> list[tuple[str, Any]]:
        async with MemoryLog() as log:
            for spec in TOPICS.specs():
                await log.ensure_topic(spec)
            codec = Codec()
            await publish_schemas(log, TOPICS, codec)
            await log.append(TOPICS.journal, 0, [Record(codec.encode(record)) for record in WRITTEN])
            return foreign_read(await all_of(log, TOPICS.schemas), await all_of(log, TOPICS.journal))

    claim_id = bytes.fromhex("fedcba9876543210")
    sent = {"epoch_offset": 0, "claim_id": claim_id, "number": 1, "index": 0}
    flight = {
        "position": 0,
        "flight": "1234",
        "origin": "JFK",
        "dest": "BUF",
        "cancelled": False,
        "arr_delay_min": None,
    }
    figures = {"flights": 2, "arrived": 1, "cancelled": 1, "mean_arr_delay_min": 7.5, "max_arr_delay_min": 7.5}
    closed = {"carrier": "9E", "day": "2013-01-16", "figures": {**figures, "share_late": 0.0}, "month_days": 1}
    claim, transition, command = run(scenario())
    assert claim == (
        "millstream.OwnershipClaimed",
        {
            "owner": "owner-1",
            "process": "process-1",
            "claim_id": claim_id,
            "partitions": 1,
            "format": 1,
            "at": 1_700_000_000_000,
        },
    )
    assert transition == (
        "millstream.Transition",
        {
            "at": 1_700_000_000_001,
            "run_id": "9E-2013-01-16",
            "command_id": "c1",
            "command_offset": 0,
            "sent": ("millstream.Sent", sent),
            "reply": b'"ok"',
            "events": [("millstream.FlightEntered", flight), ("millstream.DayClosed", closed)],
        },
    )
    assert command[1]["body"] == ("millstream.CloseDay", {})
