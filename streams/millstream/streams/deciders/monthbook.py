"""Decide what happens to a month book. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from millstream.events.envelope import CommandBody, Event
from millstream.events.monthbook import AddDay, DayAdded, MonthAnswered
from millstream.events.run import RemoveRun
from millstream.projections.monthbook import MonthBook
from millstream.projections.run import Run
from millstream.streams.deciders.cause import Cause, Decision
from millstream.streams.deciders.run import no_such_run, refuse, remove


def _add(run: Run | None, body: AddDay, cause: Cause) -> Decision:
    book = cast(MonthBook, run.state) if run is not None else None
    if book is not None and body.day in book.days:
        return refuse(
            cause,
            "exists",
            f"month book {cause.run_id!r} has {body.day} already. A day is added once; correct it by hand.",
        )
    days = (len(book.days) if book is not None else 0) + 1
    events: list[Event] = [DayAdded(body.carrier, body.day, body.figures, days)]
    if cause.origin is not None and cause.command_id is not None:
        events.append(MonthAnswered(cause.origin.run_id, cause.origin.partition, cause.command_id, days))
    return Decision(events, str(days).encode())


def _remove(run: Run | None, body: RemoveRun, cause: Cause) -> Decision:
    if run is None:
        return no_such_run(cause, "run", "It may have been removed before.")
    return remove(cause, ended=False, reason=body.reason, why_not="a month book stays open for late days")


DECIDERS: dict[type[CommandBody], Callable[[Run | None, Any, Cause], Decision]] = {AddDay: _add, RemoveRun: _remove}
