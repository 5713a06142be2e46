"""What a store promises: rows in byte order and one fence, written together.

Two keep it: `RocksStore` on disk, `MemoryStore` as its twin. A store can always
be thrown away and folded again; it is never the only place of anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from millstream.events.envelope import NO_FENCE, Fence
from millstream.projections.keys import FENCE_KEY, META_KEY


class StoreMeta(msgspec.Struct, frozen=True, array_like=True):
    """What a store is of. folds_version: of the folds that made its rows; log_identity: of the log that they came from."""

    folds_version: int
    log_identity: str
    prefix: str
    partition: int
    partitions: int


class Store(Protocol):
    """The rows of one partition. One task writes; an error of its files is a `StoreDamaged`, a full disk a
    `LogFolderUnusable`."""

    path: str

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The rows whose key begins with `prefix`, in byte order, from `start` on; as they were when the loop began."""
        ...

    def write(self, puts: Mapping[bytes, bytes | None], fence: Fence) -> None:
        """Put the rows (None deletes) and the fence, all or nothing. Lasting after the next `flush`, not before."""
        ...

    def fence(self) -> Fence:
        """Up to where the rows are folded; `NO_FENCE` when new."""
        ...

    def meta(self) -> StoreMeta | None: ...

    def set_meta(self, meta: StoreMeta) -> None: ...

    def checkpoint(self, folder: str) -> None:
        """A copy as of now in `folder`, which must not exist yet; it can be opened as a store."""
        ...

    def flush(self) -> None:
        """What is written until here survives the end of the process."""
        ...

    def drop(self) -> None:
        """Forget everything: rows, fence, meta."""
        ...

    def close(self) -> None:
        """Flush and let go of the files. A second call does nothing."""
        ...


_encode = msgspec.msgpack.Encoder().encode
_fence = msgspec.msgpack.Decoder(Fence).decode
_meta = msgspec.msgpack.Decoder(StoreMeta).decode


def fence_row(fence: Fence) -> bytes:
    return _encode(fence)


def meta_row(meta: StoreMeta) -> bytes:
    return _encode(meta)


def read_fence(store: Store) -> Fence:
    row = store.get(FENCE_KEY)
    return NO_FENCE if row is None else _fence(row)


def read_meta(store: Store) -> StoreMeta | None:
    row = store.get(META_KEY)
    return None if row is None else _meta(row)
