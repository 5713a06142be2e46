"""Fold the log anew and compare: the promise that any state shown can be recomputed, to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from millstream.events.envelope import NO_FENCE, Fence
from millstream.events.errors import StoreOfAnotherLog
from millstream.events.logs.port import Log
from millstream.events.topics import Topics
from millstream.projections.fold import Runs
from millstream.projections.keys import META_KEY, SCANNED, describe
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import SLICE_S, Decodes, JournalReader, Progress, meta_of
from millstream.projections.store import Store

DIFFERENCES_MAX = 20

Learn = Callable[[], Awaitable[object]]
Tell = Callable[[Progress], None]


class Difference(NamedTuple):
    """A row that two stores don't have alike. key: in words; ours, theirs: the rows' bytes, None where there is none."""

    key: str
    ours: bytes | None
    theirs: bytes | None


class Verified(NamedTuple):
    """rows: compared. fence: up to which the log was folded. differences: the first ones, none if all is well."""

    partition: int
    fence: Fence
    rows: int
    differences: list[Difference]


async def recompute(
    log: Log,
    topics: Topics,
    partition: int,
    store: Store,
    until: Fence | None,
    codec: Decodes,
    *,
    slice_s: float = SLICE_S,
    progress: Tell | None = None,
    learn: Learn | None = None,
) -> Fence:
    """Fold the journal from the fence of `store` on: exactly up to the fence `until`, or to where the log ends now (None).

    Raises what `JournalReader.catch_up` raises, and `StoreOfAnotherLog` where the log doesn't lead to `until`.
    """
    reader = JournalReader(
        log=log,
        topics=topics,
        partition=partition,
        runs=Runs(store),
        codec=codec,
        learn=learn,
        progress=progress,
        slice_s=slice_s,
    )
    await reader.check()
    if until is None:
        return await reader.catch_up_to_end()
    fence = await reader.catch_up(until.offset + 1)
    if fence != until:
        raise StoreOfAnotherLog(
            f"{topics.journal!r} partition {partition}, folded up to offset {until.offset}, gives {fence!r} and not"
            f" {until!r}. The store that has this fence was folded from another log. Rebuild it."
        )
    return fence


def compare(ours: Store, theirs: Store, limit: int = DIFFERENCES_MAX) -> list[Difference]:
    """The first `limit` rows that differ, in byte order. Left out: what scans have noted, and what the store is of."""
    return list(_compare(ours, theirs, limit)[1])


async def verify_partition(
    log: Log,
    topics: Topics,
    partition: int,
    store: Store,
    codec: Decodes,
    *,
    scratch: Store | None = None,
    slice_s: float = SLICE_S,
    progress: Tell | None = None,
    learn: Learn | None = None,
) -> Verified:
    """Fold the journal up to the fence of `store` into `scratch` (memory, where none is given) and compare the rows.

    Raises what `JournalReader.check` and `catch_up` raise. `store` is only read.
    """
    until = store.fence()
    checker = JournalReader(log=log, topics=topics, partition=partition, runs=Runs(store), codec=codec)
    if until != NO_FENCE:
        await checker.check()
    anew: Store = MemoryStore(can_crash=False) if scratch is None else scratch
    await recompute(log, topics, partition, anew, until, codec, slice_s=slice_s, progress=progress, learn=learn)
    rows, differences = await asyncio.to_thread(_compare, store, anew, DIFFERENCES_MAX)
    return Verified(partition, until, rows, differences)


async def rebuild(
    log: Log,
    topics: Topics,
    partition: int,
    store: Store,
    codec: Decodes,
    *,
    slice_s: float = SLICE_S,
    progress: Tell | None = None,
    learn: Learn | None = None,
) -> Fence:
    """Forget what `store` has and fold the whole journal into it. A store that can't be opened: `RocksStore.forget` first.

    What is done is flushed at the end; a rebuild that was cut short goes on at the next start from what it had flushed.
    """
    store.drop()
    store.set_meta(await meta_of(log, topics, partition))
    fence = await recompute(log, topics, partition, store, None, codec, slice_s=slice_s, progress=progress, learn=learn)
    store.flush()
    return fence


def _compare(ours: Store, theirs: Store, limit: int) -> tuple[int, list[Difference]]:
    """How many keys were looked at, and the first differences: two ordered scans, side by side."""
    found: list[Difference] = []
    seen = 0
    left, right = _rows(ours), _rows(theirs)
    a, b = next(left, None), next(right, None)
    while (a is not None or b is not None) and len(found) < limit:
        seen += 1
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            found.append(Difference(describe(a[0]), a[1], None))
            a = next(left, None)
        elif a is None or b[0] < a[0]:
            found.append(Difference(describe(b[0]), None, b[1]))
            b = next(right, None)
        else:
            if a[1] != b[1]:
                found.append(Difference(describe(a[0]), a[1], b[1]))
            a, b = next(left, None), next(right, None)
    return seen, found


def _rows(store: Store) -> Iterator[tuple[bytes, bytes]]:
    return (row for row in store.scan(b"") if row[0] != META_KEY and row[0][:1] != SCANNED)
