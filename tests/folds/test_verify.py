"""Any state shown can be recomputed from the log, to the byte; and a difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.events.envelope import Fence
from millstream.events.errors import StoreAheadOfLog, StoreOfAnotherLog
from millstream.projections.keys import answer_key
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import Progress, meta_of
from millstream.projections.rocksdb_store import RocksStore
from millstream.projections.store import Store
from millstream.projections.verify import (
    DIFFERENCES_MAX,
    Difference,
    Verified,
    compare,
    rebuild,
    recompute,
    verify_partition,
)
from tests.support.aio import run
from tests.support.journal import CODEC, PARTITION, TOPICS, fold_records, log_of, random_journal, rows_of

JOURNAL = random_journal(5, 600)


def verify(store: Store, *, of: int = 400, log_records: int = 600) -> Verified:
    """Verify a store that was folded from the first `of` records against a log."""

    async def verifying() -> Verified:
        log = await log_of(JOURNAL.records[:log_records])
        store.set_meta(await meta_of(log, TOPICS, PARTITION))
        fold_records(store, JOURNAL.records[:of])
        return await verify_partition(log, TOPICS, PARTITION, store, CODEC)

    return run(verifying())


def tampered(puts: dict[bytes, bytes | None]) -> Verified:
    class Tampered(MemoryStore):
        def fence(self) -> Fence:
            fence = super().fence()
            if fence.offset > 380:
                for key, value in puts.items():
                    self._set(key, value)
            return fence

    return verify(Tampered())


def test_a_store_that_stands_in_the_middle_of_the_log_is_verified_up_to_its_fence() -> None:
    store = MemoryStore()
    verified = verify(store)
    assert verified.differences == []
    assert verified.fence == store.fence()
    assert verified.rows == len(rows_of(store))


def test_a_new_store_is_verified_too() -> None:
    assert verify(MemoryStore(), of=0).differences == []


def test_a_row_that_differs_is_named_with_both_values() -> None:
    key = answer_key("nobody-1", "c-none")
    verified = tampered({key: b"x"})
    assert verified.differences == [Difference("answer to command 'c-none' of run 'nobody-1'", b"x", None)]


def test_a_row_that_is_missing_is_named() -> None:
    verified = tampered({b"p": None})
    assert [(d.key, d.ours) for d in verified.differences] == [("the partition's time", None)]


def test_only_the_first_differences_are_named() -> None:
    verified = tampered({answer_key("a", f"c{n}"): b"x" for n in range(50)})
    assert len(verified.differences) == DIFFERENCES_MAX


def test_what_scans_have_noted_is_left_out() -> None:
    assert tampered({b"zt": b"x"}).differences == []


def test_a_store_ahead_of_its_log_is_not_verified() -> None:
    with pytest.raises(StoreAheadOfLog):
        verify(MemoryStore(), of=400, log_records=300)


def test_a_fence_that_the_log_does_not_lead_to_is_another_logs() -> None:
    async def recomputing() -> None:
        log = await log_of(JOURNAL.records)
        fence = fold_records(MemoryStore(), JOURNAL.records[:400])
        wrong = Fence(fence.offset, fence.epoch_offset, fence.claim_id, fence.number + 1, 0, fence.sent)
        await recompute(log, TOPICS, PARTITION, MemoryStore(), wrong, CODEC)

    with pytest.raises(StoreOfAnotherLog, match="and not Fence"):
        run(recomputing())


def test_a_read_only_store_beside_its_owner_is_verified_up_to_what_was_flushed(tmp_path: Path) -> None:
    async def verifying() -> Verified:
        log = await log_of(JOURNAL.records)
        owner = RocksStore(str(tmp_path / "s"))
        owner.set_meta(await meta_of(log, TOPICS, PARTITION))
        fold_records(owner, JOURNAL.records[:200])
        owner.flush()
        fold_records(owner, JOURNAL.records)
        reader = RocksStore(str(tmp_path / "s"), read_only=True)
        scratch = RocksStore(str(tmp_path / "scratch"))
        try:
            return await verify_partition(log, TOPICS, PARTITION, reader, CODEC, scratch=scratch)
        finally:
            for store in (reader, scratch, owner):
                store.close()

    verified = run(verifying())
    assert verified.differences == []
    assert 150 < verified.fence.offset < 200


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_a_rebuilt_store_equals_the_one_before_and_says_how_far_it_is(kind: str, tmp_path: Path) -> None:
    told: list[Progress] = []
    store: Store = MemoryStore() if kind == "memory" else RocksStore(str(tmp_path / "s"))
    fold_records(store, JOURNAL.records)
    before = rows_of(store)
    store.write({b"rgarbage\0h": b"x"}, store.fence())

    async def rebuilding() -> Fence:
        log = await log_of(JOURNAL.records)
        return await rebuild(log, TOPICS, PARTITION, store, CODEC, slice_s=0, progress=told.append)

    fence = run(rebuilding())
    assert rows_of(store) == before
    assert store.fence() == fence
    assert told[-1].position == len(JOURNAL.records)
    assert len(told) > 1
    store.close()


def test_equal_stores_have_no_differences_whatever_they_are_of() -> None:
    one, other = MemoryStore(), MemoryStore()
    fold_records(one, JOURNAL.records, batch=3)
    fold_records(other, JOURNAL.records, batch=100)
    assert compare(one, other) == []
