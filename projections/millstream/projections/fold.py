"""Fold transitions into runs and rows: the one fold that owners and all other readers use. Pure but for the store.

An owner folds what it decides into its tentative state, and writes the rows once
the append is proved; everybody else folds what it reads. `apply` never judges
and knows no clock: the same records give the same rows, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from millstream.events.envelope import Event, Ref, Sent, Transition
from millstream.events.errors import NewerFormat
from millstream.events.run import (
    CommandDeadLettered,
    CommandForwarded,
    CommandRefused,
    CommandRepeated,
    RefusalAnswered,
    RunRemoved,
    TimerCancelled,
    TimerFired,
    TimerSet,
)
from millstream.projections.keys import ANSWER, ITEM, pack_position, run_prefix
from millstream.projections.run import BEGIN, EVOLVE, Run, encode, items_of
from millstream.projections.runs import RUNS_MAX, Answer, Output, Runs, Tombstone
from millstream.projections.timers import Rows

__all__ = ["FOLDS_VERSION", "RUNS_MAX", "Answer", "Output", "Rows", "Runs", "Tombstone", "apply", "finish"]

FOLDS_VERSION = 1
"""Raise it with every change of the rows that the same journal gives: stores of another version are rebuilt."""


def apply(runs: Runs, transition: Transition, ref: Ref, rows: Rows) -> None:
    """Fold one transition, the journal record `ref`, into `runs`; put the rows that change into `rows`.

    `rows` is the same dictionary for all of a batch; call `finish` once behind the last one.
    Raises `NewerFormat` on an event that these folds don't know.
    """
    runs.at = transition.at
    runs.open = rows
    if transition.sent is not None:
        runs.forget_outputs(transition.sent, rows)
    run_id, command_id = transition.run_id, transition.command_id
    run: Run | None = None
    code: str | None = None
    reason = ""
    for index, event in enumerate(transition.events):
        kind = type(event)
        asked = _ask(runs, transition, ref, index, rows) if kind.output else ""
        evolve = EVOLVE.get(kind)
        if evolve is not None:
            if run is None:
                run = runs.get(run_id) or _begin(runs, run_id, event)
            _put_items(run, evolve(run.state, event, asked), rows)
            runs.touch(run_id)
        elif kind in TIMER_EVENTS:
            if run is None:
                run = _existing(runs, run_id, event)
            TIMER_EVENTS[kind](runs, run, event, rows)
        elif isinstance(event, CommandRefused):
            code, reason = event.code, event.reason
        elif isinstance(event, CommandRepeated):
            # The first copy's answer stands.
            command_id = None
        elif isinstance(event, RunRemoved):
            _bury(runs, transition, event, rows)
            command_id = run = None
        elif kind not in NO_STATE:
            raise NewerFormat(
                f"run {run_id!r}: these folds (version {FOLDS_VERSION}) don't know the event {kind.__name__}."
                f" The journal was written by a newer release; upgrade this process."
            )
    if command_id is not None and run_id:
        key = (run_prefix(run_id) if run is None else run.key) + ANSWER + command_id.encode()
        rows[key] = encode(Answer(code, reason, transition.reply, transition.at))
        runs.answered.add(run_id)


def finish(runs: Runs, rows: Rows) -> None:
    """Complete a batch: put one head row for each run that changed. Before anything of the next batch is applied."""
    runs.seal(rows)


def _begin(runs: Runs, run_id: str, event: Event) -> Run:
    begin = BEGIN.get(type(event))
    if begin is None:
        return _existing(runs, run_id, event)
    state = begin(event)
    run = Run(run_id, state.noun, state)
    runs.begin(run)
    return run


def _existing(runs: Runs, run_id: str, event: Event) -> Run:
    run = runs.get(run_id)
    if run is None:
        # Only a decider that is wrong, or a journal with holes, gets here: there is nothing to fold it into.
        raise LookupError(f"{type(event).__name__} for run {run_id!r}, which doesn't exist")
    return run


def _ask(runs: Runs, transition: Transition, ref: Ref, index: int, rows: Rows) -> str:
    """Put the output of the event at `index` into the outbox; returns its id."""
    sent = Sent(ref.epoch_offset, ref.claim_id, ref.number, index)
    runs.put_output(sent, (transition.run_id, transition.at, transition.events[index]), rows)
    return ref.output_id(index)


def _put_items(run: Run, positions: Iterable[int], rows: Rows) -> None:
    if positions:
        items, prefix = items_of(run), run.key + ITEM
        for position in positions:
            rows[prefix + pack_position(position)] = encode(items[position])


def _bury(runs: Runs, transition: Transition, removed: RunRemoved, rows: Rows) -> None:
    """The answer goes into the tombstone, since the run's own are gone with it."""
    answer = None
    if transition.command_id is not None:
        answer = Answer(None, "", transition.reply, transition.at)
    runs.bury(transition.run_id, Tombstone(removed.tombstone_until, transition.command_id, answer), rows)


def _timer_set(runs: Runs, run: Run, event: TimerSet, rows: Rows) -> None:
    run.timers[event.timer_id] = event.due_at
    runs.touch(run.run_id)
    runs.timers.change(event.due_at, run.run_id, event.timer_id, rows, is_set=True)


def _timer_over(runs: Runs, run: Run, event: TimerCancelled | TimerFired, rows: Rows) -> None:
    run.timers.pop(event.timer_id, None)
    runs.touch(run.run_id)
    runs.timers.change(event.due_at, run.run_id, event.timer_id, rows, is_set=False)


TIMER_EVENTS: dict[type[Event], Callable[[Runs, Run, Any, Rows], None]] = {
    TimerSet: _timer_set,
    TimerCancelled: _timer_over,
    TimerFired: _timer_over,
}
NO_STATE = frozenset({CommandForwarded, CommandDeadLettered, RefusalAnswered})
