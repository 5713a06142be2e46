"""Fold transitions into runs and rows: the one fold that owners and all other readers use. Pure but for the store.

An owner folds what it decides into its tentative state, and writes the rows once
the append is proved; everybody else folds what it reads. `apply` never judges
and knows no clock: the same records give the same rows, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable
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
from millstream.projections.keys import ITEM, pack_position
from millstream.projections.run import BEGIN, EVOLVE, Run, encode, items_of
from millstream.projections.runs import RUNS_MAX, Answer, Output, Runs, Tombstone
from millstream.projections.timers import Rows

__all__ = ["FOLDS_VERSION", "RUNS_MAX", "Answer", "Output", "Rows", "Runs", "Tombstone", "apply", "finish"]

FOLDS_VERSION = 1
"""Raise it with every change of the rows that the same journal gives: stores of another version are rebuilt."""


def apply(runs: Runs, transition: Transition, ref: Ref, rows: Rows) -> None:
    """Fold one transition, the journal record `ref`, into `runs`; put the rows that change into `rows`.

    Raises `NewerFormat` on an event that these folds don't know. Call `finish` once for the whole batch.
    """
    runs.at = transition.at
    if transition.sent is not None:
        runs.forget_outputs(transition.sent, rows)
    run_id, events = transition.run_id, transition.events
    run: Run | None = None
    for index, event in enumerate(events):
        kind = type(event)
        asked = ""
        if kind.output:
            asked = ref.output_id(index)
            sent = Sent(ref.epoch_offset, ref.claim_id, ref.number, index)
            runs.put_output(sent, (run_id, transition.at, event), rows)
        if kind in EVOLVE:
            if run is None:
                run = runs.get(run_id) or _begin(runs, run_id, event)
            _evolve(runs, run, event, asked, rows)
        elif kind in TIMER_EVENTS:
            if run is None:
                run = _existing(runs, run_id, event)
            TIMER_EVENTS[kind](runs, run, event, rows)
        elif kind not in NO_STATE:
            raise NewerFormat(
                f"run {run_id!r}: these folds (version {FOLDS_VERSION}) don't know the event {kind.__name__}. The journal"
                f" was written by a newer release; upgrade this process."
            )
    if run_id:
        _answer(runs, transition, rows)


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


def _evolve(runs: Runs, run: Run, event: Event, asked: str, rows: Rows) -> None:
    changed = EVOLVE[type(event)](run.state, event, asked)
    runs.touch(run.run_id)
    if changed:
        items = items_of(run)
        prefix = run.key + ITEM
        for position in changed:
            rows[prefix + pack_position(position)] = encode(items[position])


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
NO_STATE = frozenset(
    {CommandRefused, CommandRepeated, CommandForwarded, CommandDeadLettered, RefusalAnswered, RunRemoved}
)


def _answer(runs: Runs, transition: Transition, rows: Rows) -> None:
    """Keep how the command was decided; in the tombstone, where it has removed its run."""
    run_id, command_id = transition.run_id, transition.command_id
    code: str | None = None
    reason = ""
    removed: RunRemoved | None = None
    for event in transition.events:
        kind = type(event)
        if kind is CommandRefused:
            code, reason = event.code, event.reason  # type: ignore[attr-defined]
        elif kind is CommandRepeated:
            return
        elif isinstance(event, RunRemoved):
            removed = event
    answer = None if command_id is None else Answer(code, reason, transition.reply, transition.at)
    if removed is not None:
        runs.bury(run_id, Tombstone(removed.tombstone_until, command_id, answer), rows)
    elif command_id is not None and answer is not None:
        runs.answer(run_id, command_id, answer, rows)
