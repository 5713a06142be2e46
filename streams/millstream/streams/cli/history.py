"""`millstream history`: what happened to a run, event by event, with what caused it."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from millstream.events.envelope import Event
from millstream.events.run import TimerFired
from millstream.streams.cli.console import DONE, counted, err, escape, out, print_json
from millstream.streams.cli.journal import Entry, find_run
from millstream.streams.cli.session import notice, reading
from millstream.streams.cli.settings import Setting
from millstream.streams.cli.tail import at, fields_text

_BAD = frozenset({"CommandRefused", "CommandDeadLettered", "CloseFailed"})


async def history(address: Setting, prefix: str, asked: str, *, as_json: bool, ends: int | None) -> int:
    """Print a run's history; the exit code. ends: only so many transitions at both ends, None for all."""
    async with reading(address, prefix) as session:
        run_id, entries = await find_run(session, asked, notice)
        partition = session.topics.partition_of(run_id)
    if as_json:
        for entry in entries:
            print_json(_as_json(run_id, partition, entry))
        return DONE
    left_out = max(0, len(entries) - 2 * ends) if ends is not None else 0
    events = sum(len(entry.transition.events) for entry in entries)
    out.print(
        Text.assemble(
            (run_id, "bold"),
            f"   partition {partition}   {counted(len(entries), 'transition')}, {counted(events, 'event')}"
            f"   {at(entries[0].transition.at)[:10]} UTC",
        )
    )
    out.print(_table(entries, ends if left_out else None, left_out))
    if run_id != asked:
        err.print(f"({escape(asked)} is {run_id})", style="dim", markup=False)
    return DONE


def _as_json(run_id: str, partition: int, entry: Entry) -> dict[str, Any]:
    t = entry.transition
    return {
        "run_id": run_id,
        "partition": partition,
        "offset": entry.offset,
        "timestamp": entry.timestamp,
        "at": t.at,
        "command_id": t.command_id,
        "command_offset": t.command_offset,
        "reply": None if t.reply is None else msgspec.Raw(t.reply),
        "events": list(t.events),
    }


def _table(entries: list[Entry], ends: int | None, left_out: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("offset", justify="right", style="cyan", no_wrap=True)
    table.add_column("time", style="dim", no_wrap=True)
    table.add_column("cause", overflow="fold", max_width=22)
    table.add_column("events", overflow="fold", ratio=1)
    day = at(entries[0].transition.at)[:10]
    for index, entry in enumerate(entries):
        if ends is not None and ends <= index < len(entries) - ends:
            if index == ends:
                table.add_row("⋮", "", "", Text(f"{counted(left_out, 'transition')} left out", "dim italic"))
            continue
        day, before = at(entry.transition.at)[:10], day
        if day != before:
            table.add_row("", day, "", "")
        _add(table, entry)
    return table


def _add(table: Table, entry: Entry) -> None:
    """A row for each event; offset, time and cause only at the first of the transition."""
    t = entry.transition
    first = (str(entry.offset), at(t.at)[11:], Text(escape(_cause(entry))))
    if not t.events:
        table.add_row(*first, "")
    for event in t.events:
        name = type(event).__name__
        shown = Text.assemble((name, "bold red" if name in _BAD else "bold"), " ", _fields(event))
        table.add_row(*first, shown)
        first = ("", "", Text())


def _cause(entry: Entry) -> str:
    t = entry.transition
    if t.command_id is not None:
        return t.command_id
    for event in t.events:
        if isinstance(event, TimerFired):
            return f"(timer {event.timer_id})"
    return "(plan)" if t.events else "(watermark)"


def _fields(event: Event) -> str:
    return fields_text(msgspec.json.decode(msgspec.json.encode(event)))
