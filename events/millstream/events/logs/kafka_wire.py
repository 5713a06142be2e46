"""Requests that aiokafka doesn't have, or has slower than a journal likes. Pure: bytes in, bytes out.

Written from the Kafka protocol guide. `Produce` and `Fetch` are packed by hand,
since every append and every read pays for them; the others are aiokafka schemas
of newer versions: topic ids in the metadata, instance ids in heartbeats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any, ClassVar, NamedTuple

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

_INT32 = struct.Struct(">i")


class _Bytes:
    """A header that is packed already: aiokafka's connection asks it to encode itself."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def encode(self) -> bytes:
        return self._data


class _Answered(NamedTuple):
    correlation_id: int


class _Packed:
    """What aiokafka's connection expects of a request, for one version packed by hand."""

    KEY: ClassVar[int]
    VERSION: ClassVar[int]
    NAME: ClassVar[str]

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> _Packed:
        low, high = versions.get(self.KEY, (0, -1))
        if not low <= self.VERSION <= high:
            raise IncompatibleBrokerVersion(f"the broker doesn't speak {self.NAME} version {self.VERSION}")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> _Bytes:
        name = client_id.encode()
        return _Bytes(struct.pack(">hhih", self.KEY, self.VERSION, correlation_id, len(name)) + name)

    def parse_response_header(self, data: BytesIO) -> _Answered:
        return _Answered(_INT32.unpack(data.read(4))[0])


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">h", len(data)) + data


class Produced(NamedTuple):
    """How one partition's batch ended. timestamp: the broker's, in ms; -1 where the sender's is kept."""

    topic: str
    partition: int
    error_code: int
    offset: int
    timestamp: int


class ProduceResponse:
    """Produce response v7."""

    @staticmethod
    def decode(data: BytesIO) -> list[Produced]:
        raw, at = data.getvalue(), data.tell()
        (topics,) = _INT32.unpack_from(raw, at)
        at += 4
        answers = []
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", raw, at)
            topic = raw[at + 2 : at + 2 + length].decode()
            at += 2 + length
            (partitions,) = _INT32.unpack_from(raw, at)
            at += 4
            for _ in range(partitions):
                partition, error, offset, timestamp, _first = struct.unpack_from(">ihqqq", raw, at)
                at += 30
                answers.append(Produced(topic, partition, error, offset, timestamp))
        return answers


class ProduceRequest(_Packed):
    """Produce v7, acks from all in-sync replicas. batches: topic -> [(partition, record batch)]."""

    KEY, VERSION, NAME = 0, 7, "Produce"
    RESPONSE_TYPE = ProduceResponse

    def __init__(self, batches: Mapping[str, Sequence[tuple[int, bytes | bytearray]]], *, timeout_ms: int) -> None:
        self._batches = batches
        self._timeout_ms = timeout_ms

    def encode(self) -> bytes:
        parts: list[bytes | bytearray] = [struct.pack(">hhii", -1, -1, self._timeout_ms, len(self._batches))]
        for topic, partitions in self._batches.items():
            parts += (_text(topic), _INT32.pack(len(partitions)))
            for partition, batch in partitions:
                parts += (struct.pack(">ii", partition, len(batch)), batch)
        return b"".join(parts)


class Fetched(NamedTuple):
    """What one partition had. end: the offset that its next record gets, -1 with an error."""

    topic: str
    partition: int
    error_code: int
    end: int
    first: int
    records: bytes


class FetchResponse:
    """Fetch response v11: (error code of the whole, parts)."""

    @staticmethod
    def decode(data: BytesIO) -> tuple[int, list[Fetched]]:
        raw, at = data.getvalue(), data.tell()
        _throttle, error_code, _session, topics = struct.unpack_from(">ihii", raw, at)
        at += 14
        parts = []
        for _ in range(topics):
            (length,) = struct.unpack_from(">h", raw, at)
            topic = raw[at + 2 : at + 2 + length].decode()
            at += 2 + length
            (partitions,) = _INT32.unpack_from(raw, at)
            at += 4
            for _ in range(partitions):
                partition, error, end, _stable, first, aborted = struct.unpack_from(">ihqqqi", raw, at)
                at += 34 + 16 * max(aborted, 0)
                _replica, size = struct.unpack_from(">ii", raw, at)
                at += 8
                records = raw[at : at + size] if size > 0 else b""
                at += max(size, 0)
                parts.append(Fetched(topic, partition, error, end, first, records))
        return error_code, parts


class FetchRequest(_Packed):
    """Fetch v11 without a session. positions: topic -> [(partition, offset)]; sizes in bytes."""

    KEY, VERSION, NAME = 1, 11, "Fetch"
    RESPONSE_TYPE = FetchResponse

    def __init__(
        self,
        positions: Mapping[str, Sequence[tuple[int, int]]],
        *,
        max_wait_ms: int,
        bytes_max: int,
        partition_bytes_max: int,
    ) -> None:
        self._positions = positions
        self._max_wait_ms = max_wait_ms
        self._bytes_max = bytes_max
        self._partition_bytes_max = partition_bytes_max

    def encode(self) -> bytes:
        parts = [
            # replica -1, at least 1 byte, read uncommitted, no session (0, -1)
            struct.pack(">iiiibiii", -1, self._max_wait_ms, 1, self._bytes_max, 0, 0, -1, len(self._positions))
        ]
        for topic, partitions in self._positions.items():
            parts += (_text(topic), _INT32.pack(len(partitions)))
            for partition, offset in partitions:
                parts.append(struct.pack(">iiqqi", partition, -1, offset, -1, self._partition_bytes_max))
        parts.append(struct.pack(">ih", 0, 0))
        return b"".join(parts)


class _Uuid(AbstractType[bytes]):
    """16 bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


NO_TOPIC_ID = bytes(16)


class _MetadataResponse_v10(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequest_v10(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse_v10
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataWithIds(Request[_MetadataRequest_v10]):
    """Metadata v10, the first with topic ids. Never makes a topic by asking for it."""

    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest_v10]) -> _MetadataRequest_v10:
        return request_struct_class([(NO_TOPIC_ID, topic, {}) for topic in self._topics], False, False, False, {})


class _HeartbeatResponse_v3(Response):
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = Schema(("throttle_time_ms", Int32), ("error_code", Int16))


class _HeartbeatRequest_v3(RequestStruct):
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse_v3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class Heartbeat(Request[_HeartbeatRequest_v3]):
    """Heartbeat v3, the first that names the instance: only so a member learns that another took its place."""

    API_KEY = 12

    def __init__(self, group: str, generation_id: int, member_id: str, instance_id: str) -> None:
        self._fields = (group, generation_id, member_id, instance_id)

    def build(self, request_struct_class: type[_HeartbeatRequest_v3]) -> _HeartbeatRequest_v3:
        return request_struct_class(*self._fields)


class _LeaveGroupResponse_v3(Response):
    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")), ("error_code", Int16)),
        ),
    )


class _LeaveGroupRequest_v3(RequestStruct):
    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = _LeaveGroupResponse_v3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("members", Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")))),
    )


class LeaveGroup(Request[_LeaveGroupRequest_v3]):
    """Leave v3, the first by which a static member can go for good."""

    API_KEY = 13

    def __init__(self, group: str, member_id: str, instance_id: str) -> None:
        self._group = group
        self._members: list[Any] = [(member_id, instance_id)]

    def build(self, request_struct_class: type[_LeaveGroupRequest_v3]) -> _LeaveGroupRequest_v3:
        return request_struct_class(self._group, self._members)
