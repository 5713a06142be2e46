"""A store in memory: the twin of the RocksDB one, for tests, the simulator and `verify`. It can crash."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from weakref import WeakSet

import msgspec

from millstream.events.envelope import Fence
from millstream.events.errors import StoreDamaged
from millstream.projections.keys import FENCE_KEY, META_KEY, RUN, after
from millstream.projections.store import StoreMeta, fence_row, meta_row, read_fence, read_meta

_ROWS_FILE = "rows.msgpack"


class _Group:
    """Rows that are scanned together: those of one run, or of one kind. Sorted at the first scan, kept so after it.

    Keys of deleted rows go at the next scan: taking each out of a long list would copy the list.
    """

    __slots__ = ("gone", "keys", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.keys: list[bytes] | None = None
        self.gone: set[bytes] = set()

    def put(self, key: bytes, value: bytes) -> None:
        if self.keys is not None and key not in self.rows:
            if key in self.gone:
                self.gone.discard(key)
            else:
                insort(self.keys, key)
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        if self.rows.pop(key, None) is not None and self.keys is not None:
            self.gone.add(key)

    def range(self, first: bytes, end: bytes | None) -> list[bytes]:
        if self.keys is None:
            self.keys = sorted(self.rows)
        elif self.gone:
            gone, self.gone = self.gone, set()
            self.keys = [key for key in self.keys if key not in gone]
        keys = self.keys
        return keys[bisect_left(keys, first) : None if end is None else bisect_left(keys, end)]


class _Scan:
    """Rows in order, read as they are asked for, until the store is about to change: then all that are left are kept."""

    def __init__(self, parts: list[tuple[dict[bytes, bytes], list[bytes]]]) -> None:
        self._rows = chain.from_iterable(zip(keys, map(rows.__getitem__, keys), strict=True) for rows, keys in parts)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        return next(self._rows)

    def keep(self) -> None:
        self._rows = chain(list(self._rows))


class MemoryStore:
    """Rows in dictionaries. `crash` goes back to the last `flush`, as the death of a process does to a store on disk;
    with `can_crash` off it needn't remember how."""

    def __init__(self, path: str = "memory", *, can_crash: bool = True) -> None:
        self.path = path
        self._can_crash = can_crash
        self._groups: dict[bytes, _Group] = {}
        self._undo: dict[bytes, bytes | None] = {}
        self._scans: WeakSet[_Scan] = WeakSet()

    @classmethod
    def restored(cls, folder: str) -> MemoryStore:
        """The store of which `checkpoint` made a copy in `folder`. Raises `StoreDamaged`."""
        file = Path(folder) / _ROWS_FILE
        try:
            rows = msgspec.msgpack.decode(file.read_bytes(), type=dict[bytes, bytes])
        except (OSError, msgspec.DecodeError) as error:
            raise StoreDamaged(f"{file} can't be read: {error}. Rebuild the store from the log.") from error
        store = cls(folder)
        for key, value in rows.items():
            store._set(key, value)
        store.flush()
        return store

    def get(self, key: bytes) -> bytes | None:
        group = self._groups.get(_group_of(key))
        return None if group is None else group.rows.get(key)

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        first = prefix if start is None else max(prefix, start)
        end = after(prefix)
        groups = [self._groups[name] for name in self._groups_with(prefix)]
        scan = _Scan([(group.rows, group.range(first, end)) for group in groups])
        self._scans.add(scan)
        return scan

    def write(self, puts: Mapping[bytes, bytes | None], fence: Fence) -> None:
        self._keep_scans()
        for key, value in puts.items():
            self._set(key, value)
        self._set(FENCE_KEY, fence_row(fence))

    def fence(self) -> Fence:
        return read_fence(self)

    def meta(self) -> StoreMeta | None:
        return read_meta(self)

    def set_meta(self, meta: StoreMeta) -> None:
        self._keep_scans()
        self._set(META_KEY, meta_row(meta))

    def checkpoint(self, folder: str) -> None:
        target = Path(folder)
        target.mkdir(parents=True)
        (target / _ROWS_FILE).write_bytes(msgspec.msgpack.encode(dict(self.scan(b""))))

    def flush(self) -> None:
        self._undo.clear()

    def drop(self) -> None:
        self._keep_scans()
        self._groups.clear()
        self._undo.clear()

    def close(self) -> None:
        self.flush()

    def crash(self) -> None:
        """Lose all that was written since the last flush."""
        self._keep_scans()
        undo, self._undo = self._undo, {}
        for key, value in undo.items():
            self._set(key, value)
        self._undo.clear()

    def snapshot(self) -> MemoryStore:
        """A copy of its own, as of now."""
        copy = MemoryStore(self.path)
        for key, value in self.scan(b""):
            copy._set(key, value)
        copy.flush()
        return copy

    def _keep_scans(self) -> None:
        for scan in list(self._scans):
            scan.keep()
        self._scans.clear()

    def _set(self, key: bytes, value: bytes | None) -> None:
        name = _group_of(key)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        if self._can_crash and key not in self._undo:
            self._undo[key] = group.rows.get(key)
        if value is not None:
            group.put(key, value)
            return
        group.delete(key)
        if not group.rows:
            del self._groups[name]

    def _groups_with(self, prefix: bytes) -> list[bytes]:
        """Names of the groups that can have keys with this prefix, in key order."""
        name = _group_of(prefix)
        if name in self._groups and len(name) > 1:
            return [name]
        return sorted(n for n in self._groups if n.startswith(prefix) or prefix.startswith(n))


def _group_of(key: bytes) -> bytes:
    """A run's rows up to the NUL are one group, rows of another kind are one a kind: so a run is read without the rest."""
    if key[:1] == RUN:
        end = key.find(b"\0")
        return key if end < 0 else key[: end + 1]
    return key[:1]
