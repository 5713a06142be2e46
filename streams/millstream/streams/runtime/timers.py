"""The timers that come next, in the order in which they fire: by due time, then by id.

The rows and what is decided but not written yet are kept by the projection; here
is only a page of those that are due, so that a hundred thousand at one instant
don't cost a scan each.
"""

from __future__ import annotations

from collections import deque

from millstream.projections.fold import Runs
from millstream.streams.deciders.cause import Cause, TimerDue

PAGE = 1000


class DueTimers:
    """`next_due` is when something is to be done; `cause` is what. A timer that is over is passed over."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._page: deque[tuple[int, str, str]] = deque()

    def clear(self) -> None:
        self._page.clear()

    def next_due(self) -> int | None:
        """Due time of the next timer in ms of partition time, or None."""
        return self._runs.timers.next_due()

    def cause(self, ripe_to: int, at: int) -> Cause | None:
        """The next timer with due time <= `ripe_to`, as a cause decided at `at`; None where there is none."""
        due = self._runs.timers.next_due()
        if due is None or due > ripe_to:
            return None
        if not self._page or self._page[0][0] > due or not self._is_set(*self._page[0]):
            self._page = deque(self._runs.timers.due(ripe_to, PAGE))
        due_at, run_id, timer_id = self._page.popleft()
        return Cause(run_id, TimerDue(timer_id, due_at), max(at, due_at))

    def put_back(self, cause: Cause) -> None:
        """There was no room for it in the batch: it is still the next one."""
        body = cause.body
        if not isinstance(body, TimerDue):
            return
        self._page.appendleft((body.due_at, cause.run_id, body.timer_id))

    def _is_set(self, due_at: int, run_id: str, timer_id: str) -> bool:
        run = self._runs.get(run_id)
        return run is not None and run.timers.get(timer_id) == due_at
