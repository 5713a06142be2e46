"""What a log promises. Three adapters keep it: Kafka, SQLite, memory.

A log has topics; a topic has partitions; a partition is an ordered list of
records with dense or growing offsets. An append is atomic for its whole batch
and returns the base offset, or its end is *unknown*, and then nothing may be
concluded from it (`AppendUnknown`). Nothing here knows what a record means.

One conformance suite, `tests/logs/`, runs over all adapters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

Header = tuple[str, bytes | None]


class TopicPartition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """What is appended: bytes only. Headers keep their order; a name may occur twice, a value may be null."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[Header] = ()


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """What is read. `timestamp` is the log's append time in milliseconds since the epoch, UTC."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header] = ()


class Appended(NamedTuple):
    """How an append ended: the offset of its first record, and the log's time in milliseconds (-1: not told)."""

    offset: int
    timestamp: int


class Bounds(NamedTuple):
    """`first`: the oldest offset still there; `end`: the offset that the next record gets."""

    first: int
    end: int


Cleanup = Literal["delete", "compact"]


class TopicSpec(msgspec.Struct, frozen=True):
    """A topic as we make it and as we expect to find it.

    `keep_forever`: no retention by time or size; whoever finds another setting refuses to use the topic.
    `log_append_time`: the log stamps the records, not the sender.
    """

    name: str
    partitions: int
    cleanup: Cleanup = "delete"
    keep_forever: bool = True
    log_append_time: bool = True


class LogLimits(msgspec.Struct, frozen=True):
    """Sizes in bytes that the log takes: one record (key, value and headers together), and one batch."""

    record_bytes_max: int = 1_000_000
    batch_bytes_max: int = 900_000


class Reader(Protocol):
    """Reads any number of partitions in order, each from its own position. One task at a time may call it."""

    async def read(
        self, *, max_records: int = 1000, timeout_s: float | None = None
    ) -> dict[TopicPartition, list[StoredRecord]]:
        """Wait until there is something, or `timeout_s` passed (then an empty dict), and return it.

        At most `max_records` a partition. Raises `OffsetOutOfRange` where a position is outside
        the log (never skips), `LogWentBack` where the log ended below the position that was read,
        `TopicMissing` where a topic was deleted. A log that is away is waited for, and said once.
        """
        ...

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Replace the whole set of partitions. A partition with position p next reads offset p."""
        ...

    def position(self, tp: TopicPartition) -> int:
        """The next offset that `read` will return for this partition."""
        ...

    async def close(self) -> None: ...


class Group(Protocol):
    """A membership that hands the partitions of topics out to the live members of a group.

    A group never fences anything: it only says who should do the work (journal protocol, "Groups").
    Members are static: one that comes back under the same instance id within the session
    time-out gets its partitions back without anybody else noticing.
    """

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """What is assigned to this member now."""
        ...

    @property
    def generation(self) -> int:
        """Grows at each new assignment, also one that changes nothing."""
        ...

    async def changed(self, since_generation: int) -> frozenset[TopicPartition]:
        """Wait until `generation` is over `since_generation`; return the assignment.

        Raises `InstanceInUse` where another process has joined under this instance id.
        """
        ...

    def silent_for_s(self) -> float:
        """Seconds since this member last heard from the group's coordinator."""
        ...

    @property
    def session_timeout_s(self) -> float: ...

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Store the next position to read, for whoever gets the partition next."""
        ...

    async def committed(self, tp: TopicPartition) -> int | None:
        """The position last committed for this group, or None (never, or it has expired)."""
        ...

    async def close(self, *, leave: bool = False) -> None:
        """Stop being a member. With `leave` the partitions are handed on at once, else after the session time-out."""
        ...


class Log(Protocol):
    """A log. Use as `async with open_log(address) as log:`; also every adapter is such a context manager."""

    @property
    def limits(self) -> LogLimits: ...

    @property
    def kind(self) -> Literal["kafka", "embedded", "memory"]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def identity(self) -> str:
        """An id of this very log (Kafka's cluster id; a random one made with the file)."""
        ...

    async def ensure_topic(self, spec: TopicSpec) -> None:
        """Make the topic where it is missing, then compare it with `spec`.

        Raises `TopicSettingsUnsafe` or `PartitionCountMismatch`, naming setting, expected and found.
        """
        ...

    async def delete_topic(self, topic: str) -> None: ...

    async def partitions(self, topic: str) -> int | None:
        """How many partitions the topic has, or None where there is no such topic."""
        ...

    async def append(self, topic: str, partition: int, records: Sequence[Record]) -> Appended:
        """Append the whole batch, durably, or nothing of it.

        Raises `RecordTooLarge` / `BatchTooLarge` before anything is sent, and `AppendUnknown` for
        every other end. While an append to a partition is under way the caller starts no other one there
        if their order matters.
        """
        ...

    async def retire(self) -> None:
        """Make sure that nothing sent so far is tried again by us; a new producer is made at the next append.

        Appends under way end as `AppendUnknown`.
        """
        ...

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader: ...

    async def bounds(self, topic: str, partition: int) -> Bounds: ...

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Forget what lies below `offset`. Offsets of what stays do not change."""
        ...

    async def join(
        self, group: str, topics: Sequence[str], *, instance_id: str, session_timeout_s: float | None = None
    ) -> Group: ...

    async def __aenter__(self) -> Log: ...

    async def __aexit__(self, *exc: object) -> None: ...


Notice = Callable[[str], None]
"""Where an adapter says, once, that it waits for the log and that it has come back."""


async def read_range(
    log: Log, topic: str, partition: int, start: int, end: int, *, max_records: int = 1000
) -> AsyncIterator[list[StoredRecord]]:
    """Batches of the records with start <= offset < end. Reads to the end even where offsets have gaps."""
    if start >= end:
        return
    tp = TopicPartition(topic, partition)
    reader = log.reader({tp: start})
    try:
        while reader.position(tp) < end:
            got = (await reader.read(max_records=max_records, timeout_s=1.0)).get(tp)
            if not got:
                if (await log.bounds(topic, partition)).end < end:
                    return
                continue
            if got[-1].offset >= end:
                got = [r for r in got if r.offset < end]
            if got:
                yield got
    finally:
        await reader.close()
