"""Read a record batch whose header names aren't UTF-8. Pure, slow, and only for such a batch.

The format asks for UTF-8 names and no broker checks them; aiokafka's reader can't go
past the first that breaks the rule, and one such record must not stop a partition.
Format: Kafka's record batch, version 2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from millstream.events.logs.port import Header, StoredRecord

_FIRST_RECORD = 61
_COMPRESSION = 0x07
_LOG_APPEND_TIME = 0x08


def lenient_records(data: bytes, base_offset: int) -> Iterator[StoredRecord]:
    """The records of the batch with this base offset in `data`. Bytes of a name that aren't UTF-8 become `\\xff`.

    Raises `ValueError` where the batch is compressed or isn't there.
    """
    at = 0
    while at + _FIRST_RECORD <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        if base == base_offset:
            yield from _batch(data, at)
            return
        at += 12 + length
    raise ValueError(f"no batch at offset {base_offset}")


def _batch(data: bytes, at: int) -> Iterator[StoredRecord]:
    base, _length, _epoch, _magic, _crc, attributes, _last, first_ms, max_ms = struct.unpack_from(
        ">qiibihiqq", data, at
    )
    if attributes & _COMPRESSION:
        raise ValueError("it is compressed")
    (count,) = struct.unpack_from(">i", data, at + _FIRST_RECORD - 4)
    at += _FIRST_RECORD
    for _ in range(count):
        size, at = _varint(data, at)
        end = at + size
        delta_ms, at = _varint(data, at + 1)
        delta, at = _varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        names, at = _varint(data, at)
        headers: list[Header] = []
        for _ in range(names):
            name, at = _bytes(data, at)
            header, at = _bytes(data, at)
            headers.append(((name or b"").decode(errors="backslashreplace"), header))
        stamp = max_ms if attributes & _LOG_APPEND_TIME else first_ms + delta_ms
        yield StoredRecord(base + delta, stamp, key, value, tuple(headers))
        at = end


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = _varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag number of 7 bits a byte, the lowest first, and where the next field begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
