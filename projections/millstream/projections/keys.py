"""Where a row stands in a store: the layout of the keys. Pure.

    r <run id> NUL h                          head of the run
    r <run id> NUL i <position: 4>            an item of the run: a flight, a day
    r <run id> NUL c <command id>             the answer to a command that the run has decided
    o <epoch offset: 8> <claim id: 8> <number: 8> <index: 4>      an output that waits to be acknowledged
    t <due: 8> <run id> NUL <timer id>        a timer
    x <run id>                                tombstone of a removed run
    s <run id>                                the run has a plan with slices left
    p                                         the partition's time
    f   m                                     fence; what the store is of
    z...                                      what a scan has noted; `verify` leaves it out

Numbers are big-endian, so that byte order is their order. The rows of a run lie
side by side; a run id has no NUL in it, so none is the beginning of another's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from millstream.events.envelope import Sent

RUN = b"r"
OUTBOX = b"o"
TIMER = b"t"
TOMBSTONE = b"x"
PLAN = b"s"
TIME_KEY = b"p"
FENCE_KEY = b"f"
META_KEY = b"m"
SCANNED = b"z"
TIMER_BOUND_KEY = SCANNED + TIMER

HEAD = b"h"
ITEM = b"i"
ANSWER = b"c"

_OUTBOX = struct.Struct(">cQQQI")
_BIAS = 1 << 63
"""Times are signed and keys are not: adding this keeps the order, and a client's `close_at` of -5 a mere timer."""

pack_position: Callable[[int], bytes] = struct.Struct(">I").pack
pack_time: Callable[[int], bytes] = struct.Struct(">q").pack


def unpack_position(packed: bytes) -> int:
    return int.from_bytes(packed, "big")


def unpack_time(packed: bytes) -> int:
    return int.from_bytes(packed, "big", signed=True)


def run_prefix(run_id: str) -> bytes:
    """What the keys of all rows of a run begin with."""
    return RUN + run_id.encode() + b"\0"


def answer_key(run_id: str, command_id: str) -> bytes:
    return run_prefix(run_id) + ANSWER + command_id.encode()


def tombstone_key(run_id: str) -> bytes:
    return TOMBSTONE + run_id.encode()


def plan_key(run_id: str) -> bytes:
    return PLAN + run_id.encode()


def outbox_key(sent: Sent) -> bytes:
    return _OUTBOX.pack(OUTBOX, *sent)


def parse_outbox(key: bytes) -> Sent:
    return Sent(*_OUTBOX.unpack(key)[1:])


def timer_key(due_at: int, run_id: str, timer_id: str) -> bytes:
    """due_at: ms, any int64."""
    return TIMER + (due_at + _BIAS).to_bytes(8, "big") + run_id.encode() + b"\0" + timer_id.encode()


def parse_timer(key: bytes) -> tuple[int, str, str]:
    """Due time in ms, run id, timer id."""
    run_id, _, timer_id = key[9:].partition(b"\0")
    return int.from_bytes(key[1:9], "big") - _BIAS, run_id.decode(), timer_id.decode()


def after(prefix: bytes) -> bytes | None:
    """The smallest key above all that begin with `prefix`; None where there is none (empty, or all 0xff)."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def describe(key: bytes) -> str:
    """A key in words, for the report of a difference."""
    kind = key[:1]
    if key in _PLAIN:
        return _PLAIN[key]
    if kind == RUN and b"\0" in key:
        return _describe_run(key)
    if kind == OUTBOX and len(key) == _OUTBOX.size:
        epoch_offset, claim_id, number, index = parse_outbox(key)
        return f"output {index} of record {number} in epoch {epoch_offset} (claim {claim_id:016x})"
    if kind == TIMER and b"\0" in key[9:]:
        due_at, run_id, timer_id = parse_timer(key)
        return f"timer {timer_id!r} of run {run_id!r}, due at {due_at}"
    if kind == TOMBSTONE:
        return f"tombstone of run {key[1:].decode(errors='replace')!r}"
    if kind == PLAN:
        return f"unfinished plan of run {key[1:].decode(errors='replace')!r}"
    return f"key {key!r}"


_PLAIN = {TIME_KEY: "the partition's time", FENCE_KEY: "the fence", META_KEY: "what the store is of"}


def _describe_run(key: bytes) -> str:
    run_id, _, rest = key[1:].partition(b"\0")
    named = f"run {run_id.decode(errors='replace')!r}"
    if rest == HEAD:
        return f"head of {named}"
    if rest[:1] == ITEM:
        return f"item {unpack_position(rest[1:])} of {named}"
    if rest[:1] == ANSWER:
        return f"answer to command {rest[1:].decode(errors='replace')!r} of {named}"
    return f"key {key!r}"
