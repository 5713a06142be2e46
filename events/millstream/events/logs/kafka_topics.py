"""Make topics, compare them with what we expect, ask for their ends. Settings that would eat a log are refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from aiokafka.protocol.admin import (
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DeleteTopicsRequest,
    DescribeConfigsRequest,
)
from aiokafka.protocol.offset import OffsetRequest

from millstream.events.errors import (
    LogUnavailable,
    OffsetOutOfRange,
    PartitionCountMismatch,
    TopicMissing,
    TopicSettingsUnsafe,
)
from millstream.events.logs.kafka_cluster import Away, Cluster, NotYet, Topic
from millstream.events.logs.kafka_producer import WIRE_BYTES_MAX, describe
from millstream.events.logs.port import Bounds, TopicPartition, TopicSpec

LANE = "admin"
_EARLIEST, _LATEST = -2, -1
_TOPIC_RESOURCE = 2
_ALREADY_THERE, _UNKNOWN_TOPIC, _OUT_OF_RANGE = 36, 3, 1
_MADE_WITHIN_S = 15.0


def settings_of(spec: TopicSpec, brokers: int) -> dict[str, str]:
    """The settings that a topic of this spec gets, as Kafka writes them, on a cluster of so many brokers."""
    settings = {
        "cleanup.policy": spec.cleanup,
        "message.timestamp.type": "LogAppendTime" if spec.log_append_time else "CreateTime",
    }
    if spec.keep_forever:
        settings |= {"retention.ms": "-1", "retention.bytes": "-1"}
    if brokers > 1:
        settings |= {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    return settings


def compare_settings(spec: TopicSpec, found: dict[str, str | None], *, brokers: int) -> None:
    """Raise `TopicSettingsUnsafe` where what is in force (topic or broker default) isn't what we need. Pure."""
    for name, expected in settings_of(spec, brokers).items():
        have = found.get(name)
        good = have == expected
        if name == "min.insync.replicas":
            good = have is not None and int(have) >= 2
        if not good and not (name.startswith("retention.") and found.get("cleanup.policy") == "compact"):
            raise _unsafe(spec.name, name, expected, have)
    size = int(found.get("max.message.bytes") or WIRE_BYTES_MAX)
    if size < WIRE_BYTES_MAX:
        raise _unsafe(spec.name, "max.message.bytes", f"at least {WIRE_BYTES_MAX}", str(size))


def _unsafe(topic: str, setting: str, expected: str, found: str | None) -> TopicSettingsUnsafe:
    return TopicSettingsUnsafe(
        f"{topic!r} has the setting {setting} = {found!r}, expected {expected!r}. It stands at the topic, or is the"
        f" broker's default. With it the log would be cut, reordered or lost. Set it at the topic, or use another"
        f" prefix."
    )


async def ensure_topic(cluster: Cluster, spec: TopicSpec) -> None:
    """See the port."""
    await cluster.refresh([spec.name])
    topic = cluster.topics.get(spec.name)
    if topic is None:
        await _create(cluster, spec)
        topic = await _wait_until_made(cluster, spec)
    if len(topic.leaders) != spec.partitions:
        raise PartitionCountMismatch(
            f"{spec.name!r} has {len(topic.leaders)} partitions, expected {spec.partitions}. The count is fixed for"
            f" the life of a prefix, since a run's partition follows from it. Use {len(topic.leaders)}, or another"
            f" prefix."
        )
    brokers = len(cluster.nodes)
    copies = min(topic.replicas.values())
    if copies < min(3, brokers):
        raise _unsafe(spec.name, "replication factor", str(min(3, brokers)), str(copies))
    compare_settings(spec, await _settings_in_force(cluster, spec.name), brokers=brokers)


async def _create(cluster: Cluster, spec: TopicSpec) -> None:
    if spec.partitions < 1:
        raise PartitionCountMismatch(f"{spec.name!r} can't be made with {spec.partitions} partitions")
    brokers = len(cluster.nodes)
    settings = list(settings_of(spec, brokers).items())
    wanted: Any = [(spec.name, spec.partitions, min(3, brokers), [], settings)]
    answer = await ask_any(cluster, CreateTopicsRequest(wanted, 10_000, False))
    for name, error_code, *text in answer.topic_errors:
        if error_code not in (0, _ALREADY_THERE):
            raise TopicMissing(
                f"the topic {name!r} could not be made: {describe(error_code)}"
                f" {text[0] if text and text[0] else ''}. Make it by hand with {dict(settings)}, or choose another"
                f" prefix."
            )


async def _wait_until_made(cluster: Cluster, spec: TopicSpec) -> Topic:
    """Until the topic is in the metadata, and each partition's leader knows that it leads.

    The metadata names a leader before that broker has opened the partition; an append in between is refused, and unknown.
    """
    deadline = time.monotonic() + _MADE_WITHIN_S
    while True:
        await cluster.refresh([spec.name])
        topic = cluster.topics.get(spec.name)
        if topic is not None and topic.leaders and all(node in cluster.nodes for node in topic.leaders.values()):
            with suppress(NotYet, TopicMissing):
                await asyncio.gather(*[bounds_of(cluster, TopicPartition(spec.name, p)) for p in topic.leaders])
                return topic
        if time.monotonic() > deadline:
            raise LogUnavailable(
                f"the topic {spec.name!r} was made and its partitions have no leader after {_MADE_WITHIN_S:g} s."
                f" Look at the brokers, then try again."
            )
        await asyncio.sleep(0.01)


async def _settings_in_force(cluster: Cluster, topic: str) -> dict[str, str | None]:
    answer = await ask_any(cluster, DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, None)]))
    for error_code, text, _kind, _name, entries in answer.resources:
        if error_code:
            raise TopicSettingsUnsafe(
                f"the settings of {topic!r} can't be read: {describe(error_code)} {text or ''}. They must be known"
                f" before the topic is used: allow this user to describe them."
            )
        return {entry[0]: entry[1] for entry in entries}
    raise Away("the broker named no settings")


async def delete_topic(cluster: Cluster, topic: str) -> None:
    """Delete it and wait until the cluster has forgotten it. A topic that isn't there is fine."""
    answer = await ask_any(cluster, DeleteTopicsRequest([topic], 10_000))
    for name, error_code in answer.topic_error_codes:
        if error_code not in (0, _UNKNOWN_TOPIC):
            raise LogUnavailable(f"the topic {name!r} could not be deleted: {describe(error_code)}.")
    deadline = time.monotonic() + _MADE_WITHIN_S
    while time.monotonic() < deadline:
        await cluster.refresh([topic])
        if topic not in cluster.topics:
            return
        await asyncio.sleep(0.01)
    raise LogUnavailable(f"the topic {topic!r} was deleted and is still there after {_MADE_WITHIN_S:g} s.")


async def bounds_of(cluster: Cluster, tp: TopicPartition) -> Bounds:
    """The first and the next offset of a partition. Raises `TopicMissing`, `Away`."""
    node = await leader_of(cluster, tp)
    first, end = await asyncio.gather(_offset(cluster, node, tp, _EARLIEST), _offset(cluster, node, tp, _LATEST))
    return Bounds(first, end)


async def _offset(cluster: Cluster, node: int, tp: TopicPartition, which: int) -> int:
    answer = await cluster.ask(node, OffsetRequest(-1, 0, [(tp.topic, [(tp.partition, which)])]), lane=LANE)
    for _topic, partitions in answer.topics:
        for _partition, error_code, *rest in partitions:
            if error_code:
                cluster.topics.pop(tp.topic, None)
                raise NotYet(describe(error_code))
            offset: int = rest[-1]
            return offset
    raise Away("the broker named no offset")


async def delete_before(cluster: Cluster, tp: TopicPartition, offset: int) -> None:
    """See the port."""
    node = await leader_of(cluster, tp)
    request = DeleteRecordsRequest([(tp.topic, [(tp.partition, offset)])], 10_000)
    answer = await cluster.ask(node, request, lane=LANE, timeout_s=15.0)
    for _topic, partitions, *_tags in answer.topics:
        for _partition, _first, error_code, *_more in partitions:
            if error_code == _OUT_OF_RANGE:
                bounds = await bounds_of(cluster, tp)
                if offset > bounds.end:
                    raise OffsetOutOfRange(tp.topic, tp.partition, offset, *bounds)
            elif error_code:
                cluster.topics.pop(tp.topic, None)
                raise NotYet(describe(error_code))


async def leader_of(cluster: Cluster, tp: TopicPartition) -> int:
    """The node that leads a partition. Raises `TopicMissing`; `Away` where it has none now."""
    node = cluster.leader(tp)
    if node is None:
        await cluster.refresh([tp.topic])
        node = cluster.leader(tp)
    if node is None:
        topic = cluster.topics.get(tp.topic)
        if topic is None or tp.partition not in topic.leaders:
            raise TopicMissing(
                f"{tp.topic!r} partition {tp.partition} is not on the cluster. It was deleted, or never made, or this"
                f" user may not see it: check the address and the prefix."
            )
        raise NotYet("the partition has no leader")
    return node


async def ask_any(cluster: Cluster, request: Any) -> Any:
    """Ask whichever node answers; in KRaft each passes on what only the controller may do."""
    if not cluster.nodes:
        await cluster.refresh([])
    lost: Away | None = None
    for node in list(cluster.nodes):
        try:
            return await cluster.ask(node, request, lane=LANE, timeout_s=15.0)
        except Away as err:
            lost = err
    raise lost or Away("no broker is known")
