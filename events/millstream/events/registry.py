"""The schemas topic: every writer schema by its fingerprint, so that whoever reads the log can read its records.

Compacted, one partition. Key: the fingerprint, 8 bytes, little-endian, as in the head of
each record; value: the schema, JSON in UTF-8. Publishing twice is once: what the topic has
isn't sent again, and what two processes send at the same time is the same.
"""

from __future__ import annotations

from millstream.events.codec import Codec
from millstream.events.errors import AppendUnknown, SchemaUnreadable
from millstream.events.logs.port import Log, Record, StoredRecord, read_range
from millstream.events.topics import Topics

_TRIES = 5
_PARTITION = 0


async def load_schemas(log: Log, topics: Topics, codec: Codec, *, start: int = 0) -> int:
    """Learn every schema on the topic from offset `start` to its end now; returns that end, to go on from.

    Raises `SchemaUnreadable`, naming topic and offset, for what isn't a schema.
    """
    end, _ = await _read(log, topics, codec, start)
    return end


async def publish_schemas(log: Log, topics: Topics, codec: Codec) -> int:
    """Put every schema that the codec knows and the topic lacks on the topic; returns how many those were.

    Also learns what the topic has. An append whose end nobody knows is looked up and, where it
    didn't land, tried again. Raises `AppendUnknown` after five such, and as `load_schemas` does.
    """
    sent: set[int] = set()
    for last in range(_TRIES - 1, -1, -1):
        _, present = await _read(log, topics, codec, 0)
        lacking = sorted(codec.fingerprints - present)
        try:
            for batch in _batches(codec, lacking, log.limits.batch_bytes_max):
                await log.append(topics.schemas, _PARTITION, batch)
        except AppendUnknown:
            sent.update(lacking)
            if not last:
                raise
            await log.retire()
            continue
        sent.update(lacking)
        return len(sent)
    raise AssertionError("unreachable")


async def _read(log: Log, topics: Topics, codec: Codec, start: int) -> tuple[int, set[int]]:
    bounds = await log.bounds(topics.schemas, _PARTITION)
    present = set()
    async for records in read_range(log, topics.schemas, _PARTITION, max(start, bounds.first), bounds.end):
        for record in records:
            if record.value is not None:
                present.add(_learn(codec, topics.schemas, record))
    return bounds.end, present


def _learn(codec: Codec, topic: str, record: StoredRecord) -> int:
    where = f"the record at offset {record.offset} of {topic!r}"
    try:
        text = (record.value or b"").decode()
        fingerprint = codec.learn(text)
    except (UnicodeDecodeError, SchemaUnreadable) as error:
        raise SchemaUnreadable(
            f"{where} is not a schema: {error} Something else has written to this topic:"
            f" delete that record (append a null under its key), and start again."
        ) from error
    if record.key != schema_key(fingerprint):
        raise SchemaUnreadable(
            f"{where} has the key {record.key!r}, and the fingerprint of its schema is {fingerprint:016x}."
            f" Other readers won't find it; append it again under the right key, and a null under this one."
        )
    return fingerprint


def schema_key(fingerprint: int) -> bytes:
    """The key of a schema: its fingerprint, 8 bytes, little-endian."""
    return fingerprint.to_bytes(8, "little")


def _batches(codec: Codec, fingerprints: list[int], bytes_max: int) -> list[list[Record]]:
    """Records for these schemas, in batches of at most half of what the log takes (the rest is the log's own)."""
    batches: list[list[Record]] = []
    size = bytes_max
    for fingerprint in fingerprints:
        value = codec.schema_json(fingerprint).encode()
        if size + len(value) > bytes_max // 2:
            batches.append([])
            size = 0
        batches[-1].append(Record(value=value, key=schema_key(fingerprint)))
        size += len(value)
    return batches
