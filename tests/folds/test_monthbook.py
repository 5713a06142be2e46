"""What becomes of a month book: history => state."""

from __future__ import annotations

from millstream.events.daybook import Figures
from millstream.events.monthbook import DayAdded, MonthAnswered
from millstream.projections.monthbook import MonthBook, Totals
from tests.support.folding import Folded

MONTH = "9E-2013-01"
GOOD = Figures(3, 2, 1, 10.0, 15.0, 0.0)
NOTHING_ARRIVED = Figures(2, 0, 2, None, None, None)


def test_the_first_day_opens_the_book() -> None:
    folded = Folded()
    folded.fold(MONTH, DayAdded("9E", "2013-01-16", GOOD, 1), MonthAnswered("9E-2013-01-16", 2, "q", 1))
    book = folded.state(MONTH, MonthBook)
    assert (book.carrier, book.month, book.count) == ("9E", "2013-01", 1)
    assert book.days == {"2013-01-16": GOOD}


def test_totals_are_sums_over_the_days_and_days_without_arrivals_add_no_delay() -> None:
    folded = Folded()
    folded.fold(MONTH, DayAdded("9E", "2013-01-16", GOOD, 1))
    folded.fold(MONTH, DayAdded("9E", "2013-01-02", NOTHING_ARRIVED, 2))
    folded.fold(MONTH, DayAdded("9E", "2013-01-03", GOOD, 3))
    book = folded.state(MONTH, MonthBook)
    assert book.totals == Totals(flights=8, arrived=4, cancelled=4, delay_min=40.0)
    assert list(book.days) == ["2013-01-16", "2013-01-02", "2013-01-03"]


def test_a_day_is_one_row() -> None:
    folded = Folded()
    folded.fold(MONTH, DayAdded("9E", "2013-01-16", GOOD, 1))
    rows = folded.fold(MONTH, DayAdded("9E", "2013-01-17", GOOD, 2))
    prefix = b"r" + MONTH.encode() + b"\0"
    assert sorted(rows) == [b"p", prefix + b"h", prefix + b"i\0\0\0\1"]
