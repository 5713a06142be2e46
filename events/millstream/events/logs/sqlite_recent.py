"""The newest records of a partition, as this process has appended them.

Owner and gateway in one process read what the process itself has just written; from here
that costs a tenth of a select. Only whole committed batches come in, in order and
without a gap, so what is here is what the file has.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.events.logs.port import Record, StoredRecord

RECENT_BYTES_MAX = 2 << 20
"""Kept of each partition that a reader of this process follows; over it the older half goes."""


class Recent:
    """Of one partition, which may be made anew: `stream` says which creation of it is meant."""

    __slots__ = ("_first", "_records", "_size", "_stream")

    def __init__(self) -> None:
        self._records: list[StoredRecord] = []
        self._stream = -1
        self._first = 0
        self._size = 0

    def add(self, stream: int, base: int, at: int, records: Sequence[Record], size: int) -> None:
        """A batch of ours, `size` bytes, was committed at offset `base` and time `at`."""
        kept = self._records
        if stream != self._stream or base != self._first + len(kept):
            # Another process has written in between, or the topic is another one: begin anew.
            kept.clear()
            self._stream, self._first, self._size = stream, base, 0
        for offset, r in enumerate(records, base):
            kept.append(StoredRecord(offset, at, r.key, r.value, tuple(r.headers)))
        self._size += size
        while self._size > RECENT_BYTES_MAX:
            half = (len(kept) + 1) // 2
            del kept[:half]
            self._first += half
            self._size = sum(len(r.value or b"") for r in kept)

    def read(self, stream: int, position: int, max_records: int) -> list[StoredRecord]:
        """Records from `position` on; empty where it isn't here."""
        start = position - self._first
        if stream != self._stream or start < 0:
            return []
        return self._records[start : start + max_records]
