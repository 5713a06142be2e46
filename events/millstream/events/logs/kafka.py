"""The log on Kafka. Of aiokafka it uses connections, wire types and record batches, and no other adapter does.

aiokafka's producer and consumer try again behind one's back, and a journal can't
have that; what stands in their place are `kafka_producer`, `kafka_reader` and
`kafka_group`, over `kafka_cluster`. Release 2.3 of Kafka or newer.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from millstream.events.errors import LogUnavailable
from millstream.events.logs import kafka_topics
from millstream.events.logs.kafka_cluster import Cluster
from millstream.events.logs.kafka_group import KafkaGroup
from millstream.events.logs.kafka_producer import Producer
from millstream.events.logs.kafka_reader import KafkaReader
from millstream.events.logs.kafka_settings import read_settings
from millstream.events.logs.port import (
    Appended,
    Bounds,
    LogLimits,
    Notice,
    Record,
    TopicPartition,
    TopicSpec,
)

# How long what can be done twice waits for a cluster that is away: longer than a broker takes to restart.
ADMIN_TIMEOUT_S = 30.0


class KafkaLog:
    """See the port's `Log`.

    bootstrap: 'host:port[,host:port...]'. settings: security and times, see `kafka_settings`; they are never shown.
    notice: told once when the cluster is away and once when it is back.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        settings: Mapping[str, Any] | None = None,
        notice: Notice | None = None,
        limits: LogLimits | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._settings = read_settings(settings)
        self._notice = notice
        self._limits = limits or LogLimits()
        self._cluster: Cluster | None = None
        self._producer: Producer | None = None
        # Held weakly: a client that makes many readers and forgets them must not keep them all.
        self._readers: weakref.WeakSet[KafkaReader] = weakref.WeakSet()
        self._groups: weakref.WeakSet[KafkaGroup] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"KafkaLog({self._bootstrap!r})"

    @property
    def limits(self) -> LogLimits:
        return self._limits

    @property
    def kind(self) -> Literal["kafka", "embedded", "memory"]:
        return "kafka"

    async def start(self, *, wait: bool = True) -> None:
        """Find the cluster. Where it is away: wait for it, saying so once; with `wait` false raise `LogUnavailable`."""
        if self._cluster is not None:
            return
        servers = []
        for server in self._bootstrap.split(","):
            host, _, port = server.rpartition(":")
            servers.append((host.strip("[]"), int(port)))
        cluster = Cluster(
            servers,
            connect=self._settings.connect,
            client_id=self._settings.client_id,
            request_timeout_s=self._settings.request_timeout_s,
            notice=self._notice,
        )
        try:
            await cluster.patiently(lambda: cluster.refresh([]), what="the connection", timeout_s=None if wait else 0.0)
        except BaseException:
            await cluster.close()
            raise
        self._cluster = cluster
        self._producer = Producer(cluster, limits=self._limits, append_timeout_s=self._settings.append_timeout_s)

    async def close(self) -> None:
        """End everything that this log has opened. Memberships stay until their session time-out."""
        if self._cluster is None or self._producer is None:
            return
        for group in list(self._groups):
            await group.close()
        for reader in list(self._readers):
            await reader.close()
        await self._producer.close()
        await self._cluster.close()
        self._cluster = self._producer = None

    def _started(self) -> Cluster:
        if self._cluster is None:
            raise LogUnavailable(f"{self!r} isn't started, or was closed: use it with `async with`")
        return self._cluster

    async def identity(self) -> str:
        """The cluster id."""
        return self._started().cluster_id

    async def ensure_topic(self, spec: TopicSpec) -> None:
        cluster = self._started()
        await cluster.patiently(
            lambda: kafka_topics.ensure_topic(cluster, spec),
            what=f"making the topic {spec.name!r}",
            timeout_s=ADMIN_TIMEOUT_S,
        )

    async def delete_topic(self, topic: str) -> None:
        cluster = self._started()
        await cluster.patiently(
            lambda: kafka_topics.delete_topic(cluster, topic),
            what=f"deleting the topic {topic!r}",
            timeout_s=ADMIN_TIMEOUT_S,
        )

    async def partitions(self, topic: str) -> int | None:
        cluster = self._started()
        await cluster.patiently(
            lambda: cluster.refresh([topic]), what=f"looking for {topic!r}", timeout_s=ADMIN_TIMEOUT_S
        )
        found = cluster.topics.get(topic)
        return None if found is None else len(found.leaders)

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        if self._producer is None:
            self._started()
        assert self._producer is not None
        return await self._producer.append(topic, partition, records)

    async def retire(self) -> None:
        if self._producer is not None:
            await self._producer.retire()

    def reader(self, positions: Mapping[TopicPartition, int]) -> KafkaReader:
        reader = KafkaReader(self._started(), positions, fetch_wait_ms=self._settings.fetch_wait_ms)
        self._readers.add(reader)
        return reader

    async def bounds(self, topic: str, partition: int) -> Bounds:
        cluster = self._started()
        return await cluster.patiently(
            lambda: kafka_topics.bounds_of(cluster, TopicPartition(topic, partition)),
            what=f"asking for the ends of {topic!r} partition {partition}",
            timeout_s=ADMIN_TIMEOUT_S,
        )

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        cluster = self._started()
        await cluster.patiently(
            lambda: kafka_topics.delete_before(cluster, TopicPartition(topic, partition), offset),
            what=f"deleting records of {topic!r} partition {partition}",
            timeout_s=ADMIN_TIMEOUT_S,
        )

    async def join(
        self, group: str, topics: Sequence[str], *, instance_id: str, session_timeout_s: float | None = None
    ) -> KafkaGroup:
        member = KafkaGroup(
            self._started(),
            group,
            topics,
            instance_id=instance_id,
            session_timeout_s=session_timeout_s or self._settings.session_timeout_s,
        )
        self._groups.add(member)
        return member

    async def __aenter__(self) -> KafkaLog:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
