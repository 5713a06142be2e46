"""What wraps everything on the log: claims, transitions, commands, fences, and the ids made from them. Pure.

A journal record says who may append (`OwnershipClaimed`), what one cause has
changed (`Transition`), or that an operator lets readers go past lost data
(`GapAccepted`). Epoch, claim id and number stand in the record header `fence`,
so that a record of a zombie of a newer release is dropped without its schema.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import msgspec

from millstream.events.logs.port import Header

FORMAT = 1
"""Version of the journal's own rules. A reader that meets a higher one stops."""

FENCE_HEADER = "fence"
CAUSE_HEADER = "cause"
_FENCE = struct.Struct(">qQq")
_CLAIM_EPOCH = -1
_GAP_EPOCH = -2


class Event(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A fact on the journal. An event whose class has `output` sends exactly one record, after the proof."""

    output: ClassVar[bool] = False


class CommandBody(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What a command asks for. Imperative."""


class Sent(NamedTuple):
    """All outputs up to this one are acknowledged by their topics. Ordered as the journal is."""

    epoch_offset: int
    claim_id: int
    number: int
    index: int  # type: ignore[assignment]  # a tuple has a method of this name; nobody asks for it here


NOTHING_SENT = Sent(-1, 0, 0, 0)


class Ref(NamedTuple):
    """Which journal record: partition, epoch (offset and id of the claim), number in the epoch."""

    partition: int
    epoch_offset: int
    claim_id: int
    number: int

    def output_id(self, index: int) -> str:
        """Id of the output that the record's event at `index` sends; the same on every send and by every owner."""
        return f"{self.partition}-{self.epoch_offset}-{self.claim_id:016x}-{self.number}-{index}"


class OwnershipClaimed(msgspec.Struct, frozen=True, gc=False, tag=True):
    """From here on only `owner` may append, until the next claim. The epoch is (this record's offset, `claim_id`).

    owner: instance id, kept over restarts. process: unique to one process. claim_id: random 64 bits, unsigned.
    partitions: of the journal. format: `FORMAT` of the writer. at: the owner's clock in ms, for people.
    """

    owner: str
    process: str
    claim_id: int
    partitions: int
    format: int
    at: int


class GapAccepted(msgspec.Struct, frozen=True, gc=False, tag=True):
    """An operator lets readers go on past a hole: numbers `after` + 1 to `before` - 1 of an epoch are lost for good."""

    epoch_offset: int
    claim_id: int
    after: int
    before: int
    by: str
    reason: str
    at: int


class Transition(msgspec.Struct, frozen=True, gc=False, tag=True):
    """All that one cause has changed in one run.

    at: the partition's time in ms, never going back. run_id: "" where no run is concerned.
    command_id: the cause, or None (a timer, a slice of a plan, a watermark).
    command_offset: this command and all before it have their whole effect up to here; -1 before the first.
    sent: newest watermark, or None where it has not moved. reply: what the asker is told, as JSON, or None.
    """

    at: int
    run_id: str
    command_id: str | None
    command_offset: int
    sent: Sent | None
    reply: bytes | None
    events: Sequence[Event]


class Origin(msgspec.Struct, frozen=True, gc=False):
    """The run that sent a command, and the partition on which it wants the answer. The command's id is the request."""

    run_id: str
    partition: int


class Command(msgspec.Struct, frozen=True, gc=False, tag=True):
    """A request that may be refused. `command_id` is made once, before the first send; a copy has the same."""

    command_id: str
    run_id: str
    origin: Origin | None
    body: CommandBody


class Fence(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a reader must remember beside its rows (journal protocol, rule 4).

    offset: of the last valid record. epoch_offset, claim_id: of the newest claim. number: the last valid one in it.
    """

    offset: int
    epoch_offset: int
    claim_id: int
    number: int
    command_offset: int
    sent: Sent


NO_FENCE = Fence(-1, -1, 0, 0, -1, NOTHING_SENT)


class FenceMark(NamedTuple):
    """The header `fence`, read. kind: 'claim', 'gap' or 'transition'."""

    kind: str
    epoch_offset: int
    claim_id: int
    number: int


def fence_header(epoch_offset: int, claim_id: int, number: int) -> Header:
    """Header of a transition: 24 bytes, big-endian: epoch offset (int64), claim id (uint64), number (int64)."""
    return (FENCE_HEADER, _FENCE.pack(epoch_offset, claim_id, number))


def claim_header(claim_id: int) -> Header:
    """Header of a claim: its epoch offset is written as -1, since a record doesn't know its own offset."""
    return (FENCE_HEADER, _FENCE.pack(_CLAIM_EPOCH, claim_id, 0))


def gap_header(claim_id: int) -> Header:
    return (FENCE_HEADER, _FENCE.pack(_GAP_EPOCH, claim_id, 0))


def read_fence_header(headers: Sequence[Header]) -> FenceMark | None:
    """The mark of a journal record, or None where the header is missing or malformed: then it isn't one of ours."""
    for name, value in headers:
        if name == FENCE_HEADER:
            if value is None or len(value) != _FENCE.size:
                return None
            epoch_offset, claim_id, number = _FENCE.unpack(value)
            if epoch_offset >= 0:
                return FenceMark("transition", epoch_offset, claim_id, number)
            return FenceMark("claim" if epoch_offset == _CLAIM_EPOCH else "gap", epoch_offset, claim_id, number)
    return None


def read_cause_header(headers: Sequence[Header]) -> bytes | None:
    """The command id, UTF-8, that caused a transition; None where no command did."""
    for name, value in headers:
        if name == CAUSE_HEADER:
            return value
    return None
