"""Fold events by hand, each transition a batch of its own, and look at what became of it."""

from __future__ import annotations

from typing import TypeVar

from millstream.events.envelope import NOTHING_SENT, Event, Fence, Ref, Sent, Transition
from millstream.projections.fold import Rows, Runs, apply, finish
from millstream.projections.memory_store import MemoryStore
from millstream.projections.run import Run, head_row
from millstream.projections.store import Store

S = TypeVar("S")
EPOCH = (4, 77)


class Folded:
    """A store and its runs. `ref` is that of the newest transition."""

    def __init__(self, store: Store | None = None, *, max_runs: int = 1000) -> None:
        self.store: Store = MemoryStore() if store is None else store
        self.runs = Runs(self.store, max_runs)
        self.number = 0
        self.at = 1000
        self.sent = NOTHING_SENT

    @property
    def ref(self) -> Ref:
        return Ref(1, *EPOCH, self.number)

    def decide(
        self,
        run_id: str,
        *events: Event,
        rows: Rows,
        command_id: str | None = None,
        sent: Sent | None = None,
        reply: bytes | None = None,
    ) -> Ref:
        """Fold one transition into the tentative state and `rows`."""
        self.number += 1
        self.at += 10
        self.sent = self.sent if sent is None else sent
        apply(self.runs, Transition(self.at, run_id, command_id, -1, sent, reply, events), self.ref, rows)
        return self.ref

    def fold(
        self,
        run_id: str,
        *events: Event,
        command_id: str | None = None,
        sent: Sent | None = None,
        reply: bytes | None = None,
    ) -> Rows:
        """Fold and write one transition; returns its rows."""
        rows: Rows = {}
        self.decide(run_id, *events, rows=rows, command_id=command_id, sent=sent, reply=reply)
        finish(self.runs, rows)
        self.write(rows)
        return rows

    def write(self, rows: Rows) -> None:
        self.runs.write(rows, Fence(100 + self.number, *EPOCH, self.number, -1, self.sent))

    def run(self, run_id: str) -> Run:
        """The live run; it is compared with what its rows give."""
        run = self.runs.get(run_id)
        assert run is not None
        read = self.reloaded().get(run_id)
        assert read is not None
        assert (read.state, read.timers, head_row(read)) == (run.state, run.timers, head_row(run))
        return run

    def state(self, run_id: str, kind: type[S]) -> S:
        state = self.run(run_id).state
        assert isinstance(state, kind)
        return state

    def reloaded(self) -> Runs:
        """What another process would read of the store."""
        return Runs(self.store)

    def keys(self, prefix: bytes) -> list[bytes]:
        return [key for key, _ in self.store.scan(prefix)]
