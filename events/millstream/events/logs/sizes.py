"""How large a record and a batch are, and the refusals for too large ones. Pure; every adapter asks here first.

A size is key, value and headers together, in bytes, without what a log adds of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.events.errors import BatchTooLarge, RecordTooLarge
from millstream.events.logs.port import LogLimits, Record


def record_bytes(record: Record) -> int:
    """Bytes of key, value and headers of one record."""
    size = len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name.encode()) + len(value or b"")
    return size


def batch_bytes(topic: str, records: Sequence[Record], limits: LogLimits) -> int:
    """Bytes of the whole batch, or `RecordTooLarge` / `BatchTooLarge`; `ValueError` for a batch of nothing.

    The batch limit is on several records together: a single one is under the record limit only.
    """
    if not records:
        raise ValueError(f"a batch for {topic!r} has no records; there is nothing to append")
    total = 0
    for record in records:
        size = record_bytes(record)
        if size > limits.record_bytes_max:
            raise RecordTooLarge(topic, size, limits.record_bytes_max)
        total += size
    if total > limits.batch_bytes_max and len(records) > 1:
        raise BatchTooLarge(topic, total, limits.batch_bytes_max, len(records))
    return total
