"""A fold that stops and goes on anywhere gives what a fold without a stop gives, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from millstream.events.envelope import GapAccepted, Transition
from millstream.projections.memory_store import MemoryStore
from millstream.projections.rocksdb_store import RocksStore
from millstream.projections.run import head_row
from millstream.projections.runs import Runs
from tests.support.journal import CODEC, EVENTS, fold_records, random_journal, rows_of

LENGTH = 200


def test_the_journals_of_these_tests_have_every_kind_of_event_in_them() -> None:
    found = set()
    for seed in range(3):
        for record in random_journal(seed, LENGTH).records:
            value = CODEC.decode(record.value or b"")
            assert not isinstance(value, GapAccepted)
            if isinstance(value, Transition):
                found |= {type(event) for event in value.events}
    assert found == set(EVENTS)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_is_closed_and_opened_at_each_offset_equals_the_full_fold(seed: int) -> None:
    records = random_journal(seed, LENGTH).records
    full = MemoryStore()
    fold_records(full, records, batch=50)
    expected = rows_of(full)
    for stop in range(len(records)):
        store = MemoryStore()
        fold_records(store, records[:stop])
        copy = store.snapshot()
        fold_records(copy, records)
        assert rows_of(copy) == expected, f"seed {seed}, stopped at offset {stop}"


@pytest.mark.parametrize("seed", range(4))
def test_a_store_that_crashes_between_flushes_equals_the_full_fold(seed: int) -> None:
    records = random_journal(seed, LENGTH).records
    full = MemoryStore()
    fold_records(full, records)
    for flushed in range(0, len(records), 9):
        store = MemoryStore()
        fold_records(store, records[:flushed])
        store.flush()
        fold_records(store, records[: flushed + 40], batch=3)
        store.crash()
        fold_records(store, records)
        assert rows_of(store) == rows_of(full), f"seed {seed}, flushed at offset {flushed}"


def test_a_store_on_disk_that_is_closed_and_opened_at_each_offset_equals_the_twin(tmp_path: Path) -> None:
    records = random_journal(7, 60).records
    for stop in range(1, len(records) + 1):
        store = RocksStore(str(tmp_path / "s"))
        fold_records(store, records[:stop])
        store.close()
    twin = MemoryStore()
    fold_records(twin, records)
    store = RocksStore(str(tmp_path / "s"))
    assert rows_of(store) == rows_of(twin)
    store.close()


def test_a_checkpoint_at_any_offset_and_the_tail_equal_the_full_fold(tmp_path: Path) -> None:
    records = random_journal(8, 120).records
    store = RocksStore(str(tmp_path / "s"))
    for stop in range(20, len(records), 20):
        fold_records(store, records[:stop])
        store.checkpoint(str(tmp_path / f"copy-{stop}"))
    fold_records(store, records)
    expected = rows_of(store)
    store.close()
    for stop in range(20, len(records), 20):
        copy = RocksStore(str(tmp_path / f"copy-{stop}"))
        fold_records(copy, records)
        assert rows_of(copy) == expected
        copy.close()


@pytest.mark.parametrize("seed", range(3))
def test_however_the_journal_is_cut_into_batches_the_rows_are_the_same(seed: int) -> None:
    records = random_journal(seed, LENGTH).records
    folded = []
    for batch in (1, 2, 13, 1000):
        store = MemoryStore()
        fold_records(store, records, batch=batch)
        folded.append(rows_of(store))
    assert all(rows == folded[0] for rows in folded)


def test_live_runs_equal_what_their_rows_give_after_each_record() -> None:
    records = random_journal(9, LENGTH).records
    store = MemoryStore()
    for stop in range(1, len(records) + 1):
        fold_records(store, records[:stop], batch=1)
        runs = Runs(store)
        for key, row in store.scan(b"r"):
            run_id, _, rest = key[1:].partition(b"\0")
            if rest == b"h":
                run = runs.get(run_id.decode())
                assert run is not None
                assert head_row(run) == row


def test_memory_that_holds_few_runs_gives_the_same_rows() -> None:
    records = random_journal(10, LENGTH).records
    large, small = MemoryStore(), MemoryStore()
    fold_records(large, records)
    fold_records(small, records, max_runs=2)
    assert rows_of(large) == rows_of(small)
