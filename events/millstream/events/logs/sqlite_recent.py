"""The newest records of a partition, as this process has appended them.

Owner and gateway in one process read what the process itself has just written; from here
that costs a tenth of a select. Only whole committed batches come in, in order and
without a gap, so what is here is what the file has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from millstream.events.logs.port import Record, StoredRecord

RECENT_BYTES_MAX = 1 << 20
"""Kept of each partition that a reader of this process follows."""


class _Batch:
    __slots__ = ("at", "base", "records", "size", "stored")

    def __init__(self, base: int, at: int, records: Sequence[Record], size: int) -> None:
        self.base = base
        self.at = at
        self.records = records
        self.size = size
        self.stored: list[StoredRecord] | None = None

    def read(self) -> list[StoredRecord]:
        if self.stored is None:
            at = self.at
            self.stored = [
                StoredRecord(offset, at, r.key, r.value, tuple(r.headers))
                for offset, r in enumerate(self.records, self.base)
            ]
        return self.stored


class Recent:
    """Of one partition. stream: which creation of it."""

    __slots__ = ("_batches", "_end", "_size", "_stream")

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()
        self._stream = -1
        self._end = 0
        self._size = 0

    def add(self, stream: int, base: int, at: int, records: Sequence[Record], size: int) -> None:
        """A batch of ours was committed at offset `base` and time `at`."""
        batches = self._batches
        if stream != self._stream or base != self._end:
            # Another process has written in between, or the topic is another one: begin anew.
            batches.clear()
            self._size = 0
            self._stream = stream
        batches.append(_Batch(base, at, records, size))
        self._end = base + len(records)
        self._size += size
        while self._size > RECENT_BYTES_MAX and len(batches) > 1:
            self._size -= batches.popleft().size

    def read(self, stream: int, position: int, max_records: int) -> list[StoredRecord]:
        """Records from `position` on; empty where it isn't here."""
        if stream != self._stream or position >= self._end:
            return []
        batches = self._batches
        first = len(batches)
        while first > 0 and batches[first - 1].base > position:
            first -= 1
        if first == 0:
            return []  # older than what is kept
        first -= 1
        got = batches[first].read()[position - batches[first].base :]
        for i in range(first + 1, len(batches)):
            if len(got) >= max_records:
                break
            got += batches[i].read()
        return got[:max_records]
