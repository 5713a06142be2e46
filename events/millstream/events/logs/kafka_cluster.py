"""Where things are on a Kafka cluster, and the connections to it.

A connection has a *lane*: each reader, each producer and each group has its own, so
that a request that waits (a fetch, a join) holds up nobody else, and so that a lane
can be cut without hurting another. Nothing is tried again here behind the caller's
back: a request goes out once, and its end is the caller's to judge.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from millstream.events.errors import LogUnavailable, Stop
from millstream.events.logs.kafka_wire import NO_TOPIC_ID, MetadataWithIds
from millstream.events.logs.port import Notice, TopicPartition

T = TypeVar("T")
UNKNOWN_TOPIC = 3
FRESH_S = 5.0
BACK_OFF_S = (0.05, 2.0)
_REFUSED = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
    ssl.SSLCertVerificationError,
)


class Away(Exception):
    """Inside the adapter: nobody answers, or the answer was cut off. What was asked may have been done."""


class NotYet(Away):
    """Inside the adapter: it answers, and can't do it now. Asked again soon it can; nobody needs to be told."""


class Topic:
    """What the cluster said of a topic. `id` is None where the broker is too old to tell."""

    __slots__ = ("id", "leaders", "replicas")

    def __init__(self, id: bytes | None, leaders: dict[int, int], replicas: dict[int, int]) -> None:
        self.id = id
        self.leaders = leaders
        self.replicas = replicas


class Cluster:
    """One cluster: its nodes, its topics as last seen, and our connections to it.

    connect: what aiokafka's connection takes (security). notice: told once when nobody answers, once when somebody does.
    """

    def __init__(
        self,
        bootstrap: list[tuple[str, int]],
        *,
        connect: Mapping[str, Any],
        client_id: str,
        request_timeout_s: float,
        notice: Notice | None,
    ) -> None:
        self._bootstrap = bootstrap
        self._connect = dict(connect)
        self._client_id = client_id
        self.request_timeout_s = request_timeout_s
        self._notice = notice
        self.cluster_id = ""
        self.nodes: dict[int, tuple[str, int]] = {}
        self.topics: dict[str, Topic] = {}
        self._seen_at: dict[str, float] = {}
        self._lanes: dict[str, dict[int, asyncio.Task[Any]]] = {}
        self._lane_numbers = itertools.count(1)
        self._away_since: float | None = None
        self._closed = False

    @property
    def address(self) -> str:
        return "kafka://" + ",".join(f"{host}:{port}" for host, port in self._bootstrap)

    def new_lane(self, purpose: str) -> str:
        return f"{purpose}-{next(self._lane_numbers)}"

    # -- metadata -------------------------------------------------------------------------------------------------

    async def refresh(self, topics: Iterable[str]) -> None:
        """Ask where these topics are. A topic that isn't there is gone from `topics`. Raises `Away`."""
        names = sorted(set(topics))
        lost: Exception | None = None
        for node in self._nodes_to_ask():
            try:
                answer = await self._ask_metadata(node, names)
            except Away as err:
                lost = err
                continue
            if answer.brokers:
                self._take_metadata(answer, names)
                return
            lost = Away("the broker knows of no node yet; it is starting")
        raise lost or Away("no broker is known")

    async def refresh_if_older(self, topics: Iterable[str], age_s: float = FRESH_S) -> None:
        """`refresh`, where one of the topics was last seen longer ago than that."""
        oldest = time.monotonic() - age_s
        names = [name for name in topics if self._seen_at.get(name, 0.0) < oldest]
        if names:
            await self.refresh(names)

    def _nodes_to_ask(self) -> list[int]:
        known = list(self.nodes)
        random.shuffle(known)
        # Negative numbers are the bootstrap addresses: they may reach a cluster whose nodes have all moved.
        return known + [-1 - i for i in range(len(self._bootstrap))]

    async def _ask_metadata(self, node: int, names: list[str]) -> Any:
        try:
            return await self.ask(node, MetadataWithIds(names), lane="metadata")
        except (IncompatibleBrokerVersion, NotImplementedError):
            return await self.ask(node, MetadataRequest(names, False), lane="metadata")

    def _take_metadata(self, answer: Any, names: list[str]) -> None:
        self.nodes = {broker[0]: (broker[1], broker[2]) for broker in answer.brokers}
        self.cluster_id = getattr(answer, "cluster_id", None) or self.cluster_id
        with_ids = answer.API_VERSION >= 10
        found: dict[str, Topic] = {}
        for error_code, name, *rest in answer.topics:
            if error_code:
                continue
            topic_id = rest[0] if with_ids and rest[0] != NO_TOPIC_ID else None
            partitions = rest[2] if with_ids else rest[-1]
            at = 4 if with_ids else 3
            found[name] = Topic(
                topic_id,
                {part[1]: part[2] for part in partitions},
                {part[1]: len(part[at]) for part in partitions},
            )
        now = time.monotonic()
        for name in names:
            self._seen_at[name] = now
            if name in found:
                self.topics[name] = found[name]
            else:
                self.topics.pop(name, None)

    def leader(self, tp: TopicPartition) -> int | None:
        """The node that leads this partition as last seen, or None."""
        topic = self.topics.get(tp.topic)
        node = topic.leaders.get(tp.partition, -1) if topic else -1
        return node if node in self.nodes else None

    # -- connections ----------------------------------------------------------------------------------------------

    async def ask(self, node: int, request: Any, *, lane: str, timeout_s: float | None = None) -> Any:
        """Send one request once and return its answer. Raises `Away`; then the request may have been done.

        timeout_s: None for the usual one, infinite where the caller sees to it.
        """
        conn = await self._connection(node, lane)
        try:
            if timeout_s == math.inf:
                answer = await conn.send(request)
            else:
                async with asyncio.timeout(timeout_s or self.request_timeout_s):
                    answer = await conn.send(request)
        except TimeoutError as err:
            self._drop(conn, lane, node)
            raise Away(f"no answer within {timeout_s or self.request_timeout_s:g} s") from err
        except (IncompatibleBrokerVersion, NotImplementedError):
            raise
        except (KafkaError, OSError, EOFError, struct.error) as err:
            self._drop(conn, lane, node)
            raise Away(str(err) or type(err).__name__) from err
        if self._away_since is not None:
            self._say_back()
        return answer

    async def _connection(self, node: int, lane: str) -> AIOKafkaConnection:
        nodes = self._lanes.setdefault(lane, {})
        opening = nodes.get(node)
        if opening is not None and opening.done():
            conn = _opened(opening)
            if conn is not None and conn.connected():
                return conn
            opening = None
        if opening is None:
            opening = nodes[node] = asyncio.get_running_loop().create_task(self._open(node))
        try:
            # Shielded: who waits may be cancelled while another waits for the same connection.
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise Away("the connection was closed") from None
            raise

    async def _open(self, node: int) -> AIOKafkaConnection:
        if self._closed:
            raise Away("the log was closed")
        where = self._bootstrap[-1 - node] if node < 0 else self.nodes.get(node)
        if where is None:
            raise Away(f"node {node} is not known any more")
        host, port = where
        conn = AIOKafkaConnection(
            host,
            port,
            client_id=self._client_id,
            # The longest that anybody waits: each request has a shorter bound of its own.
            request_timeout_ms=600_000,
            **self._connect,
        )
        try:
            async with asyncio.timeout(self.request_timeout_s):
                await conn.connect()
        except _REFUSED as err:
            raise Stop(
                f"Kafka at {host}:{port} refuses us: {type(err).__name__}: {err}. Check the security settings"
                f" (security_protocol, sasl_*, ssl_*). Nothing was read or written."
            ) from err
        except (KafkaError, OSError, EOFError, struct.error, TimeoutError) as err:
            raise Away(f"{host}:{port}: {err or type(err).__name__}") from err
        return conn

    def _drop(self, conn: AIOKafkaConnection, lane: str, node: int) -> None:
        conn.close()
        opening = self._lanes.get(lane, {}).get(node)
        if opening is not None and _opened(opening) is conn:
            del self._lanes[lane][node]

    async def cut(self, lane: str, *, hard: bool = False) -> None:
        """Close the connections of a lane. hard: what was not sent yet is dropped, not flushed."""
        closing = []
        for opening in self._lanes.pop(lane, {}).values():
            if not opening.done():
                opening.cancel()
            elif (conn := _opened(opening)) is not None:
                closing.append(_close(conn, hard=hard))
        for closed in closing:
            if closed is not None:
                await asyncio.wait([closed], timeout=1.0)

    async def close(self) -> None:
        self._closed = True
        for lane in list(self._lanes):
            await self.cut(lane)

    # -- waiting --------------------------------------------------------------------------------------------------

    def say_away(self, why: object) -> None:
        """Tell people, once for each time, that nobody answers."""
        if self._away_since is None and not isinstance(why, NotYet):
            self._away_since = time.monotonic()
            if self._notice:
                self._notice(f"Kafka at {self.address} does not answer ({why}). Waiting for it; nothing is lost.")

    def _say_back(self) -> None:
        since, self._away_since = self._away_since, None
        if self._notice and since is not None:
            self._notice(f"Kafka at {self.address} answers again after {time.monotonic() - since:.1f} s.")

    async def patiently(self, do: Callable[[], Awaitable[T]], *, what: str, timeout_s: float | None) -> T:
        """Do it until it isn't `Away`, with back-off, saying once that we wait. Raises `LogUnavailable` at the end.

        timeout_s None: without end. Only for what may be done twice.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        pauses = back_off()
        while True:
            try:
                return await do()
            except Away as err:
                if deadline is not None and time.monotonic() >= deadline:
                    raise LogUnavailable(
                        f"Kafka at {self.address} does not answer ({err}), so {what} was given up after"
                        f" {timeout_s:g} s. Start it, or check the address; then try again."
                    ) from err
                self.say_away(err)
                await asyncio.sleep(next(pauses))


def back_off() -> Iterator[float]:
    """Growing pauses with jitter, in seconds."""
    pause, longest = BACK_OFF_S
    while True:
        yield pause * random.uniform(0.7, 1.3)
        pause = min(pause * 2, longest)


def _opened(opening: asyncio.Task[Any]) -> Any:
    """The connection of a task that has ended well, else None."""
    if not opening.done() or opening.cancelled() or opening.exception() is not None:
        return None
    return opening.result()


def _close(conn: AIOKafkaConnection, *, hard: bool) -> Any:
    writer = conn._writer
    if hard and writer is not None:
        # A close in the ordinary way first writes out what is buffered: a request that we have given up would go on.
        writer.transport.abort()
    return conn.close()
