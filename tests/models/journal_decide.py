"""What an owner decides about a command, and which transitions its batch may hold.

Pure: everything comes in as an argument. A command that can't be accepted yields a
refusal, so that it counts as decided.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.models.journal_records import SLICES, Epoch, Event, Folder, Step, Transition, TransitionId, View, get
from tests.models.rules import Rules


class Answer(NamedTuple):
    """What a worker says about itself; a protocol that looks at less than `request` is a broken one."""

    request: TransitionId
    step: str
    attempt: int
    tag: Epoch  # of the owner that sent the task, under the rule that answers name it


class Command(NamedTuple):
    verb: str
    id: str = ""
    about: str = ""
    answer: Answer | None = None

    def __str__(self) -> str:
        if self.answer is not None:
            return f"answer to {self.answer.step!r} attempt {self.answer.attempt}"
        return " ".join(part for part in (self.verb, self.id, self.about) if part)


def decide(view: View, command: Command, epoch: Epoch, rules: Rules) -> tuple[Event, ...]:
    """The events that `command` adds to what `view` holds; never empty."""
    if command.answer is not None:
        return _decide_answer(view, command.answer, epoch, rules)
    if command.id in view.seen:
        return (("repeated", command.id),)
    if command.id in view.tombstones:
        return (("refused", command.id),)
    taken: Event = ("took", command.id)
    match command.verb:
        case "start":
            return (taken, ("asked", command.id, 1))
        case "rewind":
            if get(view.steps, command.about) is None:
                return (("refused", command.id),)
            return (taken, ("rewound", command.about), ("asked", command.about, 1))
        case "publish":
            return (taken, ("published", command.id))
        case "sleep":
            return (taken, ("slept", command.id))
        case "remove":
            return (taken, ("removed", command.about))
        case "fan out":
            return (taken, ("planned", command.id))
        case "add much":
            return (("refused", command.id),) if rules.size_measured else (taken, ("too large",))
        case _:
            return (taken,)


def _decide_answer(view: View, answer: Answer, epoch: Epoch, rules: Rules) -> tuple[Event, ...]:
    step = get(view.steps, answer.step)
    if step is None or step.request is None or not _matches(step, step.request, answer, epoch, rules):
        return (("refused", answer.step),)
    return (("answered", answer.step, answer.request),)


def _matches(step: Step, request: TransitionId, answer: Answer, epoch: Epoch, rules: Rules) -> bool:
    match rules.answer_names:
        case "request":
            return request == answer.request
        case "step and attempt":
            return step.attempt == answer.attempt
        case "step, attempt, epoch of the request":
            return step.attempt == answer.attempt and request[0] == answer.request[0]
        case "epoch of the owner":
            return step.attempt == answer.attempt and answer.tag == epoch


class Aside(NamedTuple):
    """What only the owner's memory holds: a command that was set aside, or the rest of a large one."""

    offset: int
    slice_of: str = ""


class Draft(NamedTuple):
    """A batch that an owner could append now, and where it stands afterwards."""

    records: tuple[Transition, ...]
    position: int  # the next command to read
    aside: Aside | None
    repeats: frozenset[int] = frozenset()  # offsets of second copies that this batch meets


class Desk(NamedTuple):
    """What an owner has before it while it decides; `drafts` are all batches that it may make of it."""

    folder: Folder
    commands: tuple[Command, ...]
    commands_max: int
    writer: str
    epoch: Epoch
    number: int  # the last one used
    position: int
    proved: View
    tentative: View
    sent: TransitionId | None
    aside: Aside | None

    def drafts(self) -> Iterator[Draft]:
        """Unfinished plans come first, then commands in offset order, alone or with a due timer."""
        if self.aside is not None and self.aside.slice_of:
            yield self._remembered_slice(self.aside)
            return
        for plan, index in self.tentative.plans:
            yield self._batch([(("slice", plan, index),)])
            return
        if self.aside is not None:
            yield self._batch([self.aside.offset])._replace(position=self.position, aside=None)
        for count in range(1, self.commands_max + 1):
            if self.position + count <= len(self.commands):
                yield from self._next_commands(count)
        for timer in sorted(self.tentative.timers):
            fired: tuple[Event, ...] = (("fired", timer),)
            yield self._batch([fired])
            if self.position < len(self.commands) and self._is_one_record(self.position):
                yield self._batch([fired, self.position])

    def _is_one_record(self, offset: int) -> bool:
        return self.commands[offset].verb != "fan out" or self.folder.rules.large_cause == "plan"

    def _next_commands(self, count: int) -> Iterator[Draft]:
        offsets = list(range(self.position, self.position + count))
        if all(self._is_one_record(offset) for offset in offsets):
            yield self._batch([*offsets])
        elif count == 1:
            yield self._first_slice(offsets[0])

    def _batch(self, causes: list[int | tuple[Event, ...]]) -> Draft:
        """One record a cause: events as they are given, a command decided on what the rules let it see."""
        rules = self.folder.rules
        view, position = self.tentative, self.position
        records: list[Transition] = []
        repeats: set[int] = set()
        for cause in causes:
            if isinstance(cause, int):
                judged = view if rules.judged_against == "tentative" else self.proved
                events = decide(judged, self.commands[cause], self.epoch, rules)
                position = max(position, cause + 1)
                if events[0][0] == "repeated":
                    repeats.add(cause)
                record = self._record(len(records), max(cause, view.command_offset), cause, events)
            else:
                record = self._record(len(records), view.command_offset, None, cause)
            records.append(record)
            view = self.folder.apply(view, record)
        return Draft(tuple(records), position, self.aside, frozenset(repeats))

    def _record(self, before: int, command_offset: int, cause: int | None, events: tuple[Event, ...]) -> Transition:
        number = self.number + before + 1
        return Transition(self.epoch, number, command_offset, cause, events, self.sent, self.writer)

    # -- what only a broken rule does ------------------------------------------

    def _first_slice(self, offset: int) -> Draft:
        """The first slice of a large cause that has no plan; the rest is known to this owner only."""
        name = self.commands[offset].id
        events: tuple[Event, ...] = (("slice", name, 0),)
        if self.folder.rules.large_cause == "counted with its first slice":
            record = self._record(0, offset, offset, events)
        else:
            record = self._record(0, offset - 1, None, events)
        return Draft((record,), offset + 1, Aside(offset, slice_of=name))

    def _remembered_slice(self, aside: Aside) -> Draft:
        record = self._record(0, aside.offset, aside.offset, (("slice", aside.slice_of, SLICES - 1),))
        return Draft((record,), self.position, None)
