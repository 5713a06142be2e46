"""What is the same for every run: copies, tombstones, commands that are too old."""

from __future__ import annotations

from millstream.events.daybook import CloseDay
from millstream.events.envelope import Origin
from millstream.events.run import CommandRefused, CommandRepeated, RefusalAnswered
from millstream.projections.fold import Answer
from millstream.streams.deciders.cause import Cause
from millstream.streams.deciders.run import TOMBSTONE_MS, admit
from millstream.streams.deciders.table import too_large
from tests.support.specs import NOW

CAUSE = Cause("9E-2013-01-16", CloseDay(), NOW, "c-1")


def test_a_command_seen_for_the_first_time_is_let_through() -> None:
    assert admit(CAUSE, first_answer=None, tombstone_until=None, appended_at=NOW) is None


def test_a_second_copy_gets_the_first_answer_and_changes_nothing() -> None:
    decision = admit(CAUSE, first_answer=Answer(None, "", b"7", 1), tombstone_until=None, appended_at=NOW)
    assert decision is not None
    assert list(decision.events) == [CommandRepeated(None, "")]
    assert decision.reply == b"7"


def test_a_second_copy_of_a_refused_command_is_refused_alike() -> None:
    first = Answer("not-open", "it is closed", None, 1)
    decision = admit(CAUSE, first_answer=first, tombstone_until=None, appended_at=NOW)
    assert decision is not None
    assert list(decision.events) == [CommandRepeated("not-open", "it is closed")]


def test_a_copy_of_the_command_that_removed_a_run_still_gets_its_answer() -> None:
    decision = admit(CAUSE, first_answer=Answer(None, "", None, 1), tombstone_until=NOW + 1, appended_at=NOW)
    assert decision is not None
    assert list(decision.events) == [CommandRepeated(None, "")]


def test_a_command_for_a_removed_run_is_refused_while_its_tombstone_stands() -> None:
    decision = admit(CAUSE, first_answer=None, tombstone_until=NOW + 1, appended_at=NOW)
    assert decision is not None
    (refused,) = decision.events
    assert isinstance(refused, CommandRefused)
    assert refused.code == "removed"
    assert "7 days" in refused.reason


def test_an_id_may_be_used_again_when_its_tombstone_has_passed() -> None:
    assert admit(CAUSE, first_answer=None, tombstone_until=NOW, appended_at=NOW) is None


def test_a_command_older_than_tombstones_live_is_refused() -> None:
    decision = admit(CAUSE, first_answer=None, tombstone_until=None, appended_at=NOW - TOMBSTONE_MS - 1)
    assert decision is not None
    (refused,) = decision.events
    assert isinstance(refused, CommandRefused)
    assert refused.code == "too-old"


def test_a_command_of_a_run_that_is_too_large_is_answered_to_that_run_with_size_and_limit() -> None:
    cause = Cause("m", CloseDay(), NOW, "req-1", Origin("d", 2))
    refused, answered = too_large(cause, 2_000_000, 1_000_000).events
    assert isinstance(refused, CommandRefused)
    assert "2,000,000" in refused.reason
    assert "1,000,000" in refused.reason
    assert isinstance(answered, RefusalAnswered)
