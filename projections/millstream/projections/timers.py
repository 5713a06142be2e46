"""Which timers of a partition are due: the rows in the store, and what is decided but not written yet.

A timer that has fired leaves a deleted row behind, and a scan from the front of
the range would walk over all of them. So the lowest key that still lives is
noted in a row of its own; a timer that is set below it lowers it in the same
write. Pure but for the store.
"""

from __future__ import annotations

from millstream.projections.keys import TIMER, TIMER_BOUND_KEY, after, parse_timer, timer_key
from millstream.projections.store import Store

Rows = dict[bytes, bytes | None]
"""What a batch will write; None deletes."""

Due = tuple[int, str, str]
"""Due time in ms, run id, timer id."""

_END = after(TIMER)
assert _END is not None
END: bytes = _END


class Timers:
    """The timers of one store with the changes of batches that are not written yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.clear()

    def clear(self) -> None:
        """Forget what isn't written."""
        self._set: dict[bytes, bool] = {}
        self._batches: dict[bytes, int] = {}
        self._open: set[bytes] = set()
        self._noted = self._store.get(TIMER_BOUND_KEY) or TIMER
        self._bound = self._noted
        self._next: bytes | None = None

    def change(self, due_at: int, run_id: str, timer_id: str, rows: Rows, *, is_set: bool) -> None:
        """Set a timer, or note that it is over, in `rows`."""
        key = timer_key(due_at, run_id, timer_id)
        rows[key] = b"" if is_set else None
        self._set[key] = is_set
        if key not in self._open:
            self._open.add(key)
            self._batches[key] = self._batches.get(key, 0) + 1
        if not is_set:
            if key == self._next:
                self._next = None
            return
        self._bound = min(self._bound, key)
        if self._next is not None:
            self._next = min(self._next, key)

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
                del self._batches[key], self._set[key]

    def due(self, now: int, limit: int = 1000) -> list[Due]:
        """Timers with due time <= `now` (ms), in order of (time, run id, timer id), at most `limit`."""
        end = timer_key(now + 1, "", "")[:9]
        keys = [k for k, is_set in self._set.items() if is_set and k < end]
        stored = 0
        for key, _ in self._store.scan(TIMER, self._bound):
            if key >= end or stored == limit:
                break
            if key not in self._set:
                keys.append(key)
                stored += 1
        return [parse_timer(k) for k in sorted(keys)[:limit]]

    def next_due(self) -> int | None:
        """When the next timer is due, in ms; None where there is none."""
        if self._next is None:
            self._next = self._bound = self._first()
        return None if self._next == END else parse_timer(self._next)[0]

    def _first(self) -> bytes:
        lowest = min((k for k, is_set in self._set.items() if is_set), default=END)
        for key, _ in self._store.scan(TIMER, self._bound):
            if key not in self._set:
                return min(key, lowest)
        return lowest
