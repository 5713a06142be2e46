"""What a day book does, as history, command, events."""

from __future__ import annotations

from millstream.events.daybook import (
    CloseDay,
    CloseFailed,
    DayClosed,
    DayClosing,
    DayOpened,
    EnterFlight,
    Figures,
    FiguresAsked,
    FiguresRecorded,
    FlightEntered,
    FlightsShifted,
    MonthAsked,
    OpenDay,
    RecordFigures,
    RecordMonthAnswer,
    ShiftDay,
    ShiftPlanned,
)
from millstream.events.run import RecordRefusal, RemoveRun, RunRemoved, TimerCancelled, TimerFired, TimerSet
from millstream.streams.deciders.cause import SliceDue, TimerDue
from millstream.streams.deciders.daybook import SLICE_FLIGHTS
from millstream.streams.deciders.run import TOMBSTONE_MS
from tests.support.specs import NOW, Story

DAY = "9E-2013-01-16"
OPENED = DayOpened("9E", "2013-01-16")
FIGURES = Figures(2, 1, 1, 12.0, 12.0, 0.0)


def entered(position: int = 0, delay: float | None = 12.0) -> FlightEntered:
    return FlightEntered(position, "9E 1234", "JFK", "RDU", delay is None, delay)


def asked(*delays: float | None) -> FiguresAsked:
    return FiguresAsked("9E", "2013-01-16", [d is None for d in delays], list(delays))


def closing_story() -> Story:
    """A book with one flight that waits for its figures."""
    return Story(DAY).given(OPENED).given(entered()).given(DayClosing("client"), asked(12.0))


def asking_month_story() -> Story:
    story = closing_story()
    return story.given(FiguresRecorded(FIGURES), MonthAsked("9E-2013-01", "9E", "2013-01-16", FIGURES))


def test_a_book_is_opened_under_its_carrier_and_day() -> None:
    Story(DAY).when(OpenDay("9E", "2013-01-16", None)).then(OPENED)


def test_a_book_under_another_id_is_refused_naming_the_right_one() -> None:
    Story("9E-2013-01-17").when(OpenDay("9E", "2013-01-16", None)).then_refused("wrong-id", "9E-2013-01-16")


def test_a_book_that_exists_is_not_opened_again() -> None:
    Story(DAY).given(OPENED).when(OpenDay("9E", "2013-01-16", None)).then_refused("exists", "open")


def test_a_book_with_a_closing_time_sets_a_timer() -> None:
    Story(DAY).when(OpenDay("9E", "2013-01-16", NOW + 60_000)).then(OPENED, TimerSet("close", NOW + 60_000))


def test_flights_are_entered_in_order_and_the_answer_is_the_position() -> None:
    story = Story(DAY).given(OPENED).given(entered())
    story.when(EnterFlight("9E 1234", "JFK", "RDU", False, 12.0)).then(entered(1))
    assert story.decision is not None
    assert story.decision.reply == b"1"


def test_a_delay_that_is_no_number_is_refused_by_field_and_value() -> None:
    story = Story(DAY).given(OPENED)
    story.when(EnterFlight("9E 1", "JFK", "RDU", False, float("nan"))).then_refused(
        "not-finite", "arr_delay_min", "nan"
    )
    story.when(ShiftDay(float("inf"))).then_refused("not-finite", "minutes", "inf")


def test_a_flight_for_a_book_that_is_not_there_is_refused_with_the_next_step() -> None:
    Story(DAY).when(EnterFlight("9E 1", "JFK", "RDU", False, 1.0)).then_refused("not-found", DAY, "Open it first")


def test_a_closing_book_takes_no_more_flights() -> None:
    closing_story().when(EnterFlight("9E 1", "JFK", "RDU", False, 1.0)).then_refused("not-open", "closing")


def test_closing_asks_the_kernel_with_all_flights_and_stops_the_timer() -> None:
    story = Story(DAY).given(OPENED, TimerSet("close", NOW + 5)).given(entered()).given(entered(1, None))
    story.when(CloseDay()).then(DayClosing("client"), TimerCancelled("close", NOW + 5), asked(12.0, None))


def test_the_closing_time_closes_an_open_book() -> None:
    story = Story(DAY).given(OPENED, TimerSet("close", NOW))
    story.when(TimerDue("close", NOW), command_id=None).then(TimerFired("close", NOW), DayClosing("timer"), asked())


def test_the_closing_time_of_a_closed_book_only_passes() -> None:
    closing_story().when(TimerDue("close", NOW), command_id=None).then(TimerFired("close", NOW))


def test_figures_that_answer_the_open_request_go_on_to_the_month_book() -> None:
    story = closing_story()
    story.when(RecordFigures(story.output_id(1), FIGURES, None)).then(
        FiguresRecorded(FIGURES), MonthAsked("9E-2013-01", "9E", "2013-01-16", FIGURES)
    )


def test_figures_that_answer_another_request_are_refused_as_stale() -> None:
    story = closing_story()
    story.when(RecordFigures("0-0-0000000000000009-1-1", FIGURES, None)).then_refused("stale", "doesn't wait")


def test_figures_that_come_twice_are_accepted_once() -> None:
    story = closing_story()
    request = story.output_id(1)
    answer = RecordFigures(request, FIGURES, None)
    story.when(answer).then(FiguresRecorded(FIGURES), MonthAsked("9E-2013-01", "9E", "2013-01-16", FIGURES))
    story.when(answer).then_refused("stale", request)


def test_a_kernel_that_fails_leaves_the_book_open_with_the_reason() -> None:
    story = closing_story()
    story.when(RecordFigures(story.output_id(1), None, "ValueError: bad")).then(
        CloseFailed("the kernel could not compute the figures: ValueError: bad")
    )
    assert story.run is not None
    assert story.run.state.status == "open"


def test_a_book_closed_again_after_a_failure_does_not_take_the_answer_to_its_first_request() -> None:
    story = closing_story()
    first = story.output_id(1)
    story.given(CloseFailed("x")).given(DayClosing("client"), asked(12.0))
    story.when(RecordFigures(first, FIGURES, None)).then_refused("stale")


def test_the_month_book_answer_closes_the_day_and_publishes_the_report() -> None:
    story = asking_month_story()
    story.when(RecordMonthAnswer(story.output_id(1), 16)).then(DayClosed("9E", "2013-01-16", FIGURES, 16))


def test_a_month_book_that_refuses_leaves_the_book_open_with_its_reason() -> None:
    story = asking_month_story()
    story.when(RecordRefusal(story.output_id(1), "exists", "has it already")).then(
        CloseFailed("the month book refused (exists): has it already")
    )


def test_a_small_day_is_shifted_by_one_record() -> None:
    story = Story(DAY).given(OPENED).given(entered())
    story.when(ShiftDay(-5.0)).then(ShiftPlanned(-5.0, 1), FlightsShifted(0, 1, -5.0))
    assert story.run is not None
    assert story.run.state.flights[0].arr_delay_min == 7.0


def test_a_large_day_is_shifted_by_a_plan_and_slices_that_cover_it_exactly_once() -> None:
    count = SLICE_FLIGHTS + 3
    story = Story(DAY).given(OPENED, *[entered(i) for i in range(count)])
    story.when(ShiftDay(10.0)).then(ShiftPlanned(10.0, count))
    story.when(SliceDue(), command_id=None).then(FlightsShifted(0, SLICE_FLIGHTS, 10.0))
    story.when(SliceDue(), command_id=None).then(FlightsShifted(SLICE_FLIGHTS, 3, 10.0))
    story.when(SliceDue(), command_id=None).then()
    assert story.run is not None
    assert {f.arr_delay_min for f in story.run.state.flights} == {22.0}
    assert story.run.state.status == "open"


def test_an_empty_day_is_not_shifted() -> None:
    Story(DAY).given(OPENED).when(ShiftDay(1.0)).then_refused("empty", "no flights")


def test_a_book_that_goes_on_is_not_removed() -> None:
    closing_story().when(RemoveRun("old")).then_refused("not-ended", "closing")


def test_a_closed_book_is_removed_and_its_id_kept_for_seven_days() -> None:
    story = asking_month_story().given(DayClosed("9E", "2013-01-16", FIGURES, 1))
    story.when(RemoveRun("old")).then(RunRemoved("old", NOW + TOMBSTONE_MS))
    assert story.run is None
