"""Which decider judges what: by the noun of the run, else by the noun that a command begins. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream.events.daybook import CloseDay, EnterFlight, OpenDay, RecordFigures, RecordMonthAnswer, ShiftDay
from millstream.events.envelope import CommandBody
from millstream.events.monthbook import AddDay
from millstream.events.run import RecordRefusal, RemoveRun, TimerFired
from millstream.projections.run import Run
from millstream.streams.deciders import daybook, monthbook
from millstream.streams.deciders.cause import Cause, Decision, TimerDue
from millstream.streams.deciders.run import refuse

Decide = Callable[[Run | None, Any, Cause], Decision]

DECIDERS: dict[str, dict[type[CommandBody], Decide]] = {
    "daybook": daybook.DECIDERS,
    "monthbook": monthbook.DECIDERS,
}
_NOUN_OF_NEW: dict[type[CommandBody], str] = {
    OpenDay: "daybook",
    EnterFlight: "daybook",
    ShiftDay: "daybook",
    CloseDay: "daybook",
    RecordFigures: "daybook",
    RecordMonthAnswer: "daybook",
    RecordRefusal: "daybook",
    RemoveRun: "daybook",
    AddDay: "monthbook",
}


def decide(run: Run | None, cause: Cause) -> Decision:
    """Judge one cause on the run's state (None: there is no such run)."""
    body = cause.body
    kind = type(body)
    noun = run.noun if run is not None else _NOUN_OF_NEW.get(kind, "daybook")
    judge = DECIDERS[noun].get(kind)
    if judge is None:
        return refuse(cause, "wrong-kind", f"{cause.run_id!r} is a {noun}; it doesn't know {kind.__name__}.")
    return judge(run, body, cause)


def too_large(cause: Cause, size: int, limit: int) -> Decision:
    """What is decided instead of a transition that no log would take. A timer counts as fired, or it would be due for ever."""
    refused = refuse(
        cause,
        "too-large",
        f"what {type(cause.body).__name__} would record is {size:,} bytes, over the limit of {limit:,} bytes a record."
        f" Ask for less at a time.",
    )
    if isinstance(cause.body, TimerDue):
        return Decision((TimerFired(cause.body.timer_id, cause.body.due_at), *refused.events))
    return refused
