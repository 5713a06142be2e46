"""What every reader over a log that can be asked at any moment does alike: positions, refusals, waiting.

An adapter says what lies at a position (`Part`) and how to wait for more; the
rules about positions outside the log stand here once. Kafka's reader has its own fetcher.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

from millstream.events.errors import LogWentBack, OffsetOutOfRange, TopicMissing
from millstream.events.logs.port import StoredRecord, TopicPartition


class Part(NamedTuple):
    """What a partition has from a position on. incarnation: another one means that the topic was made again.

    end: the offset that the next record gets; only looked at where `records` is empty.
    """

    incarnation: int
    first: int
    end: int
    records: list[StoredRecord]


class PartReader(ABC):
    """A `Reader` over parts. Positions move only when `read` returns, so an error loses nothing."""

    def __init__(self, positions: Mapping[TopicPartition, int]) -> None:
        self._positions: dict[TopicPartition, int] = {}
        self._incarnations: dict[TopicPartition, int] = {}
        self._was_read: set[TopicPartition] = set()
        self._closed = False
        self.assign(positions)

    @abstractmethod
    def _mark(self) -> int:
        """A number that has changed by the time when something new can be read."""

    @abstractmethod
    def _part(self, tp: TopicPartition, position: int, max_records: int) -> Part | None:
        """What lies at `position`; None where there is no such topic or partition."""

    @abstractmethod
    async def _wait(self, mark: int, timeout_s: float | None) -> None:
        """Return when something may have come since `mark`, when `_poke` is called, or after the time-out."""

    @abstractmethod
    def _poke(self) -> None:
        """End a wait that is under way."""

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        kept = {tp for tp, position in positions.items() if self._positions.get(tp) == position}
        self._positions = dict(positions)
        self._incarnations = {tp: i for tp, i in self._incarnations.items() if tp in kept}
        self._was_read &= kept
        self._poke()

    def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    async def read(
        self, *, max_records: int = 1000, timeout_s: float | None = None
    ) -> dict[TopicPartition, list[StoredRecord]]:
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not self._closed:
            mark = self._mark()
            got = self._collect(max_records)
            if got:
                return got
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return {}
            await self._wait(mark, left)
        return {}

    def _collect(self, max_records: int) -> dict[TopicPartition, list[StoredRecord]]:
        got: dict[TopicPartition, list[StoredRecord]] = {}
        for tp, position in self._positions.items():
            part = self._part(tp, position, max_records)
            if part is None:
                raise TopicMissing(
                    f"{tp.topic!r} partition {tp.partition} is not on the log (any more), and was to be read from"
                    f" offset {position}. It was deleted, or never made: check the address and the prefix."
                )
            self._check(tp, position, part)
            if part.records:
                got[tp] = part.records
        for tp, records in got.items():
            self._positions[tp] = records[-1].offset + 1
            self._was_read.add(tp)
        return got

    def _check(self, tp: TopicPartition, position: int, part: Part) -> None:
        known = self._incarnations.setdefault(tp, part.incarnation)
        if known != part.incarnation:
            raise LogWentBack(
                f"{tp.topic!r} was deleted and made again while partition {tp.partition} was read up to {position}."
                f" What lies at that offset now is something else. Read it from {part.first}, as a new topic."
            )
        if position < part.first:
            raise OffsetOutOfRange(tp.topic, tp.partition, position, part.first, part.end)
        if part.records or position <= part.end:
            return
        if tp in self._was_read:
            raise LogWentBack(
                f"{tp.topic!r} partition {tp.partition} was read up to {position} and now ends at {part.end}."
                f" The log was cut or restored from an older copy. Compare the copies before anything goes on."
            )
        raise OffsetOutOfRange(tp.topic, tp.partition, position, part.first, part.end)

    async def close(self) -> None:
        self._closed = True
        self._poke()
