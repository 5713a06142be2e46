"""What an event sends, after it was proved. Pure: the same event gives the same output, whoever sends it, and whenever."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from millstream.events.daybook import DayClosed, FiguresAsked, MonthAsked, RecordMonthAnswer
from millstream.events.envelope import Command, Event, Origin
from millstream.events.flight import DayReport
from millstream.events.kernel import Array, KernelCalled
from millstream.events.monthbook import AddDay, MonthAnswered
from millstream.events.run import CommandDeadLettered, CommandForwarded, RecordRefusal, RefusalAnswered

KERNEL = "day_figures"
REPORTS = "reports"


class SendCommand(msgspec.Struct, frozen=True):
    """To `commands`. partition: None for the one of the run id."""

    command: Command
    partition: int | None


class CallKernel(msgspec.Struct, frozen=True):
    """To the kernel's batch topic."""

    call: KernelCalled


class Publish(msgspec.Struct, frozen=True):
    """To a stream, by key."""

    stream: str
    key: str
    record: msgspec.Struct


class CopyCommand(msgspec.Struct, frozen=True):
    """The raw record at `offset` of this partition's `commands`: to another partition of it, or to dead-letters (None)."""

    offset: int
    to_partition: int | None
    reason: str = ""


Output = SendCommand | CallKernel | Publish | CopyCommand


def _array_f8(name: str, values: Sequence[float | None]) -> Array:
    nan = float("nan")
    data = struct.pack(f"<{len(values)}d", *[nan if v is None else v for v in values])
    return Array(name, "<f8", (len(values),), data)


def _figures_asked(e: FiguresAsked, output_id: str, run_id: str, partition: int) -> Output:
    cancelled = Array("cancelled", "|b1", (len(e.cancelled),), bytes(e.cancelled))
    arrays = (cancelled, _array_f8("arr_delay_min", e.arr_delay_min))
    return CallKernel(KernelCalled(output_id, KERNEL, run_id, partition, arrays))


def _month_asked(e: MonthAsked, output_id: str, run_id: str, partition: int) -> Output:
    body = AddDay(e.carrier, e.day, e.figures)
    return SendCommand(Command(output_id, e.month_id, Origin(run_id, partition), body), None)


def _month_answered(e: MonthAnswered, output_id: str, _run_id: str, _partition: int) -> Output:
    body = RecordMonthAnswer(e.request_id, e.days)
    return SendCommand(Command(output_id, e.to_run, None, body), e.to_partition)


def _refusal_answered(e: RefusalAnswered, output_id: str, _run_id: str, _partition: int) -> Output:
    body = RecordRefusal(e.request_id, e.code, e.reason)
    return SendCommand(Command(output_id, e.to_run, None, body), e.to_partition)


def _day_closed(e: DayClosed, output_id: str, _run_id: str, _partition: int) -> Output:
    f = e.figures
    report = DayReport(
        event_id=output_id,
        carrier=e.carrier,
        day=e.day,
        flights=f.flights,
        arrived=f.arrived,
        cancelled=f.cancelled,
        mean_arr_delay_min=f.mean_arr_delay_min,
        max_arr_delay_min=f.max_arr_delay_min,
        share_late=f.share_late,
        month_days=e.month_days,
    )
    return Publish(REPORTS, e.carrier, report)


def _forwarded(e: CommandForwarded, _output_id: str, _run_id: str, _partition: int) -> Output:
    return CopyCommand(e.offset, e.to_partition)


def _dead_lettered(e: CommandDeadLettered, _output_id: str, _run_id: str, _partition: int) -> Output:
    return CopyCommand(e.offset, None, e.reason)


REACTIONS: dict[type[Event], Callable[[Any, str, str, int], Output]] = {
    FiguresAsked: _figures_asked,
    MonthAsked: _month_asked,
    MonthAnswered: _month_answered,
    RefusalAnswered: _refusal_answered,
    DayClosed: _day_closed,
    CommandForwarded: _forwarded,
    CommandDeadLettered: _dead_lettered,
}


def react(event: Event, *, output_id: str, run_id: str, partition: int) -> Output:
    """The one output of an event whose class has `output`. partition: of the run, where answers are wanted."""
    return REACTIONS[type(event)](event, output_id, run_id, partition)
