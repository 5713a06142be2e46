"""What can happen to any run, whatever it does: refusals, repeats, timers, removal. Pure."""

from __future__ import annotations

from typing import ClassVar

from millstream.events.envelope import CommandBody, Event


class RemoveRun(CommandBody, frozen=True, gc=False):
    """Forget an ended run. Its id stays as a tombstone for 7 days."""

    reason: str


class RecordRefusal(CommandBody, frozen=True, gc=False):
    """The answer to a command that a run sent and that was refused. request_id: the output that asked."""

    request_id: str
    code: str
    reason: str


class CommandRefused(Event, frozen=True, gc=False):
    """A command was judged and not accepted. code: a stable word; reason: what to do about it."""

    code: str
    reason: str


class RefusalAnswered(Event, frozen=True, gc=False):
    """The run that sent a refused command is told so (a `RecordRefusal` on its partition)."""

    output: ClassVar[bool] = True

    to_run: str
    to_partition: int
    request_id: str
    code: str
    reason: str


class CommandRepeated(Event, frozen=True, gc=False):
    """A second copy of a command that was decided before: no effect, and the first answer again.

    code: None where it was accepted.
    """

    code: str | None
    reason: str


class CommandForwarded(Event, frozen=True, gc=False):
    """The command at `offset` lay on a partition that isn't its run's, and goes on to the right one, unchanged."""

    output: ClassVar[bool] = True

    offset: int
    to_partition: int


class CommandDeadLettered(Event, frozen=True, gc=False):
    """The record at `offset` of `commands` can't be a command of ours; it goes to dead-letters, unchanged."""

    output: ClassVar[bool] = True

    offset: int
    reason: str


class TimerSet(Event, frozen=True, gc=False):
    """timer_id: unique in the run while it is set. due_at: ms, partition time."""

    timer_id: str
    due_at: int


class TimerCancelled(Event, frozen=True, gc=False):
    timer_id: str
    due_at: int


class TimerFired(Event, frozen=True, gc=False):
    timer_id: str
    due_at: int


class RunRemoved(Event, frozen=True, gc=False):
    """The run's rows are gone; a tombstone stays until `tombstone_until` (ms)."""

    reason: str
    tombstone_until: int
