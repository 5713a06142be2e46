"""Ask a port whether a Kafka answers there, with one hand-made metadata request.

A port that is open is not a broker that works: Kafka opens its socket seconds
before it has registered with its controller. Format: Kafka protocol, Metadata v4.
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_METADATA, _VERSION, _CLIENT = 3, 4, b"millstream"


class Answer(NamedTuple):
    """What a Kafka said of itself. `brokers` counts the registered ones: none, while it still starts."""

    cluster_id: str
    brokers: int


def ask(port: int, *, host: str = "127.0.0.1", timeout_s: float = 2.0) -> Answer | None:
    """The answer of the Kafka on this port, or None where nobody answers, or not as a Kafka does."""
    header = struct.pack(f">hhih{len(_CLIENT)}s", _METADATA, _VERSION, 1, len(_CLIENT), _CLIENT)
    message = header + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as sock:
            sock.sendall(struct.pack(">i", len(message)) + message)
            (size,) = struct.unpack(">i", _exactly(sock, 4))
            return _parse(_exactly(sock, size)) if 0 < size < 1_000_000 else None
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise ConnectionError("closed in the middle of an answer")
        parts += part
    return bytes(parts)


def _parse(data: bytes) -> Answer:
    _correlation, _throttle, brokers = struct.unpack_from(">iii", data)
    at = 12
    for _ in range(brokers):
        _host, at = _string(data, at + 4)
        _rack, at = _string(data, at + 4)
    cluster_id, _ = _string(data, at)
    return Answer(cluster_id or "", brokers)


def _string(data: bytes, at: int) -> tuple[str | None, int]:
    (length,) = struct.unpack_from(">h", data, at)
    if length < 0:
        return None, at + 2
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
