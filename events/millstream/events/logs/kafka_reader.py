"""Reads many partitions in order, each from its own position. Never skips, never resets.

aiokafka's consumer can fall asleep after a broker restart and forgets its state at
each new assignment. This fetcher has neither: one long poll at a time for each
node, every one with a deadline, over whatever is assigned at that moment; batches
are kept as they came and turned into records when they are read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiokafka.errors import IncompatibleBrokerVersion, UnsupportedCodecError

from millstream.events.errors import LogUnavailable, LogWentBack, OffsetOutOfRange, Stop, TopicMissing
from millstream.events.logs.kafka_cluster import Away, Cluster, back_off
from millstream.events.logs.kafka_cursor import Cursor
from millstream.events.logs.kafka_producer import TOPIC_GRACE_S, describe
from millstream.events.logs.kafka_topics import bounds_of
from millstream.events.logs.kafka_wire import Fetched, FetchRequest
from millstream.events.logs.port import StoredRecord, TopicPartition

# The broker answers as soon as it has one byte; this is only how long it may say nothing.
FETCH_WAIT_MS = 500
PARTITION_BYTES_MAX = 1024 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024


_OFFSET_OUT_OF_RANGE = 1
_LOOK_AGAIN = {3, 5, 6, 9, 56, 74, 75, 78, 100, 103}


class KafkaReader:
    """See the port's `Reader`."""

    def __init__(self, cluster: Cluster, positions: Mapping[TopicPartition, int], *, fetch_wait_ms: int) -> None:
        self._cluster = cluster
        self._fetch_wait_ms = fetch_wait_ms
        self._cursors: dict[TopicPartition, Cursor] = {}
        self._fetches: dict[int, tuple[asyncio.Task[None], str]] = {}
        self._finder: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._closed = False
        self.assign(positions)

    def position(self, tp: TopicPartition) -> int:
        return self._cursors[tp].position

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Partitions that are kept with their position keep what was fetched for them."""
        before = self._cursors
        self._cursors = {}
        fresh = False
        for key, position in positions.items():
            tp = TopicPartition(*key)
            kept = before.get(tp)
            if kept is None or kept.position != position or kept.failure is not None:
                kept = Cursor(tp, position)
                fresh = True
            self._cursors[tp] = kept
        self._failure = None
        if fresh:
            # A long poll of the old set may sit at the broker for half a second; the new partitions don't wait for it.
            self._stop_fetching()
        self._room.set()
        self._wake()

    async def read(
        self, *, max_records: int = 1000, timeout_s: float | None = None
    ) -> dict[TopicPartition, list[StoredRecord]]:
        """See the port."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not self._closed:
            got = self._collect(max_records)
            if got:
                return got
            self._see_to_fetching()
            if deadline is not None and loop.time() >= deadline:
                return {}
            await self._wait(deadline)
        raise LogUnavailable("this reader was closed")

    def _collect(self, max_records: int) -> dict[TopicPartition, list[StoredRecord]]:
        got: dict[TopicPartition, list[StoredRecord]] = {}
        for tp, cursor in self._cursors.items():
            if cursor.ahead or cursor.records is not None:
                was_full = cursor.full
                records = self._take(cursor, max_records)
                if records:
                    got[tp] = records
                if was_full and not cursor.full:
                    self._room.set()
        if not got:
            if self._failure is not None:
                raise self._failure
            for cursor in self._cursors.values():
                if cursor.failure is not None:
                    raise cursor.failure
        return got

    @staticmethod
    def _take(cursor: Cursor, max_records: int) -> list[StoredRecord]:
        try:
            return cursor.take(max_records)
        except (UnsupportedCodecError, RuntimeError, ValueError) as err:
            raise Stop(
                f"records of {cursor.tp.topic!r} partition {cursor.tp.partition} at {cursor.position} can't be read:"
                f" {err}. If they are compressed, install `cramjam` or let their sender compress otherwise."
            ) from err

    async def _wait(self, deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, _resolve, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None:
            _resolve(self._waiter)

    async def close(self) -> None:
        self._closed = True
        tasks = self._stop_fetching()
        self._wake()
        if tasks:
            await asyncio.wait(tasks)

    # -- fetching -------------------------------------------------------------------------------------------------

    def _stop_fetching(self) -> list[asyncio.Task[None]]:
        tasks = [task for task, _ in self._fetches.values()]
        if self._finder is not None:
            tasks.append(self._finder)
        for task in tasks:
            task.cancel()
        self._fetches, self._finder = {}, None
        return tasks

    def _see_to_fetching(self) -> None:
        """Start a fetch loop for each node that leads one of ours, and a search for the partitions without one."""
        self._fetches = {node: entry for node, entry in self._fetches.items() if not entry[0].done()}
        loop = asyncio.get_running_loop()
        lost = False
        for cursor in self._cursors.values():
            node = self._cluster.leader(cursor.tp)
            if node is None:
                lost = True
            elif node not in self._fetches and cursor.failure is None:
                lane = self._cluster.new_lane("reader")
                self._fetches[node] = (loop.create_task(self._guard(partial(self._fetch_all, node, lane), lane)), lane)
        if lost and (self._finder is None or self._finder.done()):
            self._finder = loop.create_task(self._guard(self._find, None))

    async def _guard(self, work: Callable[[], Awaitable[None]], lane: str | None) -> None:
        """What stops a loop is for the reader to hear."""
        try:
            await work()
        except Exception as err:  # noqa: BLE001
            self._failure = err
        finally:
            if lane is not None:
                await self._cluster.cut(lane)
        self._wake()

    async def _find(self) -> None:
        """Look for the leaders of our partitions until each has one. Raises `TopicMissing`."""
        began = time.monotonic()
        for pause in back_off():
            try:
                await self._cluster.refresh({cursor.tp.topic for cursor in self._cursors.values()})
            except Away as err:
                self._cluster.say_away(err)
                began = time.monotonic()
            else:
                waiting = [c.tp for c in self._cursors.values() if self._cluster.leader(c.tp) is None]
                if not waiting:
                    return
                for tp in waiting:
                    known = self._cluster.topics.get(tp.topic)
                    gone = known is None or tp.partition not in known.leaders
                    if gone and time.monotonic() - began > self._grace_s(tp):
                        raise missing(tp, self._cursors[tp].position)
            await asyncio.sleep(pause)

    def _grace_s(self, tp: TopicPartition) -> float:
        # What has been there and is gone was deleted. What has never been seen may have been made a moment ago.
        return 0.0 if self._cursors[tp].topic_id else TOPIC_GRACE_S

    async def _fetch_all(self, node: int, lane: str) -> None:
        """Fetch what this node leads, one request at a time, for as long as it leads any of ours."""
        pauses = back_off()
        while True:
            cursors = {c.tp: c for c in self._cursors.values() if c.failure is None and self._leads(node, c)}
            if not cursors:
                return
            if any(cursor.full for cursor in cursors.values()):
                # Never without the full ones: the others' long poll would hold them up once they have room again.
                self._room.clear()
                await self._room.wait()
                continue
            try:
                await self._cluster.refresh_if_older({tp.topic for tp in cursors})
                self._check_topic_ids(cursors)
                again = await self._fetch(node, lane, cursors)
            except Away as err:
                self._cluster.say_away(err)
                again = False
            if again:
                pauses = back_off()
            else:
                await asyncio.sleep(next(pauses))
                await self._look_again(cursors)

    def _leads(self, node: int, cursor: Cursor) -> bool:
        return self._cluster.leader(cursor.tp) == node

    async def _look_again(self, cursors: Mapping[TopicPartition, Cursor]) -> None:
        try:
            await self._cluster.refresh({tp.topic for tp in cursors})
        except Away as err:
            self._cluster.say_away(err)
        else:
            self._check_topic_ids(cursors)
            # Whatever leads now is seen to by the reader's next turn.
            self._wake()

    def _check_topic_ids(self, cursors: Mapping[TopicPartition, Cursor]) -> None:
        """Notice a topic that was deleted and made again: what lies at our offsets now is something else."""
        for tp, cursor in cursors.items():
            topic = self._cluster.topics.get(tp.topic)
            if topic is None or topic.id is None:
                continue
            if cursor.topic_id is None:
                cursor.topic_id = topic.id
            elif cursor.topic_id != topic.id:
                cursor.failure = LogWentBack(
                    f"{tp.topic!r} was deleted and made again while partition {tp.partition} was read up to"
                    f" {cursor.position}. What lies at that offset now is something else. Read it from its beginning,"
                    f" as a new topic."
                )
                self._wake()

    async def _fetch(self, node: int, lane: str, cursors: Mapping[TopicPartition, Cursor]) -> bool:
        """One long poll. Returns whether to go on at once; else where things are is to be asked for anew."""
        positions: dict[str, list[tuple[int, int]]] = {}
        for tp, cursor in cursors.items():
            positions.setdefault(tp.topic, []).append((tp.partition, cursor.fetch_at))
        request = FetchRequest(
            positions,
            max_wait_ms=self._fetch_wait_ms,
            bytes_max=FETCH_BYTES_MAX,
            partition_bytes_max=PARTITION_BYTES_MAX,
        )
        try:
            error_code, parts = await self._cluster.ask(node, request, lane=lane)
        except (IncompatibleBrokerVersion, NotImplementedError) as err:
            raise Stop(f"Kafka at {self._cluster.address} is too old: {err}. Release 2.3 or newer is needed.") from err
        if error_code:
            return False
        good = True
        for part in parts:
            asked = cursors.get(TopicPartition(part.topic, part.partition))
            # It may have been assigned anew meanwhile; what was fetched for the old position isn't wanted.
            if asked is None or self._cursors.get(asked.tp) is not asked or asked.failure is not None:
                continue
            if part.error_code:
                good = await self._part_failed(asked, part) and good
            elif part.records:
                asked.add(part.records)
                self._wake()
        return good

    async def _part_failed(self, cursor: Cursor, part: Fetched) -> bool:
        tp = cursor.tp
        if part.error_code == _OFFSET_OUT_OF_RANGE:
            bounds = await bounds_of(self._cluster, tp)
            if bounds.first <= cursor.fetch_at <= bounds.end:
                return False
            if cursor.fetch_at > bounds.end and (cursor.was_read or cursor.ahead):
                cursor.failure = LogWentBack(
                    f"{tp.topic!r} partition {tp.partition} was read up to {cursor.fetch_at} and now ends at"
                    f" {bounds.end}. The log was cut or restored from an older copy. Compare the copies before"
                    f" anything goes on."
                )
            else:
                cursor.failure = OffsetOutOfRange(tp.topic, tp.partition, cursor.fetch_at, *bounds)
            self._wake()
            return True
        if part.error_code in _LOOK_AGAIN:
            self._cluster.topics.pop(tp.topic, None)
            return False
        cursor.failure = Stop(
            f"{tp.topic!r} partition {tp.partition} can't be read at {cursor.fetch_at}:"
            f" {describe(part.error_code)}. Nothing was skipped."
        )
        self._wake()
        return True


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def missing(tp: TopicPartition, position: int) -> TopicMissing:
    return TopicMissing(
        f"{tp.topic!r} partition {tp.partition} is not on the log (any more), and was to be read from offset"
        f" {position}. It was deleted, or never made, or this user may not see it: check the address and the prefix."
    )
