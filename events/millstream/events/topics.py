"""Names, keys and partitions: where a record goes. Pure.

A run lives on one partition, the same number in `commands` and in `journal`:
Kafka's murmur2 of the run id, modulo the partition count, as Java's default
partitioner does it. Source of murmur2: Austin Appleby's MurmurHash2 in the form
of org.apache.kafka.common.utils.Utils.murmur2 (seed 0x9747b28c).
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from millstream.events.errors import BadId
from millstream.events.logs.port import TopicSpec

EMBEDDED_PARTITIONS = 4
KAFKA_PARTITIONS = 16
STREAM_PARTITIONS = 4
DEFAULT_PREFIX = "millstream"

RUN_ID_BYTES_MAX = 255
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@=+/-]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
ALLOWED_RUN_ID = (
    f"1 to {RUN_ID_BYTES_MAX} characters of A-Z a-z 0-9 _ . : @ = + / -, beginning with a letter, digit or _,"
    " and no part between slashes that is empty, '.' or '..'"
)


# Asked for each command, at both ends of the log, mostly about the same runs.
@lru_cache(maxsize=65_536)
def _is_run_id(run_id: str) -> bool:
    return _RUN_ID.fullmatch(run_id) is not None and not any(part in ("", ".", "..") for part in run_id.split("/"))


def check_run_id(run_id: str) -> str:
    """Return `run_id`, or raise `BadId` naming the allowed set. Equal text is the only equality: no folding of case."""
    # The length first: what is remembered must be short.
    if not isinstance(run_id, str) or len(run_id) > RUN_ID_BYTES_MAX or not _is_run_id(run_id):
        shown = repr(run_id if len(run_id) <= 60 else run_id[:57] + "...")
        raise BadId(f"run id {shown} is not allowed. A run id is {ALLOWED_RUN_ID}.")
    return run_id


def check_name(what: str, name: str) -> str:
    """Return `name` if it can be part of a topic name, else raise `BadId`. `what` names it: 'prefix', 'stream'."""
    if not _NAME.fullmatch(name) or len(name) > 100 or ".." in name:
        raise BadId(
            f"{what} {name[:60]!r} is not allowed. It is 1 to 100 characters of A-Z a-z 0-9 _ . -,"
            f" beginning with a letter, digit or _."
        )
    return name


def murmur2(data: bytes) -> int:
    """The 32-bit hash, unsigned, that Kafka's Java clients compute of a key."""
    length = len(data)
    m = 0x5BD1E995
    h = (0x9747B28C ^ length) & 0xFFFFFFFF
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * m) & 0xFFFFFFFF
        k ^= k >> 24
        k = (k * m) & 0xFFFFFFFF
        h = ((h * m) & 0xFFFFFFFF) ^ k
    rest = length - whole
    if rest == 3:
        h ^= data[whole + 2] << 16
    if rest >= 2:
        h ^= data[whole + 1] << 8
    if rest >= 1:
        h ^= data[whole]
        h = (h * m) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * m) & 0xFFFFFFFF
    return h ^ (h >> 15)


@lru_cache(maxsize=65_536)
def partition_of(run_id: str, partitions: int) -> int:
    """The partition on which this run lives: `(murmur2(run_id) & 0x7fffffff) % partitions`."""
    return (murmur2(run_id.encode()) & 0x7FFFFFFF) % partitions


class Topics(msgspec.Struct, frozen=True):
    """The topics of one prefix. `partitions` is fixed for the life of the prefix."""

    prefix: str
    partitions: int

    @property
    def commands(self) -> str:
        return f"{self.prefix}.commands"

    @property
    def journal(self) -> str:
        return f"{self.prefix}.journal"

    @property
    def schemas(self) -> str:
        return f"{self.prefix}.schemas"

    @property
    def fences(self) -> str:
        """Compacted: partition number -> newest proved fence, so that a client can begin near the end."""
        return f"{self.prefix}.fences"

    @property
    def dead_letters(self) -> str:
        return f"{self.prefix}.dead-letters"

    @property
    def owners_group(self) -> str:
        return f"{self.prefix}.owners"

    def kernel(self, name: str) -> str:
        return f"{self.prefix}.kernels.{check_name('kernel', name)}"

    def kernel_group(self, name: str) -> str:
        return f"{self.prefix}.kernels.{name}"

    def stream(self, name: str) -> str:
        return f"{self.prefix}.streams.{check_name('stream', name)}"

    def partition_of(self, run_id: str) -> int:
        return partition_of(run_id, self.partitions)

    def specs(self) -> list[TopicSpec]:
        """The topics that a prefix always has."""
        return [
            TopicSpec(self.schemas, 1, cleanup="compact"),
            TopicSpec(self.fences, 1, cleanup="compact"),
            TopicSpec(self.journal, self.partitions),
            TopicSpec(self.commands, self.partitions),
            TopicSpec(self.dead_letters, 1),
        ]

    def kernel_spec(self, name: str) -> TopicSpec:
        return TopicSpec(self.kernel(name), self.partitions)

    def stream_spec(self, name: str, partitions: int = STREAM_PARTITIONS) -> TopicSpec:
        return TopicSpec(self.stream(name), partitions)
