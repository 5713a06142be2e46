"""Reads the raw journal by the protocol's rule 4 and says whether every promise is kept: small code of its own.

It is told of every record the moment it lands, so a broken promise is found where
it happens. Nothing of the production folds, deciders or readers is used; only the
bytes are read by the same codec.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from millstream.events.codec import Codec
from millstream.events.envelope import Command, Event, OwnershipClaimed, Sent, Transition
from millstream.events.errors import BadId, SchemaError
from millstream.events.logs.port import StoredRecord
from millstream.events.run import CommandDeadLettered, CommandForwarded, CommandRefused, CommandRepeated
from millstream.events.topics import Topics, check_run_id
from tests.simulation.books import Books, Violation, need
from tests.simulation.outputs import Outputs

_FENCE = struct.Struct(">qQq")
LIMIT_WORDS = frozenset({"too-large"})
"""Refusals that depend on sizes, which the checker doesn't compute."""


class Valid(NamedTuple):
    """A transition that counts."""

    command_id: str | None
    code: str | None
    reply: bytes | None


class Partition:
    """One partition: its journal as it must be read, its commands, its books."""

    def __init__(
        self, number: int, topics: Topics, codec: Codec, outputs: Outputs, *, slice_flights: int, steady_clock: bool
    ) -> None:
        self.number, self._topics, self._codec, self._outputs = number, topics, codec, outputs
        self._steady_clock = steady_clock
        self.books = Books(slice_flights)
        self.commands: list[tuple[Command | None, int]] = []
        """By offset: the command, or None where the record can't be one; and its append time."""
        self.valid: dict[int, Valid] = {}
        self.epoch: tuple[int, int] | None = None
        self.epoch_number = 0
        self.decided = -1
        self.at = 0
        self.sent: Sent | None = None
        self.dropped = 0
        self.last_output: Sent | None = None
        self.seen: Counter[str] = Counter()
        """How often each event, and each word of refusal, has counted."""
        self._used: dict[tuple[int, int, int], bytes] = {}

    # ------------------------------------------------------------------ commands

    def command_landed(self, record: StoredRecord) -> None:
        need(record.offset == len(self.commands), f"command {record.offset} lands after {len(self.commands) - 1}")
        self.commands.append((self._read_command(record), record.timestamp))

    def _read_command(self, record: StoredRecord) -> Command | None:
        try:
            command = self._codec.decode(record.value or b"")
            if not isinstance(command, Command):
                return None
            check_run_id(command.run_id)
        except (SchemaError, BadId):
            return None
        return command

    # ------------------------------------------------------------------ journal

    def journal_landed(self, record: StoredRecord) -> None:
        where = f"journal {self.number} at offset {record.offset}: "
        headers = dict(record.headers)
        mark = headers.get("fence")
        need(mark is not None and len(mark) == _FENCE.size, where + "no fence header")
        epoch_offset, claim_id, number = _FENCE.unpack(mark or b"")
        if epoch_offset == -1:
            self.epoch, self.epoch_number = (record.offset, claim_id), 0
            claim = self._codec.decode(record.value or b"")
            need(isinstance(claim, OwnershipClaimed) and claim.claim_id == claim_id, where + "a claim of another id")
            return
        value = record.value or b""
        first = self._used.setdefault((epoch_offset, claim_id, number), value)
        need(first == value, where + f"number {number} of one epoch is used for two records")
        if (epoch_offset, claim_id) != self.epoch or number <= self.epoch_number:
            self.dropped += 1
            return
        need(number == self.epoch_number + 1, where + f"a hole: number {number} follows {self.epoch_number}")
        self.epoch_number = number
        transition = self._codec.decode(value)
        need(isinstance(transition, Transition), where + "not a transition")
        cause = headers.get("cause")
        need((cause or b"").decode() == (transition.command_id or ""), where + "the header names another cause")
        try:
            self._apply(record, Sent(epoch_offset, claim_id, number, 0), transition)
        except Violation as broken:
            raise Violation(f"{where}{broken}") from None

    def _apply(self, record: StoredRecord, ref: Sent, t: Transition) -> None:
        need(t.at >= self.at, f"time goes back from {self.at} to {t.at}")
        self.at = t.at
        self._check_watermark(t.sent)
        if t.command_offset == self.decided:
            need(t.command_id is None, "a command decided a second time, or out of order")
            self._check_own_cause(t, record.timestamp)
        else:
            need(t.command_offset == self.decided + 1, f"command {t.command_offset} after {self.decided}")
            self.decided += 1
            self._check_command(t)
        for index, event in enumerate(t.events):
            self._follow(event, ref._replace(index=index), t)
        self.seen.update(_names(t.events))
        code = next((e.code for e in t.events if isinstance(e, CommandRefused | CommandRepeated)), None)
        self.valid[record.offset] = Valid(t.command_id, code, t.reply)
        if t.command_id is not None:
            self.books.answers.setdefault(t.run_id, {}).setdefault(t.command_id, (code, t.reply))

    def _check_watermark(self, sent: Sent | None) -> None:
        if sent is None:
            return
        need(self.sent is None or sent >= self.sent, f"the watermark goes back from {self.sent} to {sent}")
        self.sent = sent
        unsent = self._outputs.unsent_up_to(self.number, sent)
        need(unsent is None, f"the watermark {sent} says that {unsent} was sent, and it isn't on its topic")

    def _check_own_cause(self, t: Transition, landed_at: int) -> None:
        names = _names(t.events)
        day = self.books.runs.get(t.run_id)
        status = getattr(day, "status", None)
        if names == ():
            need(t.sent is not None and not t.run_id, "a transition of nothing")
        elif names[0] == "TimerFired":
            right = ("TimerFired", "DayClosing", "FiguresAsked") if status == "open" else ("TimerFired",)
            need(names == right or names[1:2] == ("!too-large",), f"a timer leads to {names}, right is {right}")
            self._check_order(t.events[0].due_at, landed_at)
        else:
            need(
                names == ("FlightsShifted",) and status == "shifting", f"{names} without any cause, {t.run_id} {status}"
            )

    def _check_order(self, due_at: int, landed_at: int) -> None:
        """A command and a timer that are both due are ordered by the log's time."""
        if not self._steady_clock:
            return
        need(landed_at >= due_at, f"a timer of {due_at} fires early: the log takes it at {landed_at}")
        if self.decided + 1 < len(self.commands):
            appended_at = self.commands[self.decided + 1][1]
            need(
                appended_at >= due_at, f"a timer of {due_at} fires before a command that the log took at {appended_at}"
            )

    def _check_command(self, t: Transition) -> None:
        command, appended_at = self.commands[t.command_offset]
        due = min((due for due, _, _ in self.books.timers), default=appended_at + 1)
        need(due > appended_at, f"a command that the log took at {appended_at} is decided before a timer of {due}")
        if command is None:
            need(_names(t.events) == ("CommandDeadLettered",), f"an unreadable command leads to {_names(t.events)}")
            return
        to = self._topics.partition_of(command.run_id)
        if to != self.number:
            need(t.events == [CommandForwarded(t.command_offset, to)], f"not forwarded to {to}: {t.events}")
            return
        need(t.command_id == command.command_id, f"decides {t.command_id}, offset has {command.command_id}")
        need(t.run_id == command.run_id, f"is of run {t.run_id}, the command of {command.run_id}")
        plans = self.books.plans
        need(not plans, f"a command is decided before the plan of {plans} is through")
        right, found = self.books.judge(command, t.at, appended_at), _names(t.events)
        if found[:1] and found[0].lstrip("!") in LIMIT_WORDS:
            return
        need(found == right, f"{type(command.body).__name__} for {t.run_id} leads to {found}; right is {right}")
        if found == ("CommandRepeated",):
            code = t.events[0].code
            first = self.books.answers[t.run_id][command.command_id]
            need(first == (code, t.reply), f"the copy of {command.command_id} is told {code, t.reply}, first {first}")

    def _follow(self, event: Event, key: Sent, t: Transition) -> None:
        output_id = f"{self.number}-{key.epoch_offset}-{key.claim_id:016x}-{key.number}-{key.index}"
        if isinstance(event, CommandDeadLettered | CommandForwarded):
            need(event.offset == self.decided, f"{type(event).__name__} of {event.offset} with command {self.decided}")
        if type(event).output:
            self.last_output = key
            self._outputs.asked(self.number, key, output_id, event, t)
        self.books.follow(t.run_id, event, output_id, t.at)

    # ------------------------------------------------------------------ what clients were told

    def answered(self, command_id: str, offset: int, code: str | None, reply: bytes | None) -> None:
        """A client was told this answer, read at this offset of the journal."""
        valid = self.valid.get(offset)
        need(valid is not None, f"{command_id} was answered from offset {offset}, which doesn't count")
        told = Valid(command_id, code, reply)
        need(valid == told, f"{command_id} was answered {told}, the journal has {valid} at offset {offset}")

    def pending(self) -> list[str]:
        """What is not done yet, in words."""
        found = []
        if (behind := len(self.commands) - 1 - self.decided) > 0:
            found.append(f"partition {self.number}: {behind} commands undecided from {self.decided + 1} on")
        found += [f"{run_id}: unfinished plan" for run_id in self.books.plans]
        found += [f"{run_id}: waits for an answer" for run_id in self.books.waiting]
        found += [f"{run_id}: timer {timer_id} of {due}" for due, run_id, timer_id in self.books.timers]
        if self.last_output is not None and (self.sent is None or self.sent < self.last_output):
            found.append(f"partition {self.number}: no watermark for {self.last_output}")
        return found


def _names(events: Sequence[Event]) -> tuple[str, ...]:
    """Event names; a refusal as '!' and its word."""
    return tuple(f"!{e.code}" if isinstance(e, CommandRefused) else type(e).__name__ for e in events)
