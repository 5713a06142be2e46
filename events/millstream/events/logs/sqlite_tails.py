"""Where each partition ends, and how rows are put there. Used by the embedded log's writer, inside its transactions."""

from __future__ import annotations

import sqlite3
from typing import Any

from millstream.events.logs.port import Appended, TopicPartition
from millstream.events.logs.sqlite_work import Append, Row, Work, no_topic

# Statements of few sizes: each is parsed once a table, and 1000 rows take 9 calls instead of 1000. Every call gives
# the interpreter's lock away and has to get it back.
INSERT_SIZES = (256, 64, 16, 4, 1)
COMPACT_EVERY = 1_000
"""A compacted partition is compacted whenever its end passes a multiple of this."""

Landed = tuple[Append, int, Appended]
"""A batch that was committed, the stream's id, and where."""


class Tail:
    """The writer's memory of a partition's end; good as long as no other connection has written."""

    __slots__ = ("compact", "next", "stream")

    def __init__(self, stream: int, next_offset: int, compact: bool) -> None:
        self.stream = stream
        self.next = next_offset
        self.compact = compact


class Tails:
    """The ends known so far. In order: `look_for_others`, `place`, `insert`; `forget` after anything went wrong."""

    def __init__(self) -> None:
        self._known: dict[TopicPartition, Tail] = {}
        self._inserts: dict[tuple[int, int], str] = {}
        self._version = -1

    def forget(self) -> None:
        self._known.clear()

    def look_for_others(self, connection: sqlite3.Connection) -> None:
        """Inside a transaction: forget what we know of ends if any other connection has written since."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._known.clear()

    def place(
        self,
        connection: sqlite3.Connection,
        group: list[Append],
        at: int,
        landed: list[Landed],
        refused: list[tuple[Work, Any]],
    ) -> int:
        """Give each batch its offset; returns the group's timestamp, no lower than any in its partitions."""
        tails: list[Tail | None] = []
        for work in group:
            tail = self._known.get(work.tp)
            if tail is None:
                tail, newest_ms = self._load(connection, work.tp)
                at = max(at, newest_ms)
            tails.append(tail)
        for work, tail in zip(group, tails, strict=True):
            if work.abandoned:
                continue
            if tail is None:
                refused.append((work, no_topic(work.tp)))
                continue
            landed.append((work, tail.stream, Appended(tail.next, at)))
            tail.next += len(work.rows)
        return at

    def insert(self, connection: sqlite3.Connection, landed: list[Landed], at: int) -> None:
        """One list of rows a partition, so that many small batches are few statements too."""
        together: dict[TopicPartition, tuple[int, list[Row]]] = {}
        for work, _, where in landed:
            found = together.get(work.tp)
            if found is None:
                together[work.tp] = (where.offset, work.rows)
            else:
                found[1].extend(work.rows)
        for tp, (base, rows) in together.items():
            self._insert_rows(connection, self._known[tp], base, rows, at)

    def _load(self, connection: sqlite3.Connection, tp: TopicPartition) -> tuple[Tail | None, int]:
        found = connection.execute(
            "SELECT id, first, cleanup FROM streams JOIN topics USING (topic) WHERE topic = ? AND partition = ?",
            tp,
        ).fetchone()
        if found is None:
            return None, 0
        stream, first, cleanup = found
        newest = connection.execute(
            f'SELECT "offset", timestamp FROM records_{stream} ORDER BY "offset" DESC LIMIT 1'  # noqa: S608 - a number
        ).fetchone()
        end, newest_ms = (newest[0] + 1, newest[1]) if newest else (first, 0)
        tail = self._known[tp] = Tail(stream, max(end, first), cleanup == "compact")
        return tail, newest_ms

    def _insert_rows(self, connection: sqlite3.Connection, tail: Tail, offset: int, rows: list[Row], at: int) -> None:
        i = 0
        for size in INSERT_SIZES:
            while len(rows) - i >= size:
                values: list[Any] = []
                for key, value, headers in rows[i : i + size] if size < len(rows) else rows:
                    values += (offset, at, key, value, headers)
                    offset += 1
                connection.execute(self._sql(tail.stream, size), values)
                i += size
        # Judged by the offset, since several processes may append by turns.
        if tail.compact and offset // COMPACT_EVERY > (offset - len(rows)) // COMPACT_EVERY:
            _compact(connection, tail.stream)

    def _sql(self, stream: int, size: int) -> str:
        sql = self._inserts.get((stream, size))
        if sql is None:
            marks = ",".join(["(?,?,?,?,?)"] * size)
            sql = self._inserts[stream, size] = f"INSERT INTO records_{stream} VALUES {marks}"  # noqa: S608
        return sql


def _compact(connection: sqlite3.Connection, stream: int) -> None:
    """Keep the newest record of each key. Offsets of what stays don't change."""
    table = f"records_{stream}"
    connection.execute(
        f'DELETE FROM {table} WHERE key IS NOT NULL AND "offset" NOT IN'  # noqa: S608 - the name is a number
        f' (SELECT max("offset") FROM {table} WHERE key IS NOT NULL GROUP BY key)'
    )
