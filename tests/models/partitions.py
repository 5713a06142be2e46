"""Two partitions: a parent on P starts a child on Q, signals it, and waits for its end.

Inside a partition the journal protocol is taken as proved (`journal.py`): a command's
events and the position move in one step. Outputs leave after it, one by one, over a
channel from this owner to that partition, and are acknowledged when they stand in its
commands. A crash loses what has not left; an owner that was replaced without knowing
lets it go out at any later time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.models.explorer import Action, Kind, Violation
from tests.models.rules import PROTOCOL, Rules


@dataclass(frozen=True)
class Bounds:
    parent_crashes: int = 1
    child_crashes: int = 1
    copies: int = 0  # a message that has landed lands once more, at any later time
    needs_signal: bool = False  # the child ends only after the signal
    retention: bool = False  # an ended child is removed
    id_taken: bool = False  # another run has the child's id

    def __str__(self) -> str:
        counts = f"{self.parent_crashes}+{self.child_crashes} crashes, {self.copies} copies"
        flags = [name for name in ("needs_signal", "retention", "id_taken") if getattr(self, name)]
        return "; ".join(["parent, child, signal", counts, *(name.replace("_", " ") for name in flags)])


Messages = tuple[str, ...]


class Side(NamedTuple):
    """One partition's outputs: what its journal says, what its live owner has yet to send."""

    outputs: Messages = ()
    sent: int = 0  # the durable watermark: so many of them are acknowledged
    to_send: Messages = ()
    crashes: int = 0

    def asks(self, *outputs: str) -> "Side":
        return self._replace(outputs=self.outputs + outputs, to_send=self.to_send + outputs)


class State(NamedTuple):
    p: Side
    q: Side
    copies: int
    parent: str = "new"  # new, waiting, done, failed
    child: str = "none"  # none, running, ended, removed; foreign: another run's
    decided: frozenset[str] = frozenset()  # ids of the commands that the child has decided
    tombstone: bool = False
    to_q: Messages = ()  # landed in Q's commands, not decided yet
    to_p: Messages = ()
    late: tuple[tuple[str, Messages], ...] = ()  # of owners that were replaced: where to, and what, in order
    landed: frozenset[tuple[str, str]] = frozenset()  # may land once more
    starts: int = 0
    signals: int = 0
    flaw: Violation | None = None


Steps = Iterator[tuple[Action, State]]


class PartitionsModel:
    def __init__(self, bounds: Bounds, rules: Rules = PROTOCOL) -> None:
        self.bounds = bounds
        self.rules = rules
        self._calm: tuple[Callable[[State], Steps], ...] = (
            self.decide_on_q,
            self.decide_on_p,
            self.send,
            self.begin,
            self.end_child,
        )

    def start(self) -> State:
        bounds = self.bounds
        p, q = Side(crashes=bounds.parent_crashes), Side(crashes=bounds.child_crashes)
        return State(p, q, bounds.copies, child="foreign" if bounds.id_taken else "none")

    def steps(self, state: State) -> Steps:
        for group in self._calm:
            yield from group(state)
        yield from self._remember_sent(state)
        yield from self._faults(state)

    def broken(self, state: State) -> Violation | None:
        if state.flaw is not None:
            return state.flaw
        if state.starts > 1:
            return Violation(Kind.DOUBLE_EFFECT, "the child was started twice")
        if state.signals > 1:
            return Violation(Kind.DOUBLE_EFFECT, "the signal took effect twice")
        return None

    def calm(self, state: State) -> State | None:
        calm_p, calm_q = state.p._replace(crashes=0), state.q._replace(crashes=0)
        # What is late never lands here: its landing is a step of its own, tried from every state.
        return state._replace(p=calm_p, q=calm_q, copies=0, late=(), landed=frozenset())

    def calm_step(self, state: State) -> tuple[Action, State] | None:
        for group in self._calm:
            for action, after in group(state):
                return action, after._replace(landed=frozenset())
        return None

    def unfinished(self, state: State) -> Violation | None:
        if state.parent == "waiting":
            return Violation(Kind.WAITS_FOR_EVER, f"the parent waits; the child is {state.child}")
        return None

    # -- what happens without faults ---------------------------------------------

    def begin(self, state: State) -> Steps:
        if state.parent == "new":
            begun = state._replace(parent="waiting", p=state.p.asks("start", "signal"))
            yield ("P records that the parent asks for the child and signals it",), begun

    def send(self, state: State) -> Steps:
        """The live owners' outputs land in the other partition's commands, in order over one channel."""
        for name, topic in (("p", "to_q"), ("q", "to_p")):
            side: Side = getattr(state, name)
            for message, rest in self._leaving(side.to_send):
                after = _with(_landed(state, topic, message), {name: side._replace(to_send=rest)})
                yield ("the '{}' of {} lands", message, name.upper()), after

    def _leaving(self, to_send: Messages) -> Iterator[tuple[str, Messages]]:
        """What can land next: the first, or any of them where the channel reorders."""
        reach = 1 if self.rules.one_ordered_channel else len(to_send)
        for at, message in enumerate(to_send[:reach]):
            yield message, to_send[:at] + to_send[at + 1 :]

    def decide_on_q(self, state: State) -> Steps:
        if state.to_q:
            message, *rest = state.to_q
            taken = state._replace(to_q=tuple(rest))
            yield from self._start(taken) if message == "start" else self._signal(taken)

    def _start(self, state: State) -> Steps:
        if "start" in state.decided:
            yield ("Q knows this start already",), state
        elif state.tombstone:
            yield ("Q refuses the start: the run was removed",), state
        elif state.child in ("none", "removed"):
            started = state._replace(child="running", starts=state.starts + 1, decided=self._decided(state, "start"))
            yield ("Q starts the child",), started
        else:
            yield self._refuse(state, "start", f"the id is taken by a run that is {state.child}")

    def _signal(self, state: State) -> Steps:
        if "signal" in state.decided:
            yield ("Q knows this signal already",), state
        elif state.child == "running":
            decided = self._decided(state, "signal")
            yield ("Q records the signal",), state._replace(signals=state.signals + 1, decided=decided)
        else:
            yield self._refuse(state, "signal", f"the run is {state.child}")

    def _refuse(self, state: State, message: str, why: str) -> tuple[Action, State]:
        after = state._replace(decided=self._decided(state, message))
        if self.rules.refusals_answered:
            after = after._replace(q=state.q.asks(f"refused {message}"))
        if message == "signal" and state.child == "none" and not state.tombstone:
            text = "the parent asked for the child first, and its signal finds no run"
            after = after._replace(flaw=Violation(Kind.REFUSED_WRONGLY, text))
        return ("Q refuses the {}: {}", message, why), after

    def _decided(self, state: State, message: str) -> frozenset[str]:
        return state.decided | {message} if self.rules.command_ids else state.decided

    def decide_on_p(self, state: State) -> Steps:
        if not state.to_p:
            return
        message, *rest = state.to_p
        taken = state._replace(to_p=tuple(rest))
        if state.parent != "waiting" or message == "refused signal":
            yield ("P drops '{}': nothing waits for it", message), taken
        elif message == "refused start":
            failed = taken._replace(parent="failed")
            if not self.bounds.id_taken:
                text = "the parent was told that its own child has taken the id"
                failed = failed._replace(flaw=Violation(Kind.REFUSED_WRONGLY, text))
            yield ("P records that the child can't be started; the parent fails",), failed
        else:
            yield ("P records the child's end; the parent goes on",), taken._replace(parent="done")

    def end_child(self, state: State) -> Steps:
        if state.child == "running" and (state.signals or not self.bounds.needs_signal):
            yield ("Q records that the child has ended",), state._replace(child="ended", q=state.q.asks("end"))

    def _remember_sent(self, state: State) -> Steps:
        """Any later transition of the partition carries the watermark."""
        if self.rules.outputs_resent != "above sent":
            return
        for name, side in (("p", state.p), ("q", state.q)):
            sent = len(side.outputs) - len(side.to_send)
            if sent > side.sent:
                after = _with(state, {name: side._replace(sent=sent)})
                yield ("{} records that {} outputs are sent", name.upper(), sent), after

    # -- faults ------------------------------------------------------------------

    def _faults(self, state: State) -> Steps:
        if state.child == "ended" and self.bounds.retention:
            removed = state._replace(child="removed", tombstone=self.rules.tombstones, decided=frozenset())
            yield ("Q removes the ended child",), removed
        if state.p.crashes and state.parent != "new":
            yield from self._take_overs(state, "p", "to_q")
        if state.q.crashes and state.q.outputs:
            yield from self._take_overs(state, "q", "to_p")
        for nth, late in enumerate(state.late):
            topic, messages = late
            after = _landed(state, topic, messages[0])
            left = ((topic, messages[1:]),) if messages[1:] else ()
            lates = (*state.late[:nth], *left, *state.late[nth + 1 :])
            yield ("'{}' of a replaced owner lands", messages[0]), after._replace(late=lates)
        if state.copies:
            for topic, message in sorted(state.landed):
                after = _landed(state, topic, message)._replace(copies=state.copies - 1)
                yield ("'{}' lands once more", message), after

    def _take_overs(self, state: State, name: str, topic: str) -> Steps:
        """What has not left is lost, or is on its way and lands at any later time."""
        side: Side = getattr(state, name)
        resent = self._resends(state, side, name)
        lost = _with(state, {name: side._replace(crashes=side.crashes - 1, to_send=resent)})
        yield ("{} crashes; its new owner will send {}", name.upper(), resent), lost
        if side.to_send:
            zombie = lost._replace(late=(*state.late, (topic, side.to_send)))
            text = "{} is replaced, the old owner still sends {}; the new one will send {}"
            yield (text, name.upper(), side.to_send, resent), zombie

    def _resends(self, state: State, side: Side, name: str) -> Messages:
        if self.rules.outputs_resent == "above sent":
            return side.outputs[side.sent :]
        return ("start",) if name == "p" and state.parent == "waiting" else ()


def _landed(state: State, topic: str, message: str) -> State:
    backlog: Messages = getattr(state, topic)
    return _with(state, {topic: (*backlog, message), "landed": state.landed | {(topic, message)}})


def _with(state: State, changes: dict[str, Any]) -> State:
    """P and Q are alike, so which of them changes is often a name."""
    return state._replace(**changes)
