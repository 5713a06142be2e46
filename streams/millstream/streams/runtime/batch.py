"""What one append will hold: transitions decided on the tentative state, and all that follows once it is proved."""

from __future__ import annotations

from millstream.events.envelope import Fence
from millstream.events.logs.port import Record
from millstream.streams.runtime.outbox import Pending

BATCH_BYTES_MAX = 512 * 1024
BATCH_RECORDS_MAX = 1000
RECORD_OVERHEAD_BYTES = 120
"""What key, headers and framing add to a transition's own bytes, at most: a run id of 255 bytes is counted apart."""


class Batch:
    """Records for one append, the store rows that they fold to, and the outputs that they send.

    base: the offset that the first record is expected to get; it is the proof.
    """

    __slots__ = ("base", "bytes", "fence", "outputs", "records", "rows")

    def __init__(self, base: int, fence: Fence) -> None:
        self.base = base
        self.fence = fence
        self.records: list[Record] = []
        self.bytes = 0
        self.rows: dict[bytes, bytes | None] = {}
        self.outputs: list[Pending] = []

    def takes(self, size: int) -> bool:
        """Whether a record of `size` bytes still fits. The first always does: it was measured against the log's limit."""
        return not self.records or (self.bytes + size <= BATCH_BYTES_MAX and len(self.records) < BATCH_RECORDS_MAX)

    def add(self, record: Record, size: int, fence: Fence) -> None:
        self.records.append(record)
        self.bytes += size
        self.fence = fence

    @property
    def end(self) -> int:
        """The offset behind its last record, if it lands where it is expected."""
        return self.base + len(self.records)
