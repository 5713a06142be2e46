"""From a record of `commands` to a decision, on the tentative state: what is the same for all deciders.

In order: can it be read at all (else dead-letters), is it on its run's
partition (else forwarded), has a copy been decided (else its first answer),
was the run removed, and only then the run's own decider.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from millstream.events.codec import Codec
from millstream.events.envelope import Command
from millstream.events.errors import BadId, SchemaError, UnknownSchema
from millstream.events.logs.port import StoredRecord
from millstream.events.run import CommandDeadLettered, CommandForwarded
from millstream.events.topics import Topics, check_run_id
from millstream.projections.fold import Runs
from millstream.projections.run import Run, has_plan
from millstream.streams.deciders.cause import NOTHING, Cause, Decision
from millstream.streams.deciders.run import admit
from millstream.streams.deciders.table import too_large

Decide = Callable[[Run | None, Cause], Decision]


class Judge:
    """Decides for one partition. Reads `runs`, never changes them: the owner folds what was decided."""

    def __init__(
        self,
        decide: Decide,
        runs: Runs,
        codec: Codec,
        topics: Topics,
        partition: int,
        learn: Callable[[], Awaitable[None]],
    ) -> None:
        self._decide, self._runs, self._codec, self._topics = decide, runs, codec, topics
        self._partition, self._learn = partition, learn
        self._plans: dict[str, None] = {}

    async def judge(self, stored: StoredRecord, at: int) -> tuple[Cause, Decision]:
        """The cause that a stored command is, and what is decided on it."""
        try:
            command = await self._read(stored)
        except (SchemaError, BadId) as unreadable:
            dead = CommandDeadLettered(stored.offset, str(unreadable))
            return Cause("", NOTHING, at), Decision((dead,))
        to_partition = self._topics.partition_of(command.run_id)
        if to_partition != self._partition:
            forwarded = CommandForwarded(stored.offset, to_partition)
            return Cause("", NOTHING, at), Decision((forwarded,))
        run_id, command_id = command.run_id, command.command_id
        cause = Cause(run_id, command.body, at, command_id, command.origin)
        admitted = admit(
            cause,
            first_answer=self._runs.peek_answer(run_id, command_id),
            tombstone_until=self._runs.tombstone(run_id),
            appended_at=stored.timestamp,
        )
        if admitted is not None:
            return cause, admitted
        return cause, self._decide(self._runs.get(run_id), cause)

    async def _read(self, stored: StoredRecord) -> Command:
        if stored.value is None:
            raise SchemaError("the record has no value, so it is no command")
        try:
            record = self._codec.decode(stored.value)
        except UnknownSchema:
            await self._learn()
            record = self._codec.decode(stored.value)
        if type(record) is not Command:
            raise SchemaError(f"the record is a {type(record).__name__}, not a command")
        check_run_id(record.run_id)
        return record

    def decide(self, cause: Cause) -> Decision:
        """What an own cause (a timer, a slice, nothing) leads to."""
        if cause.body is NOTHING:
            return Decision(())
        return self._decide(self._runs.get(cause.run_id), cause)

    def too_large(self, cause: Cause, size: int, limit: int) -> Decision:
        return too_large(cause, size, limit)

    def note(self, run_id: str) -> None:
        """A transition of this run was folded: remember whether it has a plan to go on with."""
        run = self._runs.get(run_id) if run_id else None
        if run is not None and has_plan(run):
            self._plans[run_id] = None
        elif self._plans:
            self._plans.pop(run_id, None)

    def open_plan(self) -> str | None:
        """A run whose plan is unfinished: its slices come before any other command."""
        return next(iter(self._plans), None) if self._plans else None

    def reset(self) -> None:
        """After a claim: go on with what the proved state says is unfinished."""
        self._plans = dict.fromkeys(self._runs.open_plans())
