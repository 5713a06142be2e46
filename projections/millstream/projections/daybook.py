"""Fold the events of a day book. Pure; changes the book in place; never judges.

The head row has everything but the flights; each of them is an item row of its
own, so that entering one writes one, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, ClassVar, Literal

import msgspec

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
from millstream.events.envelope import Event

Status = Literal["open", "shifting", "closing", "closed"]
Asks = Literal["figures", "month"]
Positions = Iterable[int]
"""The items that an event has changed."""

NONE_CHANGED: Positions = ()


class FlightItem(msgspec.Struct, array_like=True, gc=False):
    """arr_delay_min: minutes; None where the flight didn't arrive."""

    cancelled: bool
    arr_delay_min: float | None


class ShiftPlan(msgspec.Struct, array_like=True, gc=False):
    """An unfinished plan: of `flights` flights `done` are shifted by `minutes`."""

    minutes: float
    flights: int
    done: int


class DayBookHead(msgspec.Struct, array_like=True, tag="daybook", eq=True):
    """request: id of the output whose answer is waited for; asks: what it asked for. report: id of the output that
    carried the report. month_days: days in the month book when it took this one. problem: why the last closing failed."""

    carrier: str
    day: str
    status: Status = "open"
    plan: ShiftPlan | None = None
    request: str | None = None
    asks: Asks | None = None
    figures: Figures | None = None
    month_days: int | None = None
    report: str | None = None
    problem: str | None = None


class DayBook(DayBookHead, tag="daybook"):
    """A day book with its flights, by position."""

    noun: ClassVar[str] = "daybook"

    flights: list[FlightItem] = []


head_of: Callable[[DayBookHead], tuple[Any, ...]] = attrgetter(*DayBookHead.__struct_fields__)
read_item = msgspec.msgpack.Decoder(FlightItem).decode


def from_rows(head: DayBookHead, items: Iterable[bytes]) -> DayBook:
    """The book of a head row and its item rows in order of position."""
    book = DayBook(*head_of(head))
    book.flights = [read_item(row) for row in items]
    return book


def items_of(book: DayBook) -> list[FlightItem]:
    return book.flights


def begin(e: DayOpened) -> DayBook:
    return DayBook(e.carrier, e.day)


def _opened(_book: DayBook, _e: DayOpened, _asked: str) -> Positions:
    return NONE_CHANGED


def _flight_entered(book: DayBook, e: FlightEntered, _asked: str) -> Positions:
    book.flights.append(FlightItem(e.cancelled, e.arr_delay_min))
    return (e.position,)


def _shift_planned(book: DayBook, e: ShiftPlanned, _asked: str) -> Positions:
    book.status = "shifting"
    book.plan = ShiftPlan(e.minutes, e.flights, 0)
    return NONE_CHANGED


def _flights_shifted(book: DayBook, e: FlightsShifted, _asked: str) -> Positions:
    positions = range(e.first, e.first + e.count)
    for position in positions:
        item = book.flights[position]
        if item.arr_delay_min is not None:
            item.arr_delay_min += e.minutes
    plan = book.plan
    if plan is not None:
        plan.done = positions.stop
        if plan.done >= plan.flights:
            book.plan = None
            book.status = "open"
    return positions


def _closing(book: DayBook, _e: DayClosing, _asked: str) -> Positions:
    book.status = "closing"
    book.problem = None
    return NONE_CHANGED


def _figures_asked(book: DayBook, _e: FiguresAsked, asked: str) -> Positions:
    book.request, book.asks = asked, "figures"
    return NONE_CHANGED


def _figures_recorded(book: DayBook, e: FiguresRecorded, _asked: str) -> Positions:
    book.request = book.asks = None
    book.figures = e.figures
    return NONE_CHANGED


def _month_asked(book: DayBook, _e: MonthAsked, asked: str) -> Positions:
    book.request, book.asks = asked, "month"
    return NONE_CHANGED


def _closed(book: DayBook, e: DayClosed, asked: str) -> Positions:
    book.status = "closed"
    book.request = book.asks = None
    book.figures, book.month_days, book.report = e.figures, e.month_days, asked
    return NONE_CHANGED


def _close_failed(book: DayBook, e: CloseFailed, _asked: str) -> Positions:
    book.status = "open"
    book.request = book.asks = None
    book.figures = None
    book.problem = e.reason
    return NONE_CHANGED


EVOLVE: dict[type[Event], Callable[[DayBook, Any, str], Positions]] = {
    DayOpened: _opened,
    FlightEntered: _flight_entered,
    ShiftPlanned: _shift_planned,
    FlightsShifted: _flights_shifted,
    DayClosing: _closing,
    FiguresAsked: _figures_asked,
    FiguresRecorded: _figures_recorded,
    MonthAsked: _month_asked,
    DayClosed: _closed,
    CloseFailed: _close_failed,
}
"""Event -> function (book, event, id of the output that the event sends) -> positions of the items changed."""
