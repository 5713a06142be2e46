"""How large a record and a batch are, and the refusals for those too large. Pure; every adapter asks here first.

A size is key, value and headers together, in bytes, without what a log adds of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.events.errors import BatchTooLarge, RecordTooLarge
from millstream.events.logs.port import Header, LogLimits, Record


def record_bytes(record: Record) -> int:
    """Bytes of key, value and headers of one record."""
    size = (len(record.value) if record.value is not None else 0) + (len(record.key) if record.key is not None else 0)
    return size + _header_bytes(record.headers) if record.headers else size


def batch_bytes(topic: str, records: Sequence[Record], limits: LogLimits) -> int:
    """Bytes of the whole batch, or `RecordTooLarge` / `BatchTooLarge`; `ValueError` for a batch of nothing.

    The batch limit is on several records together: a single one is under the record limit only.
    """
    if not records:
        raise ValueError(f"a batch for {topic!r} has no records; there is nothing to append")
    sizes = [record_bytes(record) for record in records]
    largest, total = max(sizes), sum(sizes)
    if largest > limits.record_bytes_max:
        raise RecordTooLarge(topic, largest, limits.record_bytes_max)
    if total > limits.batch_bytes_max and len(records) > 1:
        raise BatchTooLarge(topic, total, limits.batch_bytes_max, len(records))
    return total


def _header_bytes(headers: Sequence[Header]) -> int:
    size = 0
    for name, value in headers:
        size += len(name) if name.isascii() else len(name.encode())
        if value is not None:
            size += len(value)
    return size
