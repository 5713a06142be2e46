"""What a decider is given and what it gives back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from millstream.events.envelope import CommandBody, Event, Origin


class TimerDue(CommandBody, frozen=True, gc=False):
    """A timer of the run is due. Never on the log: the owner makes it from the run's own timers."""

    timer_id: str
    due_at: int


class SliceDue(CommandBody, frozen=True, gc=False):
    """The run has an unfinished plan; what is its next slice? Never on the log."""


class Cause(msgspec.Struct, frozen=True, gc=False):
    """Why something is to be decided, with all that a decider can't know by itself.

    at: partition time in ms. command_id, origin: None for timers and slices. request_id: what `origin` asked under.
    """

    run_id: str
    body: CommandBody
    at: int
    command_id: str | None = None
    origin: Origin | None = None


class Decision(NamedTuple):
    """The events of one transition, and what the asker is told (JSON), beside "accepted" or the refusal."""

    events: Sequence[Event]
    reply: bytes | None = None


class Nothing(CommandBody, frozen=True, gc=False):
    """No cause in any run: the owner only notes what was sent."""


NOTHING = Nothing()


def next_slice(run_id: str, at: int) -> Cause:
    """The cause that asks an unfinished plan for its next slice."""
    return Cause(run_id, SliceDue(), at)
