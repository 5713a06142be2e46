"""Decide what happens to a day book. Pure.

    (none) --OpenDay--> open --CloseDay or timer--> closing: asks the kernel, then the month book --> closed
             a refusal or a failed kernel on the way: open again

Whatever answers is accepted only while exactly the request that it names is open.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, cast

from millstream.events.daybook import (
    CloseDay,
    CloseFailed,
    DayClosed,
    DayClosing,
    DayOpened,
    EnterFlight,
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
from millstream.events.envelope import CommandBody, Event
from millstream.events.run import RecordRefusal, RemoveRun, TimerCancelled, TimerFired, TimerSet
from millstream.projections.daybook import DayBook
from millstream.projections.run import Run
from millstream.streams.deciders.cause import Cause, Decision, SliceDue, TimerDue
from millstream.streams.deciders.run import no_such_run, refuse, remove

CLOSE_TIMER = "close"
SLICE_FLIGHTS = 500
"""Flights shifted by one record: a day of any size becomes records of a bounded one."""


def month_of(carrier: str, day: str) -> str:
    """Run id of the month book: '9E', '2013-01-16' -> '9E-2013-01'."""
    return f"{carrier}-{day[:7]}"


def _book(run: Run) -> DayBook:
    return cast(DayBook, run.state)


def _open(run: Run | None, body: OpenDay, cause: Cause) -> Decision:
    if run is not None:
        return refuse(
            cause, "exists", f"day book {cause.run_id!r} is {_book(run).status} already; enter flights, or close it."
        )
    if cause.run_id != f"{body.carrier}-{body.day}":
        return refuse(
            cause,
            "wrong-id",
            f"the day book of {body.carrier} on {body.day} is {body.carrier}-{body.day}, not {cause.run_id!r}.",
        )
    events: list[Event] = [DayOpened(body.carrier, body.day)]
    if body.close_at is not None:
        events.append(TimerSet(CLOSE_TIMER, body.close_at))
    return Decision(events)


def _enter(run: Run | None, body: EnterFlight, cause: Cause) -> Decision:
    if run is None:
        return no_such_run(cause, "day book", "Open it first (OpenDay).")
    book = _book(run)
    if book.status != "open":
        return _not_open(book, cause, "takes no more flights")
    if body.arr_delay_min is not None and not isfinite(body.arr_delay_min):
        return _not_finite(cause, "arr_delay_min", body.arr_delay_min)
    position = len(book.flights)
    entered = FlightEntered(position, body.flight, body.origin, body.dest, body.cancelled, body.arr_delay_min)
    return Decision((entered,), str(position).encode())


def _shift(run: Run | None, body: ShiftDay, cause: Cause) -> Decision:
    if run is None:
        return no_such_run(cause, "day book", "Open it first (OpenDay).")
    book = _book(run)
    if book.status != "open":
        return _not_open(book, cause, "can't be shifted")
    if not isfinite(body.minutes):
        return _not_finite(cause, "minutes", body.minutes)
    count = len(book.flights)
    if count == 0:
        return refuse(cause, "empty", f"day book {cause.run_id!r} has no flights to shift. Enter some first.")
    planned = ShiftPlanned(body.minutes, count)
    if count > SLICE_FLIGHTS:
        return Decision((planned,))
    return Decision((planned, FlightsShifted(0, count, body.minutes)))


def _next_slice(run: Run | None, _body: SliceDue, _cause: Cause) -> Decision:
    if run is None or (plan := _book(run).plan) is None:
        return Decision(())
    count = min(SLICE_FLIGHTS, plan.flights - plan.done)
    return Decision((FlightsShifted(plan.done, count, plan.minutes),))


def _not_open(book: DayBook, cause: Cause, what: str) -> Decision:
    return refuse(cause, "not-open", f"day book {cause.run_id!r} is {book.status} and {what}.")


def _not_finite(cause: Cause, field: str, value: float) -> Decision:
    return refuse(
        cause,
        "not-finite",
        f"{field} is {value!r}; it has to be a number of minutes, or null where a flight did not arrive.",
    )


def _close_events(run: Run, by: str) -> list[Event]:
    book = _book(run)
    events: list[Event] = [DayClosing(by)]
    if by != "timer" and CLOSE_TIMER in run.timers:
        events.append(TimerCancelled(CLOSE_TIMER, run.timers[CLOSE_TIMER]))
    flights = book.flights
    events.append(
        FiguresAsked(book.carrier, book.day, [f.cancelled for f in flights], [f.arr_delay_min for f in flights])
    )
    return events


def _close(run: Run | None, _body: CloseDay, cause: Cause) -> Decision:
    if run is None:
        return no_such_run(cause, "day book", "Open it first (OpenDay).")
    if _book(run).status != "open":
        return _not_open(_book(run), cause, "can't be closed again")
    return Decision(_close_events(run, "client"))


def _timer(run: Run | None, body: TimerDue, _cause: Cause) -> Decision:
    fired = TimerFired(body.timer_id, body.due_at)
    if run is None or body.timer_id != CLOSE_TIMER or _book(run).status != "open":
        return Decision((fired,))
    return Decision((fired, *_close_events(run, "timer")))


def _stale(cause: Cause, request_id: str) -> Decision:
    return refuse(
        cause,
        "stale",
        f"{cause.run_id!r} doesn't wait for an answer to {request_id!r}: it has had one, or asked anew. Nothing to do.",
    )


def _figures(run: Run | None, body: RecordFigures, cause: Cause) -> Decision:
    if run is None or _book(run).request != body.request_id or _book(run).asks != "figures":
        return _stale(cause, body.request_id)
    book = _book(run)
    if body.figures is None:
        return Decision((CloseFailed(f"the kernel could not compute the figures: {body.error}"),))
    asked = MonthAsked(month_of(book.carrier, book.day), book.carrier, book.day, body.figures)
    return Decision((FiguresRecorded(body.figures), asked))


def _month_answer(run: Run | None, body: RecordMonthAnswer, cause: Cause) -> Decision:
    if run is None or _book(run).request != body.request_id or _book(run).asks != "month":
        return _stale(cause, body.request_id)
    book = _book(run)
    assert book.figures is not None
    return Decision((DayClosed(book.carrier, book.day, book.figures, body.days),))


def _refusal(run: Run | None, body: RecordRefusal, cause: Cause) -> Decision:
    if run is None or _book(run).request != body.request_id:
        return _stale(cause, body.request_id)
    return Decision((CloseFailed(f"the month book refused ({body.code}): {body.reason}"),))


def _remove(run: Run | None, body: RemoveRun, cause: Cause) -> Decision:
    if run is None:
        return no_such_run(cause, "run", "It may have been removed before.")
    status = _book(run).status
    return remove(cause, ended=status == "closed", reason=body.reason, why_not=f"its book is {status}")


DECIDERS: dict[type[CommandBody], Callable[[Run | None, Any, Cause], Decision]] = {
    OpenDay: _open,
    EnterFlight: _enter,
    ShiftDay: _shift,
    SliceDue: _next_slice,
    CloseDay: _close,
    TimerDue: _timer,
    RecordFigures: _figures,
    RecordMonthAnswer: _month_answer,
    RecordRefusal: _refusal,
    RemoveRun: _remove,
}
