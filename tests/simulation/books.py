"""What day books and month books may do, told a second time and in the simplest way, to check the real ones by.

Knows nothing of deciders and folds. `Books.judge` says which events a command
must lead to, by name, or with which word it must be refused; `Books.follow`
checks the values of events, and changes the books.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import fsum
from typing import Any

from millstream.events import daybook as d
from millstream.events import monthbook as m
from millstream.events import run as r
from millstream.events.envelope import Command, CommandBody, Event

DAY_MS = 24 * 60 * 60 * 1000
RESERVED_MS = 7 * DAY_MS


class Violation(AssertionError):
    """A promise was broken. The text says which, and where."""


def need(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@dataclass
class Day:
    carrier: str
    day: str
    status: str = "open"
    flights: list[list[Any]] = field(default_factory=list)
    """[cancelled, delay or None]"""
    shift: tuple[float, int, int] | None = None
    """minutes, flights, done"""
    closes_at: int | None = None
    waits_for: tuple[str, str] | None = None
    """id of the request, and 'figures' or 'month'"""
    figures: d.Figures | None = None
    reports: int = 0


@dataclass
class Month:
    days: dict[str, d.Figures] = field(default_factory=dict)


def figures_of(flights: list[list[Any]]) -> d.Figures:
    """The figures of a day, computed plainly."""
    delays = [delay for _, delay in flights if delay is not None]
    n = len(delays)
    return d.Figures(
        flights=len(flights),
        arrived=n,
        cancelled=sum(1 for cancelled, _ in flights if cancelled),
        mean_arr_delay_min=fsum(delays) / n if n else None,
        max_arr_delay_min=max(delays) if n else None,
        share_late=sum(1 for delay in delays if delay > 30.0) / n if n else None,
    )


class Books:
    """The runs of one partition as the valid journal has made them, with the answers that they have given."""

    def __init__(self, slice_flights: int) -> None:
        self._slice = slice_flights
        self.runs: dict[str, Day | Month] = {}
        self.answers: dict[str, dict[str, tuple[str | None, bytes | None]]] = {}
        self.reserved: dict[str, int] = {}
        self.timers: set[tuple[int, str, str]] = set()

    @property
    def plans(self) -> list[str]:
        return [run_id for run_id, run in self.runs.items() if isinstance(run, Day) and run.shift is not None]

    @property
    def waiting(self) -> list[str]:
        """Runs that wait for an answer."""
        return [run_id for run_id, run in self.runs.items() if isinstance(run, Day) and run.waits_for is not None]

    # ------------------------------------------------------------------ judging

    def judge(self, command: Command, at: int, appended_at: int) -> tuple[str, ...]:
        """Names of the events that the command must lead to; a refusal stands as its word after '!'."""
        run_id, command_id = command.run_id, command.command_id
        if command_id in self.answers.get(run_id, {}):
            return ("CommandRepeated",)
        refused = self._refusal(command, at, appended_at)
        if refused is None:
            return self._accepted(self.runs.get(run_id), command)
        return (f"!{refused}",) if command.origin is None else (f"!{refused}", "RefusalAnswered")

    def _refusal(self, command: Command, at: int, appended_at: int) -> str | None:
        run, body = self.runs.get(command.run_id), command.body
        if at < self.reserved.get(command.run_id, -1):
            return "removed"
        if appended_at + RESERVED_MS < at:
            return "too-old"
        if isinstance(body, m.AddDay):
            if isinstance(run, Day):
                return "wrong-kind"
            return "exists" if run is not None and body.day in run.days else None
        if isinstance(run, Month):
            return "not-ended" if isinstance(body, r.RemoveRun) else "wrong-kind"
        return self._refused_by_day(run, command)

    def _refused_by_day(self, run: Day | None, command: Command) -> str | None:
        body = command.body
        match body:
            case d.OpenDay(carrier=carrier, day=day):
                if run is not None:
                    return "exists"
                return None if command.run_id == f"{carrier}-{day}" else "wrong-id"
            case d.RecordFigures(request_id=request):
                return None if run is not None and run.waits_for == (request, "figures") else "stale"
            case d.RecordMonthAnswer(request_id=request):
                return None if run is not None and run.waits_for == (request, "month") else "stale"
            case r.RecordRefusal(request_id=request):
                return None if run is not None and run.waits_for and run.waits_for[0] == request else "stale"
        if run is None:
            return "not-found"
        match body:
            case d.EnterFlight() | d.CloseDay():
                return None if run.status == "open" else "not-open"
            case d.ShiftDay():
                if run.status != "open":
                    return "not-open"
                return None if run.flights else "empty"
            case r.RemoveRun():
                return None if run.status == "closed" else "not-ended"
        return "wrong-kind"

    def _accepted(self, run: Day | Month | None, command: Command) -> tuple[str, ...]:
        body: CommandBody = command.body
        match body:
            case d.OpenDay(close_at=close_at):
                return ("DayOpened",) if close_at is None else ("DayOpened", "TimerSet")
            case d.EnterFlight():
                return ("FlightEntered",)
            case d.RecordFigures(figures=figures):
                return ("CloseFailed",) if figures is None else ("FiguresRecorded", "MonthAsked")
            case d.RecordMonthAnswer():
                return ("DayClosed",)
            case r.RecordRefusal():
                return ("CloseFailed",)
            case r.RemoveRun():
                return ("RunRemoved",)
            case m.AddDay():
                return ("DayAdded",) if command.origin is None else ("DayAdded", "MonthAnswered")
        assert isinstance(run, Day)
        if isinstance(body, d.ShiftDay):
            return ("ShiftPlanned",) if len(run.flights) > self._slice else ("ShiftPlanned", "FlightsShifted")
        return (
            ("DayClosing", "FiguresAsked")
            if run.closes_at is None
            else ("DayClosing", "TimerCancelled", "FiguresAsked")
        )

    # ------------------------------------------------------------------ following

    def follow(self, run_id: str, event: Event, output_id: str, at: int) -> None:
        """Check one event's values on what is there, and take it in."""
        match event:
            case d.DayOpened(carrier=carrier, day=day):
                need(run_id not in self.runs, f"{run_id} is opened and exists")
                need(at >= self.reserved.get(run_id, at), f"{run_id} is opened while its id is reserved")
                self.runs[run_id] = Day(carrier, day)
            case m.DayAdded(day=day, figures=figures, days=days):
                month = self.runs.setdefault(run_id, Month())
                assert isinstance(month, Month)
                need(day not in month.days, f"{run_id} counts {day} twice")
                month.days[day] = figures
                need(days == len(month.days), f"{run_id} says {days} days and has {len(month.days)}")
            case r.TimerSet(timer_id=timer_id, due_at=due_at):
                self.timers.add((due_at, run_id, timer_id))
                self._day(run_id).closes_at = due_at
            case r.TimerCancelled(timer_id=timer_id, due_at=due_at):
                self._end_timer(run_id, timer_id, due_at)
            case r.TimerFired(timer_id=timer_id, due_at=due_at):
                self._fired(run_id, timer_id, due_at, at)
            case r.RunRemoved(tombstone_until=until):
                self._removed(run_id, until, at)
            case (
                r.CommandRefused() | r.CommandRepeated() | r.CommandForwarded() | r.CommandDeadLettered()
                | r.RefusalAnswered() | m.MonthAnswered()
            ):  # fmt: skip
                pass
            case _:
                self._follow_day(run_id, self._day(run_id), event, output_id)

    def _follow_day(self, run_id: str, run: Day, event: Event, output_id: str) -> None:
        match event:
            case d.FlightEntered(position=position, cancelled=cancelled, arr_delay_min=delay):
                need(run.status == "open", f"{run_id} takes a flight and is {run.status}")
                need(position == len(run.flights), f"{run_id}: flight {position} after {len(run.flights)}")
                run.flights.append([cancelled, delay])
            case d.ShiftPlanned(minutes=minutes, flights=flights):
                need(run.status == "open" and flights == len(run.flights), f"{run_id}: plan for {flights} flights")
                run.status, run.shift = "shifting", (minutes, flights, 0)
            case d.FlightsShifted(first=first, count=count, minutes=minutes):
                self._shifted(run_id, run, first, count, minutes)
            case d.DayClosing():
                need(run.status == "open", f"{run_id} closes and is {run.status}")
                run.status = "closing"
            case d.FiguresAsked(cancelled=cancelled, arr_delay_min=delays):
                need(run.status == "closing", f"{run_id} asks for figures and is {run.status}")
                asked = [[c, delay] for c, delay in zip(cancelled, delays, strict=True)]
                need(asked == run.flights, f"{run_id} asks for figures of {asked}, and has {run.flights}")
                run.waits_for = (output_id, "figures")
            case d.FiguresRecorded(figures=figures):
                right = figures_of(run.flights)
                need(figures == right, f"{run_id} records {figures}; right is {right}")
                run.figures, run.waits_for = figures, None
            case d.MonthAsked(figures=figures):
                need(figures == run.figures, f"{run_id} sends other figures than it recorded")
                run.waits_for = (output_id, "month")
            case d.DayClosed(figures=figures):
                need(run.status == "closing" and figures == run.figures, f"{run_id} is closed and was {run.status}")
                run.status, run.waits_for = "closed", None
                run.reports += 1
                need(run.reports == 1, f"{run_id} is closed {run.reports} times")
            case d.CloseFailed():
                need(run.status == "closing", f"{run_id} fails to close and is {run.status}")
                run.status, run.waits_for, run.figures = "open", None, None
            case _:
                raise Violation(f"{run_id} has an event that nobody knows: {event}")

    def _day(self, run_id: str) -> Day:
        run = self.runs.get(run_id)
        if not isinstance(run, Day):
            raise Violation(f"an event for the day book {run_id!r}, and it is {run}")
        return run

    def _shifted(self, run_id: str, run: Day, first: int, count: int, minutes: float) -> None:
        need(run.shift is not None, f"{run_id} is shifted without a plan")
        assert run.shift is not None
        planned, flights, done = run.shift
        need(first == done and minutes == planned, f"{run_id}: slice from {first} by {minutes}, plan {run.shift}")
        need(0 < count <= max(self._slice, 1), f"{run_id}: a slice of {count} flights")
        for flight in run.flights[first : first + count]:
            if flight[1] is not None:
                flight[1] += minutes
        run.shift = (planned, flights, done + count)
        if done + count >= flights:
            run.status, run.shift = "open", None

    def _end_timer(self, run_id: str, timer_id: str, due_at: int) -> None:
        need((due_at, run_id, timer_id) in self.timers, f"{run_id}: timer {timer_id} of {due_at} ends, and isn't set")
        self.timers.discard((due_at, run_id, timer_id))
        self._day(run_id).closes_at = None

    def _fired(self, run_id: str, timer_id: str, due_at: int, at: int) -> None:
        key = (due_at, run_id, timer_id)
        need(key in self.timers, f"{run_id}: timer {timer_id} of {due_at} fires, and isn't set (or a second time)")
        need(at >= due_at, f"{run_id}: timer {timer_id} of {due_at} fires early, at {at}")
        first = min(self.timers)
        need(first == key, f"timer {key} fires before {first}")
        self._end_timer(run_id, timer_id, due_at)

    def _removed(self, run_id: str, until: int, at: int) -> None:
        need(self._day(run_id).status == "closed", f"{run_id} is removed and not closed")
        need(until == at + RESERVED_MS, f"{run_id}: its id is reserved until {until}, removed at {at}")
        del self.runs[run_id]
        self.answers.pop(run_id, None)
        self.timers -= {t for t in self.timers if t[1] == run_id}
        self.reserved[run_id] = until
