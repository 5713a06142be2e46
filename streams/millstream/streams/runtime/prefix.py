"""Make a prefix's topics, check them, and put the schemas where any Avro tool finds them."""

from __future__ import annotations

from collections.abc import Iterable

from millstream.events.codec import Codec
from millstream.events.logs.port import Log, TopicSpec
from millstream.events.registry import load_schemas, publish_schemas
from millstream.events.topics import DEFAULT_PREFIX, EMBEDDED_PARTITIONS, KAFKA_PARTITIONS, Topics, check_name
from millstream.streams.deciders.reactions import KERNEL, REPORTS

FLIGHTS = "flights"


async def find_topics(log: Log, prefix: str = DEFAULT_PREFIX, partitions: int | None = None) -> Topics:
    """The topics of a prefix. The count is the one it was made with; else `partitions`; else the log's default."""
    check_name("prefix", prefix)
    default = KAFKA_PARTITIONS if log.kind == "kafka" else EMBEDDED_PARTITIONS
    found = await log.partitions(Topics(prefix, 1).journal)
    return Topics(prefix, partitions or found or default)


def extra_specs(topics: Topics) -> list[TopicSpec]:
    """The topics of the day books: their kernel's, and the two streams."""
    return [topics.kernel_spec(KERNEL), topics.stream_spec(FLIGHTS), topics.stream_spec(REPORTS)]


async def ensure_prefix(log: Log, topics: Topics, codec: Codec, more: Iterable[TopicSpec] = ()) -> None:
    """Make what is missing and compare what is there.

    Raises `TopicSettingsUnsafe` and `PartitionCountMismatch`, naming setting, expected and found.
    """
    for spec in (*topics.specs(), *more):
        await log.ensure_topic(spec)
    await publish_schemas(log, topics, codec)
    await load_schemas(log, topics, codec)
