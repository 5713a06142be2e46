"""Decide what is the same for every run: copies, tombstones, removal, refusals. Pure.

A command that can't be accepted yields one `CommandRefused`, never an exception, so that replay sees it.
"""

from __future__ import annotations

from millstream.events.run import CommandRefused, CommandRepeated, RefusalAnswered, RunRemoved
from millstream.projections.fold import Answer
from millstream.streams.deciders.cause import Cause, Decision

DAY_MS = 24 * 60 * 60 * 1000
TOMBSTONE_MS = 7 * DAY_MS


def refuse(cause: Cause, code: str, reason: str) -> Decision:
    """Refuse, and tell the run that asked, where a run did."""
    refused = CommandRefused(code, reason)
    if cause.origin is None or cause.command_id is None:
        return Decision((refused,))
    answered = RefusalAnswered(cause.origin.run_id, cause.origin.partition, cause.command_id, code, reason)
    return Decision((refused, answered))


def admit(
    cause: Cause, *, first_answer: Answer | None, tombstone_until: int | None, appended_at: int
) -> Decision | None:
    """Judge a command before its own decider sees it; None lets it through.

    first_answer: of an earlier copy. tombstone_until: ms, where the run was removed. appended_at: the log's time, ms.
    """
    if first_answer is not None:
        return Decision((CommandRepeated(first_answer.code, first_answer.reason),), first_answer.reply)
    if tombstone_until is not None and cause.at < tombstone_until:
        return refuse(
            cause,
            "removed",
            f"run {cause.run_id!r} was removed, and its id stays reserved for 7 days so that a late copy of a command"
            f" can't start it again. Use another id.",
        )
    if appended_at + TOMBSTONE_MS < cause.at:
        return refuse(
            cause,
            "too-old",
            "this command has lain on the log for more than 7 days, longer than removed ids are remembered, so a copy of"
            " it may have been decided before. Look at the run, and ask again if it is still wanted.",
        )
    return None


def remove(cause: Cause, *, ended: bool, reason: str, why_not: str) -> Decision:
    """Remove an ended run; `why_not` says what a run that goes on waits for."""
    if not ended:
        return refuse(
            cause, "not-ended", f"run {cause.run_id!r} has not ended: {why_not}. Only ended runs are removed."
        )
    return Decision((RunRemoved(reason, cause.at + TOMBSTONE_MS),))


def no_such_run(cause: Cause, what: str, next_step: str) -> Decision:
    return refuse(cause, "not-found", f"there is no {what} {cause.run_id!r}. {next_step}")
