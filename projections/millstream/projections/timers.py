"""Which timers of a partition come next: the rows in the store, and what is decided but not written yet.

A timer that has fired leaves a deleted row behind, and a scan from the front of
the range would walk over all of them. So the lowest key that still lives is
noted in a row of its own; a timer that is set below it lowers it in the same
write. Pure but for the store.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from millstream.projections.keys import TIMER, TIMER_BOUND_KEY, after, parse_timer, timer_key
from millstream.projections.store import Store

Rows = dict[bytes, bytes | None]
"""What a batch will write; None deletes."""

Due = tuple[int, str, str]
"""Due time in ms, run id, timer id."""

PAGE = 1000
NEAR_MAX = 20_000

_END = after(TIMER)
assert _END is not None
END: bytes = _END


class Timers:
    """The timers of one store with the changes of batches that are not written yet.

    All live keys below `_edge` are in memory, those above are read a page at a time once they are the next: a hundred
    thousand timers at one instant cost a scan each thousand, and timers that are far off cost no memory.
    """

    def __init__(self, store: Store, *, page: int = PAGE, near_max: int = NEAR_MAX) -> None:
        self._store, self._page, self._near_max = store, page, near_max
        self.clear()

    def clear(self) -> None:
        """Forget what isn't written."""
        self._unwritten: dict[bytes, bool] = {}
        self._batches: dict[bytes, int] = {}
        self._open: set[bytes] = set()
        self._noted = self._store.get(TIMER_BOUND_KEY) or TIMER
        self._bound = self._edge = self._noted
        self._near: set[bytes] = set()
        self._heap: list[bytes] = []

    def change(self, due_at: int, run_id: str, timer_id: str, rows: Rows, *, is_set: bool) -> None:
        """Set a timer, or note that it is over, in `rows`."""
        key = timer_key(due_at, run_id, timer_id)
        rows[key] = b"" if is_set else None
        self._unwritten[key] = is_set
        if key not in self._open:
            self._open.add(key)
            self._batches[key] = self._batches.get(key, 0) + 1
        if not is_set:
            self._near.discard(key)
            return
        self._bound = min(self._bound, key)
        self._come_near(key)

    def seal(self, rows: Rows) -> set[bytes]:
        """The batch is complete: note the bound in it if it has moved. Returns the keys of its changes."""
        if self._bound != self._noted:
            rows[TIMER_BOUND_KEY] = self._noted = self._bound
        keys, self._open = self._open, set()
        return keys

    def written(self, keys: set[bytes]) -> None:
        """The batch with changes of `keys` is in the store."""
        for key in keys:
            left = self._batches[key] - 1
            if left:
                self._batches[key] = left
            else:
                del self._batches[key], self._unwritten[key]

    def due(self, now: int, limit: int = PAGE) -> list[Due]:
        """Timers with due time <= `now` (ms), in order of (time, run id, timer id), at most `limit`."""
        end = timer_key(now + 1, "", "")[:9]
        keys: list[bytes] = []
        while len(keys) < limit:
            key = self._first()
            if key >= end:
                break
            keys.append(heappop(self._heap))
            self._near.discard(key)
        for key in keys:
            self._come_near(key)
        return [parse_timer(key) for key in keys]

    def next_due(self) -> int | None:
        """When the next timer is due, in ms; None where there is none."""
        self._bound = first = self._first()
        return None if first == END else parse_timer(first)[0]

    def _come_near(self, key: bytes) -> None:
        """Keep a live key in memory if it lies below the edge; lower the edge where that makes too many."""
        if key >= self._edge or key in self._near:
            return
        self._near.add(key)
        heappush(self._heap, key)
        if len(self._near) > self._near_max:
            keys = sorted(self._near)
            half = self._near_max // 2
            self._edge = keys[half]
            self._near, self._heap = set(keys[:half]), keys[:half]

    def _first(self) -> bytes:
        """The lowest live key; `END` where there is none."""
        heap, near = self._heap, self._near
        while True:
            while heap and heap[0] not in near:
                heappop(heap)
            if heap:
                return heap[0]
            if self._edge >= END:
                return END
            self._read_page()
            heap, near = self._heap, self._near

    def _read_page(self) -> None:
        """Move the edge up by a page of what lives in the store, and take in what isn't written below it."""
        begin, page = self._edge, []
        self._edge = END
        for key, _ in self._store.scan(TIMER, begin):
            if key in self._unwritten:
                continue
            page.append(key)
            if len(page) == self._page:
                self._edge = key + b"\0"
                break
        page += [k for k, is_set in self._unwritten.items() if is_set and begin <= k < self._edge]
        self._near, self._heap = set(page), page
        heapify(self._heap)
