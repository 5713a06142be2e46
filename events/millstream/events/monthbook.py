"""The month book: one carrier's days of one month, added by the day books. Pure.

Its run id is `<carrier>-<month>`, such as `9E-2013-01`. It opens itself with the first day.
"""

from __future__ import annotations

from typing import ClassVar

from millstream.events.daybook import Figures
from millstream.events.envelope import CommandBody, Event


class AddDay(CommandBody, frozen=True, gc=False):
    carrier: str
    day: str
    figures: Figures


class DayAdded(Event, frozen=True, gc=False):
    """days: how many days the book has with this one."""

    carrier: str
    day: str
    figures: Figures
    days: int


class MonthAnswered(Event, frozen=True, gc=False):
    """The day book that asked is told (a `RecordMonthAnswer` on its partition)."""

    output: ClassVar[bool] = True

    to_run: str
    to_partition: int
    request_id: str
    days: int
