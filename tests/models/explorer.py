"""Search every state of a small model, breadth first, and say how a bad one is reached.

A model is a set of hashable states with steps between them. Breadth first means
that the trace of a violation is a shortest one. Two things are checked in every
state: `broken` (safety), and that a run without any further fault ends well from
here (liveness). The search knows nothing about journals.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

# A sentence with holes, then what fills them. Only the steps of a trace are ever
# put into words; doing it for each of 100,000 steps would double the search's time.
Action = tuple[Any, ...]


class Words(NamedTuple):
    """A value of an action that is put into words by `spell`, when it is printed at all."""

    spell: Callable[[Any], str]
    value: Any

    def __str__(self) -> str:
        return self.spell(self.value)


class Kind(StrEnum):
    """What sort of promise a violation breaks."""

    HOLE = "hole in the numbers"
    DOUBLE_EFFECT = "double effect"
    LOST_ANSWER = "answered, then not in the log"
    LOST_COMMAND = "command never decided"
    LOST_OUTPUT = "output never sent"
    LOST_SLICE = "slice never written"
    OUT_OF_ORDER = "outputs out of order"
    VOID_OUTPUT = "output of a void transition"
    TWO_IDS = "two ids for one output"
    WRONG_REQUEST = "answer to another request"
    DIVERGED = "readers disagree"
    SPLICED = "record under another owner's claim"
    CUT_UNNOTICED = "cut of the log unnoticed"
    FALSE_ALARM = "stopped without a reason"
    UNOWNED = "assigned and unowned for ever"
    REFUSED_WRONGLY = "refused without a reason"
    WAITS_FOR_EVER = "waits for ever"
    NO_PROGRESS = "goes round without end"
    TWO_KEYS = "two idempotence keys for one step"
    UNRECORDED_EFFECT = "effect without a record"
    UNBOUNDED = "attempts without end"


class Violation(NamedTuple):
    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Model(Protocol[S]):
    """What the explorer needs to know of a model."""

    def start(self) -> S: ...

    def steps(self, state: S) -> Iterable[tuple[Action, S]]:
        """All that can happen next, faults included."""

    def broken(self, state: S) -> Violation | None:
        """The safety promise that this state breaks."""

    def calm(self, state: S) -> S | None:
        """The state with all faults behind it; None where nothing more is promised."""

    def calm_step(self, state: S) -> tuple[Action, S] | None:
        """The next step of a fair run without faults; None when it has come to rest."""

    def unfinished(self, state: S) -> Violation | None:
        """What a run at rest has failed to bring about."""


@dataclass(frozen=True)
class Result:
    """`trace` leads to the violation; `afterwards` are the calm steps that don't mend it."""

    states: int
    depth: int
    exhausted: bool
    violation: Violation | None = None
    trace: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.violation is None:
            how = "exhausted" if self.exhausted else "NOT exhausted: raise the limit or lower the bounds"
            return f"all invariants hold, {how}: {self.states} states, depth {self.depth}"
        lines = [f"{self.violation} ({self.states} states searched)"]
        lines += [f"{n:4d}. {sentence}" for n, sentence in enumerate(self.trace, 1)]
        if self.afterwards:
            lines += ["      and then, without any further fault:"]
            lines += [f"      - {sentence}" for sentence in self.afterwards]
        return "\n".join(lines)


# A calm run of the models here rests after 10 to 25 steps; three times that is going round.
CALM_STEPS_MAX = 80


def explore(model: Model[S], *, states_max: int = 1_000_000) -> Result:
    """Search until a violation, the end, or `states_max` states.

    Returns the first violation found at the least depth. Never raises for a
    violation: the caller says whether one was wanted.
    """
    return _Search(model, states_max).run()


class _Search(Generic[S]):
    def __init__(self, model: Model[S], states_max: int) -> None:
        self.model = model
        self.states_max = states_max
        self.came_from: dict[S, S | None] = {}
        self.ends_well: set[S] = set()

    def run(self) -> Result:
        first = self.model.start()
        self.came_from[first] = None
        level, depth = [first], 0
        while level:
            for state in level:
                violation = self.model.broken(state)
                if violation is not None:
                    return self._found(violation, state, depth, [])
                violation, calm_run = self._goes_wrong_in_calm(state)
                if violation is not None:
                    return self._found(violation, state, depth, calm_run)
            if len(self.came_from) > self.states_max:
                return Result(len(self.came_from), depth, exhausted=False)
            level = list(self._next_level(level))
            depth += bool(level)
        return Result(len(self.came_from), depth, exhausted=True)

    def _next_level(self, level: list[S]) -> Iterator[S]:
        came_from = self.came_from
        for state in level:
            for _, after in self.model.steps(state):
                if after not in came_from:
                    came_from[after] = state
                    yield after

    def _goes_wrong_in_calm(self, state: S) -> tuple[Violation | None, list[Action]]:
        """Run on fairly and without faults; the states passed on the way to a good end are remembered."""
        now = self.model.calm(state)
        passed: list[S] = []
        actions: list[Action] = []
        while now is not None and now not in self.ends_well:
            violation = self.model.broken(now)
            if violation is not None:
                return violation, actions
            if len(passed) > CALM_STEPS_MAX:
                text = f"{CALM_STEPS_MAX} steps without a fault, and still not at rest"
                return Violation(Kind.NO_PROGRESS, text), actions
            passed.append(now)
            step = self.model.calm_step(now)
            if step is None:
                violation = self.model.unfinished(now)
                if violation is not None:
                    return violation, actions
                break
            actions.append(step[0])
            now = step[1]
        self.ends_well.update(passed)
        return None, actions

    def _found(self, violation: Violation, state: S, depth: int, calm_run: list[Action]) -> Result:
        return Result(
            states=len(self.came_from),
            depth=depth,
            exhausted=False,
            violation=violation,
            trace=tuple(self._trace(state)),
            afterwards=tuple(sentence(action) for action in calm_run[:30]),
        )

    def _trace(self, state: S) -> list[str]:
        """The steps from the start, found again one by one: keeping them would double the memory."""
        sentences: list[str] = []
        now, before = state, self.came_from[state]
        while before is not None:
            action = next(action for action, after in self.model.steps(before) if after == now)
            sentences.append(sentence(action))
            now, before = before, self.came_from[before]
        return sentences[::-1]


def sentence(action: Action) -> str:
    text, *values = action
    return str(text).format(*values)
