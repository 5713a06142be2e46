"""The day book: the flights of one carrier on one day, from opening to report. Pure.

The journal protocol's own test bed: every way into a run and out of it is used
by it. A day book's run id is `<carrier>-<day>`, such as `9E-2013-01-16`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from millstream.events.envelope import CommandBody, Event


class Figures(msgspec.Struct, frozen=True, gc=False):
    """A day in figures. The delays are minutes; None where nothing arrived. share_late: of arrivals over 30 minutes."""

    flights: int
    arrived: int
    cancelled: int
    mean_arr_delay_min: float | None
    max_arr_delay_min: float | None
    share_late: float | None


class OpenDay(CommandBody, frozen=True, gc=False):
    """Open the book. close_at: ms; it closes itself then, if nobody has."""

    carrier: str
    day: str
    close_at: int | None


class EnterFlight(CommandBody, frozen=True, gc=False):
    """arr_delay_min: None where the flight didn't arrive (cancelled or diverted)."""

    flight: str
    origin: str
    dest: str
    cancelled: bool
    arr_delay_min: float | None


class ShiftDay(CommandBody, frozen=True, gc=False):
    """Correct the arrival of every flight of the day by `minutes`. Large days are shifted slice by slice."""

    minutes: float


class CloseDay(CommandBody, frozen=True, gc=False):
    pass


class RecordFigures(CommandBody, frozen=True, gc=False):
    """The kernel's answer. Either figures, or an error."""

    request_id: str
    figures: Figures | None
    error: str | None


class RecordMonthAnswer(CommandBody, frozen=True, gc=False):
    """The month book's answer. days: how many days it has now."""

    request_id: str
    days: int


class DayOpened(Event, frozen=True, gc=False):
    carrier: str
    day: str


class FlightEntered(Event, frozen=True, gc=False):
    """position: from 0, in the order of entry."""

    position: int
    flight: str
    origin: str
    dest: str
    cancelled: bool
    arr_delay_min: float | None


class ShiftPlanned(Event, frozen=True, gc=False):
    """A plan: flights 0 to `flights` - 1 will be shifted by slices; nothing else is entered meanwhile."""

    minutes: float
    flights: int


class FlightsShifted(Event, frozen=True, gc=False):
    """A slice of the plan: `count` flights from position `first` on."""

    first: int
    count: int
    minutes: float


class DayClosing(Event, frozen=True, gc=False):
    """by: 'client' or 'timer'."""

    by: str


class FiguresAsked(Event, frozen=True, gc=False):
    """Sent to the kernel-batch topic. Both sequences have one value a flight."""

    output: ClassVar[bool] = True

    carrier: str
    day: str
    cancelled: Sequence[bool]
    arr_delay_min: Sequence[float | None]


class FiguresRecorded(Event, frozen=True, gc=False):
    figures: Figures


class MonthAsked(Event, frozen=True, gc=False):
    """A command `AddDay` goes to the carrier's month book, on whatever partition that lives."""

    output: ClassVar[bool] = True

    month_id: str
    carrier: str
    day: str
    figures: Figures


class DayClosed(Event, frozen=True, gc=False):
    """The report goes to the stream `reports`. month_days: days in the month book when it took this one."""

    output: ClassVar[bool] = True

    carrier: str
    day: str
    figures: Figures
    month_days: int


class CloseFailed(Event, frozen=True, gc=False):
    """The book is open again; `reason` says who refused."""

    reason: str
