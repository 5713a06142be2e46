"""Appends: idempotent, acknowledged by all, and each batch on the wire at most once.

aiokafka's own producer tries again in the background for as long as it lives; a
claim that was given up lands as a ghost much later. Here nothing is ever sent
twice: an end that isn't the broker's offset is `AppendUnknown` at once, and the
producer id goes with it, since the broker would refuse what that id sends next.

Batches of different partitions that wait while a request is on its way go out
together in the next one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence

from aiokafka.errors import IncompatibleBrokerVersion, for_code
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from millstream.events.errors import AppendUnknown, BatchTooLarge, LogUnavailable, Stop
from millstream.events.logs.kafka_cluster import Away, Cluster, back_off
from millstream.events.logs.kafka_wire import Produced, ProduceRequest
from millstream.events.logs.port import Appended, LogLimits, Record, TopicPartition
from millstream.events.logs.sizes import batch_bytes

# What Kafka's own default takes; a record of 1,000,000 bytes and all that is added to it stays below.
WIRE_BYTES_MAX = 1_048_576
# Several batches together: as much as keeps one request below a few milliseconds of loopback.
REQUEST_BYTES_MAX = 4 * 1024 * 1024
APPEND_TIMEOUT_S = 10.0
# How long a topic that was just made may be unknown to the broker we ask.
TOPIC_GRACE_S = 1.0
_INT32_MAX = 2**31 - 1


class Batch:
    """One append on its way."""

    __slots__ = ("builder", "ended", "records", "size", "tp")

    def __init__(self, tp: TopicPartition, builder: DefaultRecordBatchBuilder, records: int) -> None:
        self.tp = tp
        self.builder = builder
        self.records = records
        self.size: int = builder.size()
        self.ended: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()

    def unknown(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(unknown(self.tp, why))


class Identity:
    """A producer id and what was sent under it. Given up whole after the first end that isn't an offset."""

    def __init__(self, lane: str, producer_id: int, epoch: int) -> None:
        self.lane = lane
        self.producer_id = producer_id
        self.epoch = epoch
        self.sequences: dict[TopicPartition, int] = {}
        self.on_the_way = 0
        self.given_up = False

    def stamp(self, batch: Batch) -> bytearray:
        """The batch as bytes, numbered."""
        sequence = self.sequences.get(batch.tp, 0)
        # The protocol counts on from 0 after the largest 32-bit number.
        self.sequences[batch.tp] = (sequence + batch.records) & _INT32_MAX
        batch.builder.set_producer_state(self.producer_id, self.epoch, sequence)
        built: bytearray = batch.builder.build()
        return built


class Producer:
    """The appends of one log. append_timeout_s: after that an append ends as unknown, whatever goes on."""

    def __init__(self, cluster: Cluster, *, limits: LogLimits, append_timeout_s: float = APPEND_TIMEOUT_S) -> None:
        self._cluster = cluster
        self._limits = limits
        self._timeout_s = append_timeout_s
        self._identity: Identity | None = None
        self._making: asyncio.Task[Identity] | None = None
        self._identities: set[Identity] = set()
        self._waiting: dict[int, dict[TopicPartition, deque[Batch]]] = {}
        self._senders: dict[int, asyncio.Task[None]] = {}
        self._batches: set[Batch] = set()
        self._retirements = 0
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        """See the port."""
        batch_bytes(topic, records, self._limits)
        if self._closed:
            raise LogUnavailable("the log was closed; open another one")
        tp = TopicPartition(topic, partition)
        node = self._cluster.leader(tp)
        if node is None or self._identity is None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    node = await self._prepare(tp)
            except TimeoutError:
                raise unknown(tp, f"no broker took it within {self._timeout_s:g} s, so nothing was sent") from None
        batch = Batch(tp, build(topic, records), len(records))
        self._enqueue(node, batch)
        # A bare timer: `asyncio.timeout` costs ten times as much, and every append pays for it.
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._expire, batch)
        try:
            return await batch.ended
        finally:
            timer.cancel()
            self._batches.discard(batch)

    def _expire(self, batch: Batch) -> None:
        """Too long without an answer: all that is on the way by this producer is in doubt with it."""
        why = f"it had no answer within {self._timeout_s:g} s"
        batch.unknown(why)
        retiring = asyncio.get_running_loop().create_task(self.retire(why))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def retire(self, why: str = "the producer was retired") -> None:
        """Drop what waits, cut the connections, forget the producer id. Nothing of it is sent after this by us."""
        self._retirements += 1
        identities, self._identities, self._identity = self._identities, set(), None
        making, self._making = self._making, None
        if making is not None:
            making.cancel()
        for identity in identities:
            identity.given_up = True
        self._waiting.clear()
        for batch in self._batches:
            batch.unknown(why)
        for identity in identities:
            await self._cluster.cut(identity.lane, hard=True)

    async def close(self) -> None:
        self._closed = True
        await self.retire("the log was closed")
        for sender in list(self._senders.values()):
            sender.cancel()
            await asyncio.wait([sender])

    # -- before sending -------------------------------------------------------------------------------------------

    async def _prepare(self, tp: TopicPartition) -> int:
        """See to a leader and a producer id, and return the leader."""
        retirements = self._retirements
        node = self._cluster.leader(tp)
        if node is None:
            node = await self._find_leader(tp)
        if self._identity is None:
            await self._make_identity()
        if retirements != self._retirements:
            # Sent now it would land after whatever its sender has done since: the very ghost that retiring prevents.
            raise unknown(tp, "the producer was retired before it was sent")
        return node

    async def _find_leader(self, tp: TopicPartition) -> int:
        """The leader, asked for until there is one. Nothing has been sent: the time-out bounds it."""
        began = time.monotonic()
        for pause in back_off():
            try:
                await self._cluster.refresh([tp.topic])
            except Away as err:
                self._cluster.say_away(err)
            else:
                node = self._cluster.leader(tp)
                if node is not None:
                    return node
                known = self._cluster.topics.get(tp.topic)
                gone = known is None or tp.partition not in known.leaders
                if gone and time.monotonic() - began > TOPIC_GRACE_S:
                    raise AppendUnknown(
                        f"{tp.topic!r} partition {tp.partition} is not on this log; nothing was appended."
                        f" Make the topic first, or check the prefix."
                    )
            await asyncio.sleep(pause)
        raise AssertionError("back_off never ends")

    async def _make_identity(self) -> None:
        """A producer id from the cluster; appends that come meanwhile wait for the same one."""
        if self._making is None:
            self._making = asyncio.get_running_loop().create_task(self._ask_identity())
        making = self._making
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            # Cancelled by a retirement, which the caller sees; or else it is the caller who is cancelled.
            if not making.cancelled():
                raise
        finally:
            if self._making is making and making.done():
                self._making = None

    async def _ask_identity(self) -> Identity:
        lane = self._cluster.new_lane("producer")
        for pause in back_off():
            try:
                if not self._cluster.nodes:
                    await self._cluster.refresh([])
                for node in list(self._cluster.nodes):
                    answer = await self._cluster.ask(node, InitProducerIdRequest(None, 60_000), lane=lane)
                    if answer.error_code == 0:
                        identity = Identity(lane, answer.producer_id, answer.producer_epoch)
                        self._identities.add(identity)
                        self._identity = identity
                        return identity
            except Away as err:
                self._cluster.say_away(err)
            await asyncio.sleep(pause)
        raise AssertionError("back_off never ends")

    # -- sending --------------------------------------------------------------------------------------------------

    def _enqueue(self, node: int, batch: Batch) -> None:
        self._batches.add(batch)
        self._waiting.setdefault(node, {}).setdefault(batch.tp, deque()).append(batch)
        sender = self._senders.get(node)
        if sender is None or sender.done():
            # It starts at the loop's next turn, so that appends of this turn share its first request.
            self._senders[node] = asyncio.get_running_loop().create_task(self._send_all(node))

    async def _send_all(self, node: int) -> None:
        """Send what waits for this node, one request at a time, until nothing does."""
        while batches := self._take(node):
            try:
                while self._identity is None:
                    await self._make_identity()
            except Stop as err:
                for batch in batches:
                    batch.unknown(str(err))
                continue
            # What was retired meanwhile has ended.
            batches = tuple(batch for batch in batches if not batch.ended.done())
            if batches:
                await self._send(node, self._identity, batches)

    def _take(self, node: int) -> tuple[Batch, ...]:
        """The oldest batch of each partition, as many as one request takes. A batch that nobody awaits is dropped."""
        queues = self._waiting.get(node)
        if not queues:
            return ()
        taken: list[Batch] = []
        size = 0
        for tp in list(queues):
            queue = queues[tp]
            while queue and queue[0].ended.done():
                queue.popleft()
            if queue and (not taken or size + queue[0].size <= REQUEST_BYTES_MAX):
                batch = queue.popleft()
                taken.append(batch)
                size += batch.size
            if not queue:
                del queues[tp]
        return tuple(taken)

    async def _send(self, node: int, identity: Identity, batches: tuple[Batch, ...]) -> None:
        request: dict[str, list[tuple[int, bytes | bytearray]]] = {}
        for batch in batches:
            request.setdefault(batch.tp.topic, []).append((batch.tp.partition, identity.stamp(batch)))
        identity.on_the_way += 1
        try:
            answers = await self._cluster.ask(
                node,
                ProduceRequest(request, timeout_ms=int(self._timeout_s * 1000)),
                lane=identity.lane,
                # Its appends have timers, and whoever comes behind them has one.
                timeout_s=math.inf,
            )
        except (Away, Stop, IncompatibleBrokerVersion, NotImplementedError) as err:
            if not identity.given_up:
                # It broke by itself, not by our hand: the partitions may be elsewhere now, so the next append asks.
                for batch in batches:
                    self._cluster.topics.pop(batch.tp.topic, None)
            self._give_up(identity)
            for batch in batches:
                batch.unknown(f"the connection failed: {err}")
        else:
            self._judge(identity, batches, answers)
        finally:
            identity.on_the_way -= 1
            if identity.given_up and not identity.on_the_way:
                self._identities.discard(identity)
                await self._cluster.cut(identity.lane, hard=True)

    def _judge(self, identity: Identity, batches: tuple[Batch, ...], answers: list[Produced]) -> None:
        ends = {(answer.topic, answer.partition): answer for answer in answers}
        for batch in batches:
            answer = ends.get(batch.tp)
            if answer is not None and answer.error_code == 0 and answer.offset >= 0:
                if not batch.ended.done():
                    batch.ended.set_result(Appended(answer.offset, answer.timestamp))
                continue
            self._give_up(identity)
            # The next append asks anew where the partition is: it may have moved.
            self._cluster.topics.pop(batch.tp.topic, None)
            batch.unknown("the broker left it out" if answer is None else describe(answer.error_code))

    def _give_up(self, identity: Identity) -> None:
        """No append begins under this id any more; what is on its way to other nodes may still end well."""
        identity.given_up = True
        if self._identity is identity:
            self._identity = None


def build(topic: str, records: Sequence[Record]) -> DefaultRecordBatchBuilder:
    """A Kafka record batch. Raises `BatchTooLarge` where it would be over what a broker takes with its overhead."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, WIRE_BYTES_MAX)
    append = builder.append
    now_ms = time.time_ns() // 1_000_000
    for number, record in enumerate(records):
        if append(number, now_ms, record.key, record.value, list(record.headers)) is None:
            # The builder drops the record without a word more.
            raise BatchTooLarge(topic, WIRE_BYTES_MAX + 1, WIRE_BYTES_MAX, len(records))
    if builder.size() > WIRE_BYTES_MAX:
        raise BatchTooLarge(topic, builder.size(), WIRE_BYTES_MAX, len(records))
    return builder


def unknown(tp: TopicPartition, why: str) -> AppendUnknown:
    return AppendUnknown(
        f"nobody knows how an append to {tp.topic!r} partition {tp.partition} ended: {why}."
        f" It may have landed, may still land, or never will. It is not sent again by us: read the log and learn."
    )


def describe(error_code: int) -> str:
    """Kafka's own name and text for an error code."""
    error = for_code(error_code)
    return f"{error.__name__} ({error_code}): {getattr(error, 'description', '')}".rstrip(": ")
