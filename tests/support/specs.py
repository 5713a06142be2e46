"""Specs of deciders: given a history, when a command is judged, then these events.

The history is folded by the production fold over a memory store, so a spec shows
decider and fold together.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.events.envelope import NOTHING_SENT, CommandBody, Event, Fence, Origin, Ref, Transition
from millstream.projections.fold import Runs, apply, finish
from millstream.projections.memory_store import MemoryStore
from millstream.projections.run import Run
from millstream.streams.deciders.cause import Cause, Decision
from millstream.streams.deciders.table import decide

NOW = 1_358_294_400_000
"""2013-01-16T00:00Z in ms."""


class Story:
    """One run with its history. `when` judges a command and remembers the decision; `then` looks at it."""

    def __init__(self, run_id: str, *, at: int = NOW) -> None:
        self.run_id, self.at = run_id, at
        self._runs = Runs(MemoryStore())
        self._number = 0
        self.decision: Decision | None = None

    @property
    def run(self) -> Run | None:
        return self._runs.get(self.run_id)

    def given(self, *events: Event) -> Story:
        """Fold a transition with these events. The ids of its outputs are `output_id(index)`."""
        self._number += 1
        rows: dict[bytes, bytes | None] = {}
        ref = Ref(0, 0, 1, self._number)
        apply(self._runs, Transition(self.at, self.run_id, None, -1, None, None, events), ref, rows)
        finish(self._runs, rows)
        self._runs.write(rows, Fence(self._number, 0, 1, self._number, -1, NOTHING_SENT))
        return self

    def output_id(self, index: int = 0) -> str:
        """Id of what the event at `index` of the newest transition sends."""
        return Ref(0, 0, 1, self._number).output_id(index)

    def when(self, body: CommandBody, *, command_id: str | None = "c-1", origin: Origin | None = None) -> Story:
        self.decision = decide(self.run, Cause(self.run_id, body, self.at, command_id, origin))
        return self

    def then(self, *events: Event) -> Story:
        """Exactly these events; they are folded, so that a story can go on."""
        assert self.decision is not None
        assert list(self.decision.events) == list(events)
        self.given(*events)
        return self

    def then_refused(self, code: str, *words: str) -> Sequence[Event]:
        """Refused with this code, and a text that has all these words. Returns what comes beside the refusal."""
        assert self.decision is not None
        first, *rest = self.decision.events
        assert type(first).__name__ == "CommandRefused"
        assert first.code == code  # type: ignore[attr-defined]
        for word in words:
            assert word in first.reason  # type: ignore[attr-defined]
        return rest
