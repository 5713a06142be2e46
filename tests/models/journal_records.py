"""What stands on the modelled log, and what a reader makes of it: records, view, fold.

A `View` is a reader's whole state: its fence and its rows. Views and logs are
interned, so equal content is the same object and is compared by identity; that is
what makes a search of a hundred thousand states a matter of seconds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from tests.models.explorer import Kind, Violation
from tests.models.rules import Rules

Epoch = tuple[int, int]  # offset of the claim, claim id
TransitionId = tuple[Epoch, int]  # epoch, number
Event = tuple[Any, ...]  # name, then what it is about

V = TypeVar("V")
Pairs = tuple[tuple[str, V], ...]  # a small dict that can be hashed


class Claim(NamedTuple):
    owner: str
    claim_id: int

    def __str__(self) -> str:
        return f"claim {self.claim_id}"


class Transition(NamedTuple):
    epoch: Epoch
    number: int
    command_offset: int
    cause: int | None  # the command's offset; None for a timer or a slice of a plan
    events: tuple[Event, ...]
    sent: TransitionId | None  # all outputs up to this one are acknowledged
    writer: str  # for the checks only: no reader of the protocol may look at it

    @property
    def id(self) -> TransitionId:
        return self.epoch, self.number

    def __str__(self) -> str:
        events = ", ".join(" ".join(str(part) for part in event) for event in self.events)
        sent = f", sent {spell(self.sent)}" if self.sent else ""
        return f"[{spell(self.id)}: {events}; command_offset {self.command_offset}{sent}]"


Record = Claim | Transition


def spell(transition: TransitionId) -> str:
    epoch, number = transition
    return f"epoch {epoch[0]}/{epoch[1]} number {number}"


def spell_all(records: tuple[Record, ...]) -> str:
    return " + ".join(str(record) for record in records)


class Output(NamedTuple):
    """One transition has at most one output here, so its id needs no index."""

    kind: str  # 'task': somebody answers it; 'event': nobody does
    request: TransitionId
    step: str = ""
    attempt: int = 0


class Step(NamedTuple):
    attempt: int
    request: TransitionId | None  # the request that is open; None once it was answered


class _ViewFields(NamedTuple):
    # the fence
    epoch: Epoch | None = (-1, 0)
    number: int = 0
    writer: str = ""  # for the checks only: who wrote the claim
    # the rows
    hole: bool = False
    command_offset: int = -1
    seen: frozenset[str] = frozenset()
    tombstones: frozenset[str] = frozenset()
    steps: Pairs[Step] = ()
    timers: frozenset[str] = frozenset()
    plans: Pairs[int] = ()  # the next slice to write
    unsent: tuple[Output, ...] = ()
    # for the checks only
    effects: frozenset[str] = frozenset()
    decided: frozenset[int] = frozenset()
    flaw: Violation | None = None


class View(_ViewFields):
    """Interned by its `Folder`: compare with `is`, hash by identity."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def rows(self) -> tuple[Any, ...]:
        return tuple(self)[3:]


class Folder:
    """The fold of a reader under some rules; remembers each view that it has made."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._views: dict[tuple[Any, ...], View] = {}
        self._applied: dict[tuple[View, Transition], View] = {}
        self.empty = self._intern(View())

    def _intern(self, view: View) -> View:
        return self._views.setdefault(tuple(view), view)

    def read(self, view: View, record: Record, offset: int) -> View:
        """One record as a reader takes it: the fence decides, then the rows change."""
        if isinstance(record, Claim):
            epoch = (offset, record.claim_id if self.rules.claim_id_in_epoch else 0)
            return self._intern(view._replace(epoch=epoch, number=0, writer=record.owner))
        if view.hole:
            return view
        if view.epoch is None:
            if self.rules.fence == "offset only, waits for a claim":
                return view
            view = view._replace(epoch=record.epoch, number=record.number - 1, writer=record.writer)
        if record.epoch != view.epoch:
            return view if self.rules.foreign_epochs_dropped else self.apply(view, record)
        if record.number <= view.number:
            return view if self.rules.lower_numbers_dropped else self.apply(view, record)
        if record.number > view.number + 1:
            if self.rules.stops_at_hole:
                return self._intern(view._replace(hole=True))
            text = f"{record} is applied after number {view.number}: what stood between is gone"
            view = view._replace(flaw=Violation(Kind.CUT_UNNOTICED, text))
        if record.writer != view.writer and view.flaw is None:
            text = f"{record}, written by {record.writer}, is applied under a claim of {view.writer}"
            view = view._replace(flaw=Violation(Kind.SPLICED, text))
        return self.apply(view._replace(number=record.number), record)

    def restarted(self, view: View) -> View:
        """The reader after it was stopped and started again from what its store holds."""
        if self.rules.fence == "kept":
            return view
        return self._intern(view._replace(epoch=None, number=0, writer=""))

    def apply(self, view: View, transition: Transition) -> View:
        """The rows after this transition; whether it counts at all was judged before."""
        key = (self._intern(view), transition)
        known = self._applied.get(key)
        if known is None:
            known = self._applied[key] = self._intern(self._evolve(view, transition))
        return known

    def _evolve(self, view: View, transition: Transition) -> View:
        for event in transition.events:
            view = _APPLIERS[event[0]](self, view, transition, *event[1:])
        if transition.cause is not None:
            view = view._replace(decided=view.decided | {transition.cause})
        if transition.sent is not None:
            view = view._replace(unsent=tuple(o for o in view.unsent if o.request > transition.sent))
        return view._replace(command_offset=transition.command_offset)

    # -- one applier an event ------------------------------------------------

    def _took(self, view: View, _: Transition, command_id: str) -> View:
        view = self._effect(view, f"command {command_id!r}", command_id)
        return view._replace(seen=view.seen | {command_id}) if self.rules.command_ids else view

    def _effect(self, view: View, what: str, key: str) -> View:
        if key in view.effects and view.flaw is None:
            view = view._replace(flaw=Violation(Kind.DOUBLE_EFFECT, f"{what} took effect twice"))
        return view._replace(effects=view.effects | {key})

    def _asked(self, view: View, transition: Transition, step: str, attempt: int) -> View:
        output = Output("task", transition.id, step, attempt)
        steps = put(view.steps, step, Step(attempt, transition.id))
        return view._replace(steps=steps, unsent=(*view.unsent, output))

    def _rewound(self, view: View, _: Transition, step: str) -> View:
        rest = tuple(pair for pair in view.steps if pair[0] != step)
        return view._replace(steps=rest, seen=view.seen if self.rules.ids_outlive_rewind else frozenset())

    def _answered(self, view: View, _: Transition, step: str, request: TransitionId) -> View:
        was = get(view.steps, step)
        if view.flaw is None and (was is None or was.request != request):
            open_now = spell(was.request) if was and was.request else "none"
            text = f"step {step!r} took an answer to the request {spell(request)}; open is {open_now}"
            view = view._replace(flaw=Violation(Kind.WRONG_REQUEST, text))
        return view._replace(steps=put(view.steps, step, Step(was.attempt if was else 0, None)))

    def _published(self, view: View, transition: Transition, _: str) -> View:
        return view._replace(unsent=(*view.unsent, Output("event", transition.id)))

    def _slept(self, view: View, _: Transition, timer: str) -> View:
        return view._replace(timers=view.timers | {timer})

    def _fired(self, view: View, _: Transition, timer: str) -> View:
        view = self._effect(view, f"timer {timer!r}", f"timer {timer}")
        return view._replace(timers=view.timers - {timer})

    def _planned(self, view: View, _: Transition, plan: str) -> View:
        return view._replace(plans=put(view.plans, plan, 0))

    def _slice(self, view: View, _: Transition, plan: str, index: int) -> View:
        view = self._effect(view, f"slice {index} of {plan!r}", f"{plan}.{index}")
        if get(view.plans, plan) is None:
            return view
        rest = tuple(pair for pair in view.plans if pair[0] != plan)
        return view._replace(plans=rest if index + 1 == SLICES else put(view.plans, plan, index + 1))

    def _removed(self, view: View, _: Transition, run: str) -> View:
        # The ids of decided commands live as long as their run: they go with it.
        kept = view.tombstones | {run} if self.rules.tombstones else view.tombstones
        return view._replace(seen=view.seen - {run}, tombstones=kept)

    def _nothing(self, view: View, _: Transition, *__: Any) -> View:
        return view


SLICES = 2

_APPLIERS: dict[str, Callable[..., View]] = {
    "took": Folder._took,
    "rewound": Folder._rewound,
    "asked": Folder._asked,
    "answered": Folder._answered,
    "published": Folder._published,
    "slept": Folder._slept,
    "fired": Folder._fired,
    "planned": Folder._planned,
    "slice": Folder._slice,
    "removed": Folder._removed,
    "refused": Folder._nothing,
    "repeated": Folder._nothing,
    "too large": Folder._nothing,
}


def get(pairs: Pairs[V], key: str) -> V | None:
    return next((value for name, value in pairs if name == key), None)


def put(pairs: Pairs[V], key: str, value: V) -> Pairs[V]:
    return tuple(sorted([*(pair for pair in pairs if pair[0] != key), (key, value)]))
