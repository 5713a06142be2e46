"""Records of the kernel-batch topics. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Array(msgspec.Struct, frozen=True, gc=False):
    """An array, C order, little-endian. dtype: NumPy's text form, such as '<f8'. data: the bytes."""

    name: str
    dtype: str
    shape: Sequence[int]
    data: bytes


class KernelCalled(msgspec.Struct, frozen=True, gc=False, tag=True):
    """One call of a kernel. The answer is a command to `run_id` on `reply_partition` that names `request_id`."""

    request_id: str
    kernel: str
    run_id: str
    reply_partition: int
    arrays: Sequence[Array]


class DeadLetter(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A record that can't be processed. Key, value and headers of the original stand in the dead-letter record itself
    where this is a header; here: where it came from and why. timestamp: of the original, ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    at: int
