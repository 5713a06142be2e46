"""What the embedded log's writer is given to do, and how it tells of an end that nobody knows."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from millstream.events.errors import AppendUnknown
from millstream.events.logs.port import Appended, Record, TopicPartition

STUCK_S = 10.0
"""An append that has waited so long for lock or disk ends as unknown, unless the log was opened with another time."""

Row = tuple[bytes | None, bytes | None, bytes | None]
"""Key, value, headers as MessagePack (None: no headers)."""


class Work:
    """Something for the writer. `abandoned`: nobody waits any more; if it has not begun it never will."""

    __slots__ = ("abandoned", "future", "since")

    def __init__(self, future: asyncio.Future[Any], since: float) -> None:
        self.future = future
        self.since = since
        self.abandoned = False


class Append(Work):
    """A batch for one partition: the records, and as rows. size: bytes."""

    __slots__ = ("records", "rows", "size", "tp")

    def __init__(
        self,
        future: asyncio.Future[Appended],
        since: float,
        tp: TopicPartition,
        records: Sequence[Record],
        rows: list[Row],
        size: int,
    ) -> None:
        super().__init__(future, since)
        self.tp = tp
        self.records = records
        self.rows = rows
        self.size = size


Do = Callable[[sqlite3.Connection], Any]


class Job(Work):
    """Anything else that writes: `do` runs in a transaction of its own. groups: does its result mean a change of a group?"""

    __slots__ = ("do", "groups")

    def __init__(self, future: asyncio.Future[Any], since: float, do: Do, groups: Callable[[Any], bool] | None) -> None:
        super().__init__(future, since)
        self.do = do
        self.groups = groups


def unknown(why: str) -> AppendUnknown:
    """The end of an append that may have landed."""
    return AppendUnknown(f"{why}. It may have landed or not: read the log.")


def no_topic(tp: TopicPartition) -> AppendUnknown:
    """The end of an append to nowhere."""
    return AppendUnknown(
        f"{tp.topic!r} partition {tp.partition} is not on this log; nothing was appended. Make the topic first."
    )
