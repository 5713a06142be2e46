"""Rule 4 of the journal protocol: which records count."""

from __future__ import annotations

import pytest

from millstream.events.envelope import NO_FENCE, NOTHING_SENT, Fence, FenceMark, GapAccepted, Sent, Transition
from millstream.events.errors import HoleInJournal
from millstream.projections.fence import Gap, Judge, fence_after

FENCE = Fence(offset=20, epoch_offset=10, claim_id=0xABC, number=4, command_offset=7, sent=NOTHING_SENT)


def mark(number: int, *, epoch_offset: int = 10, claim_id: int = 0xABC) -> FenceMark:
    return FenceMark("transition", epoch_offset, claim_id, number)


def test_the_next_number_of_the_epoch_is_applied() -> None:
    assert Judge()(mark(5), 21, FENCE) == "apply"


def test_a_lower_number_is_a_retry_and_is_dropped() -> None:
    assert [Judge()(mark(n), 21, FENCE) for n in (1, 3, 4)] == ["drop"] * 3


def test_another_epoch_is_a_zombies_and_is_dropped() -> None:
    assert Judge()(mark(5, epoch_offset=3), 21, FENCE) == "drop"
    assert Judge()(mark(900, epoch_offset=3), 21, FENCE) == "drop"


def test_two_claims_at_one_offset_are_two_epochs() -> None:
    assert Judge()(mark(5, claim_id=0xDEF), 21, FENCE) == "drop"


def test_nothing_is_applied_before_the_first_claim() -> None:
    assert Judge()(mark(1, epoch_offset=0), 0, NO_FENCE) == "drop"


def test_a_claim_and_an_accepted_gap_are_told_apart() -> None:
    assert Judge()(FenceMark("claim", -1, 5, 0), 21, FENCE) == "claim"
    assert Judge()(FenceMark("gap", -2, 5, 0), 21, FENCE) == "gap"


def test_a_higher_number_is_a_hole_and_the_message_says_how_to_go_on() -> None:
    with pytest.raises(HoleInJournal) as caught:
        Judge()(mark(8), 33, FENCE)
    text = str(caught.value)
    for part in ("epoch 10", "0000000000000abc", "expected number 5, found 8", "offset 33", "3 records are missing"):
        assert part in text
    assert "GapAccepted for this epoch with after=4 and before=8" in text


def test_a_hole_of_one_record_is_told_in_the_singular() -> None:
    with pytest.raises(HoleInJournal, match="1 record is missing"):
        Judge()(mark(6), 33, FENCE)


def test_an_accepted_gap_lets_exactly_its_own_hole_pass() -> None:
    gap = Gap.of(GapAccepted(10, 0xABC, 4, 8, "someone", "the disk is gone", 1))
    judge = Judge([gap])
    assert judge(mark(8), 33, FENCE) == "apply"
    for number in (7, 9):
        with pytest.raises(HoleInJournal):
            judge(mark(number), 33, FENCE)


def test_behind_a_claim_the_numbers_begin_anew_and_what_is_sent_stays() -> None:
    sent = Sent(10, 0xABC, 2, 0)
    before = Fence(20, 10, 0xABC, 4, 7, sent)
    assert fence_after(before, FenceMark("claim", -1, 5, 0), 21) == Fence(21, 21, 5, 0, 7, sent)


def test_behind_a_transition_the_fence_has_its_number_and_watermarks() -> None:
    sent = Sent(10, 0xABC, 2, 0)
    moved = Transition(1, "", None, 9, sent, None, ())
    after = fence_after(FENCE, mark(5), 21, moved)
    assert after == Fence(21, 10, 0xABC, 5, 9, sent)
    unmoved = Transition(1, "", None, 9, None, None, ())
    assert fence_after(after, mark(6), 22, unmoved) == Fence(22, 10, 0xABC, 6, 9, sent)


def test_a_reader_that_only_judges_needs_no_transition() -> None:
    assert fence_after(FENCE, mark(5), 21) == Fence(21, 10, 0xABC, 5, 7, NOTHING_SENT)
