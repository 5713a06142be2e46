"""How the embedded log is read.

Selects are made in the event loop, on a connection of their own, and are over when they
return: between reads no transaction is open, so a checkpoint is never held up, and no
snapshot grows old. Since commits are in offset order, a reader can't pass one that comes late.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from millstream.events.errors import LogUnavailable
from millstream.events.logs.port import StoredRecord, TopicPartition
from millstream.events.logs.reading import Part, PartReader

if TYPE_CHECKING:
    from millstream.events.logs.sqlite import SqliteLog

READ_BYTES_MAX = 4 << 20
AWAY_RETRY_S = 0.5
_CHUNK = 128

_decode_headers = msgspec.msgpack.Decoder(type=tuple[tuple[str, bytes | None], ...]).decode
encode_headers = msgspec.msgpack.Encoder().encode


class Stream(msgspec.Struct, frozen=True, gc=False):
    """Which table has a partition, and its oldest offset."""

    id: int
    first: int


class SqliteReader(PartReader):
    """A reader of one process. A partition seen empty isn't asked again until somebody has written."""

    def __init__(self, log: SqliteLog, positions: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._empty: dict[TopicPartition, tuple[int, int, int]] = {}
        self._mark_now = 0
        self._of: frozenset[TopicPartition] = frozenset()
        self._away = False
        super().__init__(positions)

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._empty.clear()
        before, self._of = self._of, frozenset(positions)
        self._log.follow(self._of, before)
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
        if stream is not None and position >= stream.first:
            records = self._log.recent(tp, stream, position, max_records)
            if records:
                return Part(stream.id, stream.first, 0, records)
            try:
                records = select_records(self._log.connection, stream.id, position, max_records)
            except sqlite3.OperationalError as e:
                if "no such table" not in str(e):
                    raise
                stream = None
        if records and stream is not None and stream.first <= position == records[0].offset:
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

    async def close(self) -> None:
        await super().close()
        before, self._of = self._of, frozenset()
        self._log.follow(self._of, before)


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
            size += sum([len(row[3]) for row in rows if row[3] is not None])
            records += [
                StoredRecord(offset, timestamp, key, value, () if headers is None else _decode_headers(headers))
                for offset, timestamp, key, value, headers in rows
            ]
    finally:
        cursor.close()  # ends the read transaction
    return records
