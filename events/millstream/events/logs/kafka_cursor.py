"""One partition of a reader: what has been fetched, as it came, and the records that are taken out of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.record.memory_records import MemoryRecords

from millstream.events.errors import Stop
from millstream.events.logs.kafka_records import lenient_records
from millstream.events.logs.port import StoredRecord, TopicPartition

# Fetched ahead of the reader, for each partition: two full fetches.
AHEAD_BYTES_MAX = 2 * 1024 * 1024


class Cursor:
    """One partition: where its reader is, and what has been fetched beyond."""

    __slots__ = (
        "ahead",
        "bytes_ahead",
        "failure",
        "fetch_at",
        "opened",
        "position",
        "records",
        "topic_id",
        "tp",
        "was_read",
    )

    def __init__(self, tp: TopicPartition, position: int) -> None:
        self.tp = tp
        self.position = position
        self.fetch_at = position
        self.was_read = False
        self.topic_id: bytes | None = None
        # (batch, the fetch it came with, bytes that are free once it is read); what is being read is in `records`.
        self.ahead: deque[tuple[Any, bytes, int]] = deque()
        self.opened: tuple[int, bytes] = (0, b"")
        self.bytes_ahead = 0
        self.records: tuple[Iterator[StoredRecord], int, int] | None = None
        self.failure: Exception | None = None

    def add(self, data: bytes) -> None:
        """Keep the whole batches of a fetch; the broker may cut the last one off."""
        batches = MemoryRecords(data)
        while batches.has_next():
            batch = batches.next_batch()
            if batch.next_offset > self.fetch_at:
                # The whole fetch is one buffer: it is there until its last batch has been read.
                size = 0 if batches.has_next() else len(data)
                self.ahead.append((batch, data, size))
                self.bytes_ahead += size
                self.fetch_at = batch.next_offset

    def take(self, records_max: int) -> list[StoredRecord]:
        """The next records that are here, in order. Raises `Stop` where a batch can't be read."""
        taken: list[StoredRecord] = []
        while len(taken) < records_max:
            if self.records is None:
                if not self.ahead:
                    break
                self._open(*self.ahead.popleft())
                continue
            iterator, next_offset, size = self.records
            wanted = records_max - len(taken)
            position = self.position
            try:
                got = list(islice(iterator, wanted))
            except UnicodeDecodeError:
                base_offset, data = self.opened
                self.records = (lenient_records(data, base_offset), next_offset, size)
                continue
            # aiokafka's iterator begins anew, in the wrong place, when it is asked again after its end.
            ended = len(got) < wanted
            if got and got[0].offset < position:
                # A fetch begins with the whole batch that holds the offset.
                got = [record for record in got if record.offset >= position]
            taken += got
            if taken:
                self.position = taken[-1].offset + 1
            if ended:
                # The end of a batch may lie beyond its last record, where compaction took some out.
                self.position = max(self.position, next_offset)
                self.bytes_ahead -= size
                self.records = None
        if taken:
            self.was_read = True
        return taken

    def _open(self, batch: Any, data: bytes, size: int) -> None:
        if not batch.validate_crc():
            raise Stop(
                f"a batch of {self.tp.topic!r} partition {self.tp.partition} at offset {batch.base_offset} has a wrong"
                f" checksum: it was damaged on the broker's disk or on its way. Nothing was skipped. Read it again;"
                f" if it stays so, restore the partition from a replica."
            )
        if batch.is_control_batch:
            self.position = max(self.position, batch.next_offset)
            self.bytes_ahead -= size
            return
        self.opened = (batch.base_offset, data)
        self.records = (map(_stored, batch), batch.next_offset, size)

    @property
    def full(self) -> bool:
        return self.bytes_ahead >= AHEAD_BYTES_MAX


def _stored(r: Any) -> StoredRecord:
    return StoredRecord(r.offset, r.timestamp, r.key, r.value, tuple(r.headers))
