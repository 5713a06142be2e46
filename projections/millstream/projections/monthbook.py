"""Fold the events of a month book. Pure; changes the book in place; never judges."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, ClassVar

import msgspec

from millstream.events.daybook import Figures
from millstream.events.envelope import Event
from millstream.events.monthbook import DayAdded, MonthAnswered

Positions = Iterable[int]


class Totals(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Sums over the days; delay_min: minutes of arrival delay, early counted negative."""

    flights: int = 0
    arrived: int = 0
    cancelled: int = 0
    delay_min: float = 0.0


class MonthBookHead(msgspec.Struct, array_like=True, tag="monthbook"):
    """month: such as '2013-01'. count: days that the book has."""

    carrier: str
    month: str
    count: int = 0
    totals: Totals = Totals()


class MonthBook(MonthBookHead, tag="monthbook"):
    """A month book with its days: day -> figures, in the order in which they came."""

    noun: ClassVar[str] = "monthbook"

    days: dict[str, Figures] = {}


head_of: Callable[[MonthBookHead], tuple[Any, ...]] = attrgetter(*MonthBookHead.__struct_fields__)
read_item = msgspec.msgpack.Decoder(tuple[str, Figures]).decode


def from_rows(head: MonthBookHead, items: Iterable[bytes]) -> MonthBook:
    """The book of a head row and its item rows in order of position."""
    book = MonthBook(*head_of(head))
    book.days = dict(read_item(row) for row in items)
    return book


def items_of(book: MonthBook) -> list[tuple[str, Figures]]:
    return list(book.days.items())


def begin(e: DayAdded) -> MonthBook:
    return MonthBook(e.carrier, e.day[:7])


def _day_added(book: MonthBook, e: DayAdded, _asked: str) -> Positions:
    book.days[e.day] = e.figures
    book.count = e.days
    t, f = book.totals, e.figures
    book.totals = Totals(
        t.flights + f.flights,
        t.arrived + f.arrived,
        t.cancelled + f.cancelled,
        t.delay_min + (f.mean_arr_delay_min or 0.0) * f.arrived,
    )
    return (e.days - 1,)


def _answered(_book: MonthBook, _e: MonthAnswered, _asked: str) -> Positions:
    return ()


EVOLVE: dict[type[Event], Callable[[MonthBook, Any, str], Positions]] = {
    DayAdded: _day_added,
    MonthAnswered: _answered,
}
"""Event -> function (book, event, id of the output that the event sends) -> positions of the items changed."""
