"""A step that runs in the owner: `key = uuid4(); await charge(key)`.

Appends are atomic and proved here (`journal.py`). The owner can crash between any two
actions, a cancel can come at any time, and the effect may kill the process that runs
it. The world remembers the key of each effect that really happened.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tests.models.explorer import Action, Kind, Violation
from tests.models.rules import PROTOCOL, Rules

# The cap that the promise names; `Rules.lost_attempts_max` is what the owner keeps to.
EXECUTIONS_MAX = 3

SEEDED = "key from the seed"


@dataclass(frozen=True)
class Bounds:
    crashes: int = 2
    cancels: int = 1
    kills: int = 0  # so many times the effect kills its process

    def __str__(self) -> str:
        return f"one step; {self.crashes} crashes, {self.cancels} cancels, {self.kills} kills by the effect"


class Phase(StrEnum):
    FRESH = "fresh"  # has read the log, has done nothing yet
    STARTING = "starting"
    RAN = "ran"  # holds the outcome in memory
    AT_REST = "at rest"


class State(NamedTuple):
    crashes: int
    cancels: int
    kills: int
    phase: Phase = Phase.FRESH
    key: str = ""
    drawn: int = 0
    attempts: int = 0  # recorded in the log
    ended: str = ""  # completed, failed, cancelled, as the log says
    effects: tuple[str, ...] = ()  # keys, as the world saw them


Steps = Iterator[tuple[Action, State]]


class StepModel:
    def __init__(self, bounds: Bounds, rules: Rules = PROTOCOL) -> None:
        self.bounds = bounds
        self.rules = rules
        self._calm: tuple[Callable[[State], Steps], ...] = (self.drive, self.run_effect, self.record_outcome)

    def start(self) -> State:
        return State(self.bounds.crashes, self.bounds.cancels, self.bounds.kills)

    def steps(self, state: State) -> Steps:
        for group in self._calm:
            yield from group(state)
        yield from self._faults(state)

    def broken(self, state: State) -> Violation | None:
        keys = sorted(set(state.effects))
        if len(keys) > 1:
            return Violation(Kind.TWO_KEYS, f"charged with {keys}")
        if len(state.effects) > state.attempts:
            text = f"charged {len(state.effects)} times, the log has {state.attempts} attempts"
            return Violation(Kind.UNRECORDED_EFFECT, text)
        if len(state.effects) > EXECUTIONS_MAX:
            return Violation(Kind.UNBOUNDED, f"execution {len(state.effects)} of a step that kills its process")
        return None

    def calm(self, state: State) -> State | None:
        return state._replace(crashes=0, cancels=0, kills=0)

    def calm_step(self, state: State) -> tuple[Action, State] | None:
        return next((step for group in self._calm for step in group(state)), None)

    def unfinished(self, state: State) -> Violation | None:
        if not state.ended:
            return Violation(Kind.WAITS_FOR_EVER, "the run never ends")
        return None

    # -- what happens without faults ---------------------------------------------

    def drive(self, state: State) -> Steps:
        """Drive the definition to its step; what it draws and starts next is recorded first."""
        if state.phase != Phase.FRESH or state.ended:
            return
        key = SEEDED if self.rules.uuid_from_seed else f"draw {state.drawn}"
        starting = state._replace(phase=Phase.STARTING, key=key, drawn=state.drawn + 1)
        cap = self.rules.lost_attempts_max
        if not self.rules.attempt_first:
            yield ("the owner starts the charge with {}; nothing is recorded", key), starting
        elif state.attempts and not self.rules.lost_attempt_counted:
            yield ("a new owner runs the open attempt again with {}", key), starting
        elif cap is not None and state.attempts >= cap:
            failed = state._replace(phase=Phase.AT_REST, ended="failed")
            yield ("a new owner records that {} attempts were lost and the step failed", cap), failed
        else:
            attempt = state.attempts + 1
            yield ("the owner records attempt {}, {}", attempt, key), starting._replace(attempts=attempt)

    def run_effect(self, state: State) -> Steps:
        if state.phase == Phase.STARTING:
            if state.ended:
                yield ("the owner doesn't start it: the run has ended",), state._replace(phase=Phase.AT_REST)
            charged = state._replace(phase=Phase.RAN, effects=(*state.effects, state.key))
            yield ("the charge happens with {}", state.key), charged

    def record_outcome(self, state: State) -> Steps:
        if state.phase != Phase.RAN:
            return
        rest = state._replace(phase=Phase.AT_REST)
        if state.ended:
            yield ("the outcome is refused: the run was {}", state.ended), rest
        else:
            attempts = state.attempts if self.rules.attempt_first else state.attempts + 1
            yield ("the owner records the outcome",), rest._replace(ended="completed", attempts=attempts)

    # -- faults ------------------------------------------------------------------

    def _faults(self, state: State) -> Steps:
        if state.crashes and state.phase != Phase.AT_REST:
            crashed = state._replace(phase=Phase.FRESH, key="", crashes=state.crashes - 1)
            yield ("the owner crashes; a new one takes over",), crashed
        if state.kills and state.phase == Phase.STARTING:
            effects = (*state.effects, state.key)
            killed = state._replace(phase=Phase.FRESH, key="", kills=state.kills - 1, effects=effects)
            yield ("the charge happens with {} and kills its process; a new owner takes over", state.key), killed
        if state.cancels and not state.ended:
            yield ("the run is cancelled",), state._replace(cancels=state.cancels - 1, ended="cancelled")
