"""The embedded log: one SQLite file that several processes of a machine share.

A durable append is one commit of the writer thread (`sqlite_writer`); reads are selects in
the event loop (`sqlite_reader`); groups are leases in tables (`sqlite_groups`). The file
may lie on a local disk only: locks and shared memory don't work over a network.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from millstream.events.errors import (
    LogFolderUnusable,
    LogUnavailable,
    OffsetOutOfRange,
    PartitionCountMismatch,
    TopicMissing,
)
from millstream.events.logs.port import (
    Appended,
    Bounds,
    LogLimits,
    Notice,
    Record,
    StoredRecord,
    TopicPartition,
    TopicSpec,
)
from millstream.events.logs.sizes import batch_bytes
from millstream.events.logs.specs import compare_specs
from millstream.events.logs.sqlite_file import LOCK, explain, open_connection
from millstream.events.logs.sqlite_groups import SESSION_TIMEOUT_S, SqliteGroup
from millstream.events.logs.sqlite_reader import SqliteReader, Stream, encode_headers
from millstream.events.logs.sqlite_recent import Recent
from millstream.events.logs.sqlite_wake import Waker
from millstream.events.logs.sqlite_work import STUCK_S, Append, Row
from millstream.events.logs.sqlite_writer import Writer

DELETE_SLICE = 5_000
"""Rows deleted in one transaction: appends get their turn in between."""


def wall_clock_ms() -> int:
    """The machine's clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


class SqliteLog:
    """A log in `<folder>/log.sqlite3`. now_ms: the clock that stamps records; it may jump, the stamps never go back.

    stuck_s: an append that has waited so long for the lock or the disk ends as unknown.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        limits: LogLimits | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
        stuck_s: float = STUCK_S,
        notice: Notice | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._limits = limits or LogLimits()
        self._now_ms = now_ms
        self._stuck_s = stuck_s
        self._notice = notice
        self._writer: Writer | None = None
        self._connection: sqlite3.Connection | None = None
        self._groups: list[SqliteGroup] = []
        self._streams: dict[TopicPartition, Stream] = {}
        self._streams_mark = -1
        self._touches: dict[TopicPartition, int] = {}
        self._touches_of_all = 0
        self._recent: dict[TopicPartition, Recent] = {}
        self._followers: Counter[TopicPartition] = Counter()
        self._data_version = -1
        self._news = 0
        self.waker = Waker(self.foreign_commits, self._has_news)

    @property
    def limits(self) -> LogLimits:
        return self._limits

    @property
    def kind(self) -> Literal["kafka", "embedded", "memory"]:
        return "embedded"

    async def start(self) -> None:
        """Open the file, or make it. Raises `LogFolderUnusable`; the text says why."""
        writer = Writer(self.folder, self._now_ms, self._on_commit, self._stuck_s)
        writer.start()
        try:
            await asyncio.wait_for(asyncio.shield(writer.ready), self._stuck_s)
            self._connection = open_connection(self.folder, write=False)
        except TimeoutError as e:
            raise LogUnavailable(
                f"the log in {str(self.folder)!r} could not be opened within {self._stuck_s:g} s: another process holds its"
                f" lock, or the disk doesn't answer. Look for a stopped process (state T) that has the folder open."
            ) from e
        except sqlite3.Error as e:
            await writer.stop()
            raise LogFolderUnusable(f"the log in {str(self.folder)!r} can't be opened: {explain(e)}.") from e
        self._writer = writer
        self.waker.start(self.folder / LOCK)

    async def close(self) -> None:
        if self._writer is None:
            return
        for group in self._groups:
            await group.close()
        writer, self._writer = self._writer, None
        await writer.stop()
        self.waker.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if writer.lock is not None:
            writer.lock.close()

    @property
    def writer(self) -> Writer:
        if self._writer is None:
            raise LogUnavailable(f"the log in {str(self.folder)!r} is not open (closed, or not started yet)")
        return self._writer

    @property
    def connection(self) -> sqlite3.Connection:
        """For selects, in the event loop."""
        if self._connection is None:
            raise LogUnavailable(f"the log in {str(self.folder)!r} is not open (closed, or not started yet)")
        return self._connection

    async def identity(self) -> str:
        return str(self._one("SELECT value FROM meta WHERE name = 'identity'")[0])

    async def ensure_topic(self, spec: TopicSpec) -> None:
        found = self._spec(spec.name)
        if found is None:
            if spec.partitions < 1:
                raise PartitionCountMismatch(f"{spec.name!r} can't be made with {spec.partitions} partitions")
            await self.writer.run(lambda connection: _make_topic(connection, spec))
            found = self._spec(spec.name)
        if found is None:
            raise TopicMissing(f"{spec.name!r} was deleted while it was being made")
        compare_specs(spec, found)

    async def delete_topic(self, topic: str) -> None:
        await self.writer.run(lambda connection: _drop_topic(connection, topic))

    async def partitions(self, topic: str) -> int | None:
        spec = self._spec(topic)
        return spec.partitions if spec else None

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        size = batch_bytes(topic, records, self._limits)
        rows: list[Row] = [(r.key, r.value, encode_headers(r.headers) if r.headers else None) for r in records]
        return await self.writer.append(TopicPartition(topic, partition), records, rows, size)

    async def retire(self) -> None:
        self.writer.give_up_appends("the producer was retired while an append was under way")

    def reader(self, positions: Mapping[TopicPartition, int]) -> SqliteReader:
        return SqliteReader(self, positions)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        stream = self._present(topic, partition)
        return Bounds(stream.first, self.end_of(stream))

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        stream = self._present(topic, partition)
        end = self.end_of(stream)
        if offset > end:
            raise OffsetOutOfRange(topic, partition, offset, stream.first, end)
        if offset <= stream.first:
            return
        # The new beginning first, the rows after it: a reader never meets a gap that it can't tell from an end.
        await self.writer.run(
            lambda c: c.execute("UPDATE streams SET first = max(first, ?) WHERE id = ?", (offset, stream.id)).rowcount
        )
        while await self.writer.run(lambda c: _delete_slice(c, stream.id, offset)):
            pass

    async def join(
        self, group: str, topics: Sequence[str], *, instance_id: str, session_timeout_s: float | None = None
    ) -> SqliteGroup:
        session_s = SESSION_TIMEOUT_S if session_timeout_s is None else session_timeout_s
        member = SqliteGroup(self, group, topics, instance_id, session_s)
        await member.start()
        self._groups.append(member)
        return member

    async def __aenter__(self) -> SqliteLog:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # For readers and groups of this process.

    def say(self, text: str) -> None:
        """Tell the operator, if anybody listens."""
        if self._notice is not None:
            self._notice(text)

    def foreign_commits(self) -> int:
        """Another number whenever other processes have committed."""
        writer = self.writer
        assert writer.lock is not None
        return writer.lock.counters().commits - writer.own_commits + self._news

    def group_changes(self) -> int:
        """How often any process has changed an assignment."""
        lock = self.writer.lock
        assert lock is not None
        return lock.counters().groups

    def own_touches(self, tp: TopicPartition) -> int:
        """Grows with each commit of this process that may have changed the partition."""
        return self._touches.get(tp, 0) + self._touches_of_all

    def stream(self, tp: TopicPartition, mark: int) -> Stream | None:
        """Where the partition lies, remembered as long as `mark` (others' commits) stays and we change no topic."""
        if mark != self._streams_mark:
            self._streams.clear()
            self._streams_mark = mark
        return self._streams.get(tp) or self.look_up(tp)

    def look_up(self, tp: TopicPartition) -> Stream | None:
        found = self._one_or_none("SELECT id, first FROM streams WHERE topic = ? AND partition = ?", tp)
        if found is None:
            return None
        stream = self._streams[tp] = Stream(*found)
        return stream

    def end_of(self, stream: Stream) -> int:
        """The offset that the next record of this stream gets."""
        try:
            newest = self._one(f'SELECT max("offset") FROM records_{stream.id}')[0]  # noqa: S608 - a number
        except LogUnavailable as e:
            if "no such table" in str(e):
                return stream.first
            raise
        return stream.first if newest is None else max(stream.first, newest + 1)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a small select; `LogUnavailable` where SQLite can't read."""
        try:
            return self.connection.execute(sql, values).fetchall()
        except sqlite3.Error as e:
            raise LogUnavailable(f"the log in {str(self.folder)!r} can't be read: {explain(e)}.") from e

    def _one_or_none(self, sql: str, values: Sequence[Any] = ()) -> Any:
        rows = self.rows(sql, values)
        return rows[0] if rows else None

    def _one(self, sql: str) -> Any:
        return self.rows(sql)[0]

    def _present(self, topic: str, partition: int) -> Stream:
        stream = self.look_up(TopicPartition(topic, partition))
        if stream is None:
            raise TopicMissing(f"{topic!r} partition {partition} is not on this log. Make the topic first.")
        return stream

    def _spec(self, topic: str) -> TopicSpec | None:
        found = self._one_or_none(
            "SELECT partitions, cleanup, keep_forever, log_append_time FROM topics WHERE topic = ?", (topic,)
        )
        if found is None:
            return None
        partitions, cleanup, keep_forever, log_append_time = found
        return TopicSpec(topic, partitions, cleanup, bool(keep_forever), bool(log_append_time))

    def recent(self, tp: TopicPartition, stream: Stream, position: int, max_records: int) -> list[StoredRecord]:
        """What this process itself has appended from `position` on, if it is still at hand."""
        recent = self._recent.get(tp)
        return recent.read(stream.id, position, max_records) if recent is not None else []

    def follow(self, partitions: frozenset[TopicPartition], before: frozenset[TopicPartition]) -> None:
        """A reader has these partitions now, instead of those: only what somebody reads is kept at hand."""
        self._followers.update(partitions)
        self._followers.subtract(before)
        for tp in before:
            if self._followers[tp] <= 0:
                del self._followers[tp]
                self._recent.pop(tp, None)

    def _has_news(self) -> bool:
        """Ask SQLite whether anybody, we included, has committed since the last time."""
        try:
            version = int(self._one("PRAGMA data_version")[0])
        except LogUnavailable:
            return False
        if version == self._data_version:
            return False
        self._data_version = version
        self._news += 1
        return True

    def _on_commit(self, appended: list[tuple[Append, int, Appended]] | None) -> None:
        if appended is None:
            self._streams.clear()
            self._touches_of_all += 1
            self.waker.touched(None)
            return
        touched = []
        for work, stream, at in appended:
            tp = work.tp
            touched.append(tp)
            self._touches[tp] = self._touches.get(tp, 0) + 1
            if tp in self._followers:
                self._recent.setdefault(tp, Recent()).add(stream, at.offset, at.timestamp, work.records, work.size)
        self.waker.touched(touched)


def _make_topic(connection: sqlite3.Connection, spec: TopicSpec) -> None:
    """Make it, unless another process has been faster."""
    made = connection.execute(
        "INSERT OR IGNORE INTO topics VALUES (?, ?, ?, ?, ?)",
        (spec.name, spec.partitions, spec.cleanup, spec.keep_forever, spec.log_append_time),
    ).rowcount
    for partition in range(spec.partitions if made else 0):
        stream = connection.execute(
            "INSERT INTO streams (topic, partition) VALUES (?, ?)", (spec.name, partition)
        ).lastrowid
        connection.execute(
            f'CREATE TABLE records_{stream} ("offset" INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL,'
            " key BLOB, value BLOB, headers BLOB)"
        )


def _drop_topic(connection: sqlite3.Connection, topic: str) -> None:
    for (stream,) in connection.execute("SELECT id FROM streams WHERE topic = ?", (topic,)).fetchall():
        connection.execute(f"DROP TABLE records_{stream}")
    for table in ("streams", "topics", "committed", "assignments"):
        connection.execute(f"DELETE FROM {table} WHERE topic = ?", (topic,))  # noqa: S608 - our own names


def _delete_slice(connection: sqlite3.Connection, stream: int, before: int) -> int:
    """Delete the oldest rows below `before`, a slice of them; how many they were."""
    oldest = connection.execute(f'SELECT min("offset") FROM records_{stream}').fetchone()[0]  # noqa: S608
    if oldest is None or oldest >= before:
        return 0
    return connection.execute(
        f'DELETE FROM records_{stream} WHERE "offset" < ?',  # noqa: S608 - a number
        (min(before, oldest + DELETE_SLICE),),
    ).rowcount
