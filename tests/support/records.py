"""Any record of ours, of any content, for hypothesis: made from the structs' annotations."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from millstream.events.daybook import EnterFlight, FlightEntered
from millstream.events.envelope import CommandBody, Event, Sent, Transition
from millstream.events.schema_files import COMMANDS, EVENTS, TOP_LEVEL

INT64 = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-200, 200) | st.integers(0, 1 << 45)
UINT64 = st.integers(0, (1 << 64) - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
FLOATS = st.floats(allow_nan=False)

FLIGHT = FlightEntered(5, "1234", "JFK", "BUF", False, 12.0)
ENTER = EnterFlight("1234", "JFK", "BUF", False, 12.0)
TRANSITION = Transition(
    at=1_700_000_000_000,
    run_id="9E-2013-01-16",
    command_id="01JABCDEFGHJKMNPQRSTVWXYZ0",
    command_offset=123_456,
    sent=None,
    reply=None,
    events=[FLIGHT],
)
WITH_SENT = msgspec.structs.replace(TRANSITION, sent=Sent(123, 0xFEDC_BA98_7654_3210, 12, 0))


def records() -> st.SearchStrategy[msgspec.Struct]:
    """A record of its own, of any type that we have."""
    return st.one_of([of(cls) for cls in TOP_LEVEL])


def of(cls: type) -> st.SearchStrategy[Any]:
    """Any value of a struct or named tuple."""
    hints = typing.get_type_hints(cls)
    names = getattr(cls, "__struct_fields__", None) or getattr(cls, "_fields", ())
    return st.builds(cls, **{name: UINT64 if name == "claim_id" else _value(hints[name]) for name in names})


def _value(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of([_value(argument) for argument in typing.get_args(hint)])
    if typing.get_origin(hint) is Sequence:
        return st.lists(_value(typing.get_args(hint)[0]), max_size=5)
    if hint in (Event, CommandBody):
        return st.one_of([of(cls) for cls in (EVENTS if hint is Event else COMMANDS)])
    simple = {int: INT64, float: FLOATS, str: TEXT, bool: st.booleans(), bytes: st.binary(max_size=300)}
    if hint in simple:
        return simple[hint]
    return st.none() if hint is type(None) else of(hint)
