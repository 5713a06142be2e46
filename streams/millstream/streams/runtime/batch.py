"""What one append will hold: transitions decided on the tentative state, and all that follows once it is proved."""

from __future__ import annotations

from millstream.events.envelope import Fence, Sent
from millstream.events.logs.port import Record
from millstream.streams.runtime.outbox import Pending

BATCH_BYTES_MAX = 512 * 1024
BATCH_RECORDS_MAX = 1000
RECORD_OVERHEAD_BYTES = 120
"""What headers and framing add to a transition's own bytes and its run id, at most; the command id is counted apart."""


class Batch:
    """Records for one append, the store rows that they fold to, and the outputs that they send.

    base: the offset that the first record is expected to get; it is the proof. number, command_offset, sent: of the
    last record in it.
    """

    __slots__ = (
        "base",
        "bytes",
        "claim_id",
        "command_offset",
        "epoch_offset",
        "number",
        "outputs",
        "records",
        "rows",
        "sent",
    )

    def __init__(self, base: int, before: Fence) -> None:
        self.base = base
        self.epoch_offset, self.claim_id = before.epoch_offset, before.claim_id
        self.number, self.command_offset, self.sent = before.number, before.command_offset, before.sent
        self.records: list[Record] = []
        self.bytes = 0
        self.rows: dict[bytes, bytes | None] = {}
        self.outputs: list[Pending] = []

    def takes(self, size: int) -> bool:
        """Whether a record of `size` bytes still fits. The first always does: it was measured against the log's limit."""
        return not self.records or (self.bytes + size <= BATCH_BYTES_MAX and len(self.records) < BATCH_RECORDS_MAX)

    def add(self, record: Record, size: int, *, command_offset: int, sent: Sent | None) -> None:
        self.records.append(record)
        self.bytes += size
        self.number += 1
        self.command_offset = command_offset
        if sent is not None:
            self.sent = sent

    @property
    def end(self) -> int:
        """The offset behind its last record, if it lands where it is expected."""
        return self.base + len(self.records)

    @property
    def fence(self) -> Fence:
        """The fence behind its last record, if it lands where it is expected."""
        return Fence(self.end - 1, self.epoch_offset, self.claim_id, self.number, self.command_offset, self.sent)
