"""The timers of one partition in the order in which they fire: by due time, then by id.

Held in memory as a heap, filled from the store's time-ordered rows. Those are
read from a saved lower bound on, so the tombstones of fired timers are never
scanned; a timer set below the bound lowers it in the same write.
"""

from __future__ import annotations

import heapq

from millstream.projections import keys
from millstream.projections.fold import Runs
from millstream.projections.store import Store
from millstream.streams.deciders.cause import Cause, TimerDue


# 10 s: the bound may lag, it only has to keep a restart from reading long-gone timers.
BOUND_STEP_MS = 10_000


class Timers:
    """Entries are (due ms, run id, timer id). One that was cancelled stays in the heap and is passed over."""

    def __init__(self, runs: Runs, store: Store) -> None:
        self._runs, self._store = runs, store
        self._heap: list[tuple[int, str, str]] = []
        self._written_bound = 0

    def load(self) -> None:
        """Fill the heap from the store's proved rows."""
        self._written_bound = keys.read_timer_bound(self._store.get(keys.TIMER_BOUND))
        self._heap = [keys.read_timer(key) for key, _ in self._store.scan_from(keys.TIMERS, self._written_bound)]

    def clear(self) -> None:
        self._heap = []

    def add(self, due_at: int, run_id: str, timer_id: str) -> None:
        heapq.heappush(self._heap, (due_at, run_id, timer_id))

    def next_due(self) -> int | None:
        """When the next timer is due, in ms of partition time."""
        heap = self._heap
        while heap:
            due_at, run_id, timer_id = heap[0]
            run = self._runs.get(run_id)
            if run is not None and run.timers.get(timer_id) == due_at:
                return due_at
            heapq.heappop(heap)
        return None

    def cause(self, at: int) -> Cause:
        """The timer that is due next, as a cause."""
        due_at, run_id, timer_id = self._heap[0]
        return Cause(run_id, TimerDue(timer_id, due_at), at)

    def bound(self, rows: dict[bytes, bytes | None]) -> None:
        """Put the lower bound into a batch's rows, where it has moved."""
        if not self._heap:
            return
        lowest = self._heap[0][0]
        if lowest < self._written_bound or lowest > self._written_bound + BOUND_STEP_MS:
            rows[keys.TIMER_BOUND] = keys.timer_bound(lowest)
            self._written_bound = lowest
