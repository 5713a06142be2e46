"""How the embedded log is read, and how readers are woken.

Selects are made in the event loop, on a connection of their own, and are over when they
return: between polls no transaction is open, so a checkpoint is never held up, and no
snapshot grows old. Since commits are in offset order, a reader can't pass one that comes late.

Own appends wake the readers of their partitions at once. Other processes' commits raise a
counter in `log.lock`, which is looked at every `POLL_S` while somebody waits, and only then.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from millstream.events.errors import LogUnavailable
from millstream.events.logs.port import Header, StoredRecord, TopicPartition
from millstream.events.logs.reading import Part, PartReader

if TYPE_CHECKING:
    from millstream.events.logs.sqlite import SqliteLog

POLL_S = 0.001
NET_POLLS = 250
"""Every so many polls SQLite itself is asked too: a process can be killed between its commit and the counter."""
READ_BYTES_MAX = 4 << 20
AWAY_RETRY_S = 0.5
_CHUNK = 128

_decode_headers = msgspec.msgpack.Decoder(type=tuple[tuple[str, bytes | None], ...]).decode
encode_headers = msgspec.msgpack.Encoder().encode


class Stream(msgspec.Struct, frozen=True, gc=False):
    """Which table has a partition, and its oldest offset."""

    id: int
    first: int


class Waker:
    """Wakes waits: by partition, all of them, or by what other processes have done."""

    def __init__(self, foreign_commits: Callable[[], int], data_version: Callable[[], int]) -> None:
        self._foreign_commits = foreign_commits
        self._data_version = data_version
        self._waits: dict[asyncio.Future[None], tuple[int, frozenset[TopicPartition] | None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._polls = 0
        self._version = -1

    async def wait(self, mark: int, of: frozenset[TopicPartition] | None, timeout_s: float | None) -> None:
        """Until own appends touch a partition of `of` (None: any), others' commits pass `mark`, or the time-out."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = None if timeout_s is None else loop.call_later(timeout_s, resolve, future)
        self._waits[future] = (mark, of)
        if self._timer is None:
            self._poll()
        try:
            await future
        finally:
            del self._waits[future]
            if timer is not None:
                timer.cancel()

    def touched(self, partitions: list[TopicPartition] | None) -> None:
        """We have committed: to these partitions, or (None) something else."""
        for future, (_, of) in self._waits.items():
            if partitions is None or (of is not None and not of.isdisjoint(partitions)):
                resolve(future)

    def wake_all(self) -> None:
        for future in self._waits:
            resolve(future)

    def _poll(self) -> None:
        self._timer = None
        if not self._waits:
            return
        commits = self._foreign_commits()
        for future, (mark, _) in self._waits.items():
            if commits != mark:
                resolve(future)
        self._polls += 1
        if self._polls % NET_POLLS == 0:
            version = self._data_version()
            if version != self._version:
                self._version = version
                self.wake_all()
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.wake_all()


def resolve(future: asyncio.Future[None]) -> None:
    """Let the wait go on, if it still waits."""
    if not future.done():
        future.set_result(None)


class SqliteReader(PartReader):
    """A reader of one process. A partition seen empty isn't asked again until somebody has written."""

    def __init__(self, log: SqliteLog, positions: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._wait_now: asyncio.Future[None] | None = None
        self._empty: dict[TopicPartition, tuple[int, int, int]] = {}
        self._mark_now = 0
        self._away = False
        super().__init__(positions)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._empty.clear()
        self._of = frozenset(positions)
        super().assign(positions)

    def _mark(self) -> int:
        self._mark_now = self._log.foreign_commits()
        return self._mark_now

    def _part(self, tp: TopicPartition, position: int, max_records: int) -> Part | None:
        seen = (self._mark_now, self._log.own_touches(tp), position)
        if self._empty.get(tp) == seen:
            return Part(self._incarnations[tp], 0, position, [])
        part = self._select(tp, position, max_records)
        if part is not None and not part.records:
            self._empty[tp] = seen
        return part

    def _select(self, tp: TopicPartition, position: int, max_records: int) -> Part | None:
        stream = self._log.stream(tp, self._mark_now)
        records: list[StoredRecord] = []
        if stream is not None:
            try:
                records = select_records(self._log.connection, stream.id, position, max_records)
            except sqlite3.OperationalError as e:
                if "no such table" not in str(e):
                    raise
                stream = None
        if records and stream is not None and records[0].offset == position:
            return Part(stream.id, stream.first, 0, records)
        # Not what was expected: the topic may have been cut or made again since it was looked up. Look afresh, after the
        # select, so that a cut between the two can't be taken for an end.
        return self._afresh(tp, position, records, stream)

    def _afresh(
        self, tp: TopicPartition, position: int, records: list[StoredRecord], before: Stream | None
    ) -> Part | None:
        stream = self._log.look_up(tp)
        if stream is None:
            return None
        if before is None or stream.id != before.id:
            records = []
        return Part(stream.id, stream.first, self._log.end_of(stream), records)

    def _collect(self, max_records: int) -> dict[TopicPartition, list[StoredRecord]]:
        try:
            got = super()._collect(max_records)
        except (sqlite3.Error, LogUnavailable) as e:
            if not self._away:
                self._away = True
                self._log.say(f"the log in {str(self._log.folder)!r} can't be read now, and is waited for: {e}")
            return {}
        if self._away:
            self._away = False
            self._log.say(f"the log in {str(self._log.folder)!r} can be read again")
        return got

    async def _wait(self, mark: int, timeout_s: float | None) -> None:
        if self._away:
            timeout_s = AWAY_RETRY_S if timeout_s is None else min(timeout_s, AWAY_RETRY_S)
        await self._log.waker.wait(mark, self._of, timeout_s)

    def _poke(self) -> None:
        self._log.waker.wake_all()


def select_records(connection: sqlite3.Connection, stream: int, position: int, max_records: int) -> list[StoredRecord]:
    """Up to `max_records` from `position` on, fewer where they are large: reading must not fill the memory."""
    cursor = connection.execute(
        f'SELECT "offset", timestamp, key, value, headers FROM records_{stream}'  # noqa: S608 - a number
        ' WHERE "offset" >= ? ORDER BY "offset" LIMIT ?',
        (position, max_records),
    )
    records: list[StoredRecord] = []
    size = 0
    try:
        while size < READ_BYTES_MAX and (rows := cursor.fetchmany(_CHUNK)):
            for offset, timestamp, key, value, headers in rows:
                size += len(value) if value is not None else 0
                decoded: tuple[Header, ...] = _decode_headers(headers) if headers is not None else ()
                records.append(StoredRecord(offset, timestamp, key, value, decoded))
    finally:
        cursor.close()  # ends the read transaction
    return records
