"""Which journal records count: rule 4 of the journal protocol. Pure.

A reader applies the next number of the newest epoch, drops what is of another
epoch (a zombie's) or of a lower number (a retry's), and stops at a higher one:
crashes can't make a hole, so it is lost data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from millstream.events.envelope import Fence, FenceMark, GapAccepted, Transition
from millstream.events.errors import HoleInJournal

Verdict = Literal["apply", "drop", "claim", "gap"]


class Gap(NamedTuple):
    """Numbers `after` + 1 to `before` - 1 of an epoch are lost, and that was accepted."""

    epoch_offset: int
    claim_id: int
    after: int
    before: int

    @classmethod
    def of(cls, accepted: GapAccepted) -> Gap:
        return cls(accepted.epoch_offset, accepted.claim_id, accepted.after, accepted.before)


class Hole(HoleInJournal):
    """A hole with the gap that would have to be accepted, and the offset of the record behind it."""

    def __init__(self, gap: Gap, offset: int) -> None:
        lost = gap.before - gap.after - 1
        super().__init__(
            f"epoch {gap.epoch_offset} (claim {gap.claim_id:016x}): expected number {gap.after + 1}, found"
            f" {gap.before} at offset {offset}. {lost:,} record{'s are' if lost != 1 else ' is'} missing from the journal;"
            f" crashes can't do that, so data was lost (a broker's disk, a restored copy, an unclean election)."
            f" Restore the log if you can. To go on without them, an operator appends GapAccepted for this epoch with"
            f" after={gap.after} and before={gap.before}."
        )
        self.gap, self.offset = gap, offset


class Judge:
    """Says what a reader does with a record. `gaps`: holes that an operator has accepted."""

    __slots__ = ("gaps",)

    def __init__(self, gaps: Iterable[Gap] = ()) -> None:
        self.gaps = set(gaps)

    def __call__(self, mark: FenceMark, offset: int, fence: Fence) -> Verdict:
        """Judge the record at `offset` with header `mark` by the reader's fence. Raises `Hole`."""
        kind, epoch_offset, claim_id, number = mark
        if kind == "transition":
            if claim_id != fence.claim_id or epoch_offset != fence.epoch_offset:
                return "drop"
            expected = fence.number + 1
            if number == expected:
                return "apply"
            if number < expected:
                return "drop"
            gap = Gap(epoch_offset, claim_id, fence.number, number)
            if gap in self.gaps:
                return "apply"
            raise Hole(gap, offset)
        return "claim" if kind == "claim" else "gap"


def fence_after(fence: Fence, mark: FenceMark, offset: int, transition: Transition | None = None) -> Fence:
    """The fence behind a record that counts: a claim, or a transition to apply.

    A reader that only judges, and doesn't decode transitions, leaves them out; command_offset and sent then stay as
    they were. A `GapAccepted` moves no fence: it is looked for where its hole is met.
    """
    if transition is not None:
        sent = transition.sent
        return Fence(
            offset,
            fence.epoch_offset,
            fence.claim_id,
            mark.number,
            transition.command_offset,
            fence.sent if sent is None else sent,
        )
    if mark.kind == "claim":
        return Fence(offset, offset, mark.claim_id, 0, fence.command_offset, fence.sent)
    if mark.kind == "transition":
        epoch_offset, claim_id = fence.epoch_offset, fence.claim_id
        return Fence(offset, epoch_offset, claim_id, mark.number, fence.command_offset, fence.sent)
    return fence
