"""What a month book does, as history, command, events."""

from __future__ import annotations

from millstream.events.daybook import CloseDay, Figures
from millstream.events.envelope import Origin
from millstream.events.monthbook import AddDay, DayAdded, MonthAnswered
from millstream.events.run import RefusalAnswered, RemoveRun
from tests.support.specs import Story

MONTH = "9E-2013-01"
FIGURES = Figures(2, 1, 1, 12.0, 12.0, 0.0)
ASKER = Origin("9E-2013-01-16", 3)


def added(day: str, days: int) -> DayAdded:
    return DayAdded("9E", day, FIGURES, days)


def test_the_first_day_opens_the_book() -> None:
    Story(MONTH).when(AddDay("9E", "2013-01-16", FIGURES)).then(added("2013-01-16", 1))


def test_the_run_that_asked_is_answered_on_its_partition_under_the_id_of_its_request() -> None:
    story = Story(MONTH).given(added("2013-01-15", 1))
    story.when(AddDay("9E", "2013-01-16", FIGURES), command_id="req-7", origin=ASKER).then(
        added("2013-01-16", 2), MonthAnswered("9E-2013-01-16", 3, "req-7", 2)
    )


def test_a_day_is_added_once() -> None:
    story = Story(MONTH).given(added("2013-01-16", 1))
    story.when(AddDay("9E", "2013-01-16", FIGURES)).then_refused("exists", "2013-01-16")


def test_a_run_whose_command_is_refused_is_told_so() -> None:
    story = Story(MONTH).given(added("2013-01-16", 1))
    rest = story.when(AddDay("9E", "2013-01-16", FIGURES), command_id="req-7", origin=ASKER).then_refused("exists")
    (answered,) = rest
    assert isinstance(answered, RefusalAnswered)
    assert (answered.to_run, answered.to_partition, answered.request_id) == ("9E-2013-01-16", 3, "req-7")


def test_a_command_for_another_kind_of_run_is_refused_by_name() -> None:
    Story(MONTH).given(added("2013-01-16", 1)).when(CloseDay()).then_refused("wrong-kind", "monthbook", "CloseDay")


def test_a_month_book_is_never_removed() -> None:
    Story(MONTH).given(added("2013-01-16", 1)).when(RemoveRun("old")).then_refused("not-ended", "late days")
