"""A run as it is now, whatever its noun, and its rows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from millstream.events.daybook import DayOpened
from millstream.events.envelope import Event
from millstream.events.monthbook import DayAdded
from millstream.projections import daybook, monthbook
from millstream.projections.daybook import DayBook, DayBookHead
from millstream.projections.keys import run_prefix
from millstream.projections.monthbook import MonthBook, MonthBookHead

State = DayBook | MonthBook


class Run(msgspec.Struct, eq=False):
    """A run; folds change it in place, so keep no hold of it over an `await`.

    timers: timer id -> due time in ms. key: what the keys of its rows begin with.
    """

    run_id: str
    noun: str
    state: State
    timers: dict[str, int] = msgspec.field(default_factory=dict)
    key: bytes = b""

    def __post_init__(self) -> None:
        self.key = run_prefix(self.run_id)


BEGIN: dict[type[Event], Callable[[Any], State]] = {DayOpened: daybook.begin, DayAdded: monthbook.begin}
"""Events that make a run where there is none."""

EVOLVE: dict[type[Event], Callable[[Any, Any, str], Iterable[int]]] = {**daybook.EVOLVE, **monthbook.EVOLVE}
"""Events that a noun folds."""

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(tuple[dict[str, int], DayBookHead | MonthBookHead]).decode


def head_row(run: Run) -> bytes:
    """Everything but the items."""
    state = run.state
    fields = daybook.head_of(state) if isinstance(state, DayBook) else monthbook.head_of(state)
    return encode((run.timers, (run.noun, *fields)))


def has_plan(run: Run) -> bool:
    """Whether a plan of the run has slices left, which come before anything else in it."""
    return isinstance(run.state, DayBook) and run.state.plan is not None


def items_of(run: Run) -> list[Any]:
    """The items by position; each is one row."""
    state = run.state
    return state.flights if isinstance(state, DayBook) else monthbook.items_of(state)


def from_rows(run_id: str, head: bytes, items: Iterable[bytes]) -> Run:
    """The run of a head row and its item rows in order of position."""
    timers, read = _head(head)
    if isinstance(read, DayBookHead):
        return Run(run_id, DayBook.noun, daybook.from_rows(read, items), timers)
    return Run(run_id, MonthBook.noun, monthbook.from_rows(read, items), timers)
