"""What becomes of a day book: history => state."""

from __future__ import annotations

from millstream.events.daybook import (
    CloseFailed,
    DayClosed,
    DayClosing,
    DayOpened,
    Figures,
    FiguresAsked,
    FiguresRecorded,
    FlightEntered,
    FlightsShifted,
    MonthAsked,
    ShiftPlanned,
)
from millstream.projections.daybook import DayBook, FlightItem, ShiftPlan
from tests.support.folding import Folded

DAY = "9E-2013-01-16"
FIGURES = Figures(2, 2, 0, 10.0, 20.0, 0.0)
OPENED = DayOpened("9E", "2013-01-16")


def flight(position: int, delay: float | None) -> FlightEntered:
    return FlightEntered(position, "1234", "JFK", "BOS", delay is None, delay)


def book_after(*events: object) -> DayBook:
    return given(*events).state(DAY, DayBook)


def given(*events: object) -> Folded:
    """Each event, or tuple of events, is one transition."""
    folded = Folded()
    for event in events:
        folded.fold(DAY, *(event if isinstance(event, tuple) else (event,)))
    return folded


def test_an_opened_book_is_open_and_empty() -> None:
    assert book_after(OPENED) == DayBook("9E", "2013-01-16")


def test_flights_stand_in_the_order_of_entry() -> None:
    book = book_after(OPENED, flight(0, 12.5), flight(1, None))
    assert book.flights == [FlightItem(False, 12.5), FlightItem(True, None)]


def test_entering_a_flight_writes_its_row_and_the_head_whatever_the_size_of_the_book() -> None:
    folded = given(OPENED, *(flight(i, 1.0) for i in range(50)))
    rows = folded.fold(DAY, flight(50, 2.0))
    prefix = b"r" + DAY.encode() + b"\0"
    assert sorted(rows) == [b"p", prefix + b"h", prefix + b"i\0\0\0\x32"]


def test_a_planned_shift_goes_slice_by_slice_and_the_book_is_open_again_after_the_last() -> None:
    entered = [OPENED, flight(0, 1.0), flight(1, None), flight(2, 3.0), ShiftPlanned(2.5, 3)]
    assert book_after(*entered).status == "shifting"
    half = book_after(*entered, FlightsShifted(0, 2, 2.5))
    assert half.status == "shifting"
    assert half.plan == ShiftPlan(2.5, 3, 2)
    assert half.flights == [FlightItem(False, 3.5), FlightItem(True, None), FlightItem(False, 3.0)]
    whole = book_after(*entered, FlightsShifted(0, 2, 2.5), FlightsShifted(2, 1, 2.5))
    assert (whole.status, whole.plan) == ("open", None)
    assert whole.flights[2] == FlightItem(False, 5.5)


def test_an_unfinished_plan_is_known_without_looking_at_the_runs() -> None:
    folded = given(OPENED, flight(0, 1.0), flight(1, 2.0), ShiftPlanned(2.5, 2), FlightsShifted(0, 1, 2.5))
    assert folded.runs.open_plans() == [DAY]
    assert folded.reloaded().open_plans() == [DAY]
    folded.fold(DAY, FlightsShifted(1, 1, 2.5))
    assert folded.runs.open_plans() == []
    assert folded.reloaded().open_plans() == []


def test_a_closing_book_waits_under_the_id_of_the_output_that_asked() -> None:
    folded = given(OPENED, flight(0, 1.0))
    folded.fold(DAY, DayClosing("client"), FiguresAsked("9E", "2013-01-16", [False], [1.0]))
    book = folded.state(DAY, DayBook)
    assert (book.status, book.asks) == ("closing", "figures")
    assert book.request == folded.ref.output_id(1)


def test_after_the_figures_the_month_is_asked_under_an_id_of_its_own() -> None:
    folded = given(OPENED, flight(0, 1.0))
    folded.fold(DAY, DayClosing("client"), FiguresAsked("9E", "2013-01-16", [False], [1.0]))
    folded.fold(DAY, FiguresRecorded(FIGURES), MonthAsked("9E-2013-01", "9E", "2013-01-16", FIGURES))
    book = folded.state(DAY, DayBook)
    assert (book.figures, book.asks, book.request) == (FIGURES, "month", folded.ref.output_id(1))


def test_a_closed_book_keeps_its_figures_and_waits_for_nothing() -> None:
    folded = given(OPENED, flight(0, 1.0), DayClosing("timer"))
    folded.fold(DAY, FiguresRecorded(FIGURES), MonthAsked("9E-2013-01", "9E", "2013-01-16", FIGURES))
    folded.fold(DAY, DayClosed("9E", "2013-01-16", FIGURES, 3))
    book = folded.state(DAY, DayBook)
    assert (book.status, book.figures, book.month_days) == ("closed", FIGURES, 3)
    assert (book.request, book.asks) == (None, None)
    assert book.report == folded.ref.output_id(0)


def test_a_failed_closing_opens_the_book_again_and_says_why() -> None:
    folded = given(OPENED, flight(0, 1.0))
    folded.fold(DAY, DayClosing("client"), FiguresAsked("9E", "2013-01-16", [False], [1.0]))
    folded.fold(DAY, CloseFailed("the kernel has no device"))
    book = folded.state(DAY, DayBook)
    assert (book.status, book.request, book.asks, book.figures) == ("open", None, None, None)
    assert book.problem == "the kernel has no device"
