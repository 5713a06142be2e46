"""Look at the journal and at the reports while they grow, as any reader of the log can."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

from millstream.events.codec import Codec
from millstream.events.envelope import read_fence_header
from millstream.events.flight import DayReport
from millstream.events.logs.port import Log, StoredRecord, TopicPartition
from millstream.events.topics import STREAM_PARTITIONS, Topics
from millstream.streams.runtime.answers import JournalTail
from millstream.streams.runtime.client import follow

_FLIGHT = re.compile(rb"flights/\d+/\d+")


class Entered:
    """Counts the flights that the journal has taken, and notices when a new owner goes on.

    `progress` is told the count; `reached` is set when it is `middle`.
    """

    def __init__(self, log: Log, topics: Topics, middle: int, progress: Callable[[int], None]) -> None:
        self._tail = JournalTail(log, topics, self._take)
        self._middle, self._progress = middle, progress
        self._causes: set[bytes] = set()
        self._claims: dict[int, int] = {}
        self.reached = asyncio.Event()
        self.went_on = asyncio.Event()
        self.went_on_at: float | None = None

    async def run(self) -> None:
        await self._tail.run(await self._tail.start())

    @property
    def count(self) -> int:
        return len(self._causes)

    def _take(self, partition: int, record: StoredRecord, cause: bytes | None) -> None:
        mark = read_fence_header(record.headers)
        if mark is not None and self._claims.setdefault(partition, mark.claim_id) != mark.claim_id:
            self._claims[partition] = mark.claim_id
            if self.reached.is_set() and not self.went_on.is_set():
                self.went_on_at = time.monotonic()
                self.went_on.set()
        if cause is not None and _FLIGHT.fullmatch(cause):
            self._causes.add(cause)
            if len(self._causes) == self._middle:
                self.reached.set()
            self._progress(len(self._causes))


class Reports:
    """The reports by (carrier, day). The stream may repeat one, with the same event id; another id would be a mistake."""

    def __init__(self, expected: int, progress: Callable[[int], None]) -> None:
        self._expected, self._progress = expected, progress
        self.found: dict[tuple[str, str], DayReport] = {}
        self.repeated = 0
        self.doubled: list[str] = []
        self.complete = asyncio.Event()

    async def run(self, log: Log, topics: Topics, codec: Codec) -> None:
        topic = topics.stream("reports")
        positions = {TopicPartition(topic, p): (await log.bounds(topic, p)).first for p in range(STREAM_PARTITIONS)}
        async for _, record in follow(log, positions):
            report = codec.decode(record.value or b"")
            assert isinstance(report, DayReport)
            self._take(report)

    def _take(self, report: DayReport) -> None:
        key = (report.carrier, report.day)
        first = self.found.setdefault(key, report)
        if first is not report:
            if first.event_id == report.event_id:
                self.repeated += 1
            else:
                self.doubled.append(f"{report.carrier} {report.day}: {first.event_id} and {report.event_id}")
        self._progress(len(self.found))
        if len(self.found) >= self._expected:
            self.complete.set()
