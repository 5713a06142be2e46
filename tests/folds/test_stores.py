"""What every store promises; one suite over the one on disk and its twin in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from millstream.events.envelope import NO_FENCE, NOTHING_SENT, Fence
from millstream.projections.memory_store import MemoryStore
from millstream.projections.rocksdb_store import RocksStore
from millstream.projections.store import Store, StoreMeta

FENCE = Fence(5, 3, 2**64 - 1, 2, 11, NOTHING_SENT)
META = StoreMeta(1, "log-a", "test", 1, 4)


class Home(Protocol):
    """Where a store lives: how it is closed and opened again, and how a copy is opened."""

    def open(self) -> Store: ...

    def reopen(self, store: Store) -> Store: ...

    def open_copy(self, folder: str) -> Store: ...


class RocksHome:
    def __init__(self, folder: Path) -> None:
        self._path = str(folder / "store")

    def open(self) -> Store:
        return RocksStore(self._path)

    def reopen(self, store: Store) -> Store:
        store.close()
        return RocksStore(self._path)

    def open_copy(self, folder: str) -> Store:
        return RocksStore(folder)


class MemoryHome:
    def open(self) -> Store:
        return MemoryStore()

    def reopen(self, store: Store) -> Store:
        assert isinstance(store, MemoryStore)
        store.close()
        store.crash()
        return store

    def open_copy(self, folder: str) -> Store:
        return MemoryStore.restored(folder)


@pytest.fixture(params=["rocksdb", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return RocksHome(tmp_path) if request.param == "rocksdb" else MemoryHome()


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    opened = home.open()
    yield opened
    opened.close()


def test_a_new_store_is_empty_and_knows_nothing_of_itself(store: Store) -> None:
    assert store.fence() == NO_FENCE
    assert store.meta() is None
    assert list(store.scan(b"")) == []
    assert store.get(b"rx") is None


def test_rows_come_in_byte_order_whatever_the_order_of_writing(store: Store) -> None:
    keys = [b"rb\0h", b"ra\0i\0\0\0\2", b"ra\0i\0\0\0\1", b"o\xff", b"o\0", b"ra\0h", b"ra.1\0h", b"x"]
    store.write({key: key for key in keys}, FENCE)
    expected = sorted([*keys, b"f"])
    assert [key for key, _ in store.scan(b"")] == expected
    assert [key for key, _ in store.scan(b"ra\0")] == [b"ra\0h", b"ra\0i\0\0\0\1", b"ra\0i\0\0\0\2"]
    assert [key for key, _ in store.scan(b"r")] == [b"ra\0h", b"ra\0i\0\0\0\1", b"ra\0i\0\0\0\2", b"ra.1\0h", b"rb\0h"]


def test_a_scan_can_begin_within_its_prefix(store: Store) -> None:
    store.write({b"t1": b"", b"t2": b"", b"t3": b"", b"u": b""}, FENCE)
    assert [key for key, _ in store.scan(b"t", b"t2")] == [b"t2", b"t3"]
    assert [key for key, _ in store.scan(b"t", b"a")] == [b"t1", b"t2", b"t3"]
    assert [key for key, _ in store.scan(b"t", b"u")] == []


def test_none_deletes_and_an_empty_value_is_a_value(store: Store) -> None:
    store.write({b"t1": b"", b"t2": b"2"}, FENCE)
    assert store.get(b"t1") == b""
    store.write({b"t2": None, b"t9": None}, FENCE)
    assert store.get(b"t2") is None
    assert [key for key, _ in store.scan(b"t")] == [b"t1"]
    store.write({b"t2": b"again"}, FENCE)
    assert list(store.scan(b"t")) == [(b"t1", b""), (b"t2", b"again")]


def test_a_scan_shows_the_rows_as_they_were_when_it_began(store: Store) -> None:
    store.write({b"t1": b"", b"t2": b"", b"t3": b""}, FENCE)
    rows = store.scan(b"t")
    first = next(rows)
    store.write({b"t2": None, b"t4": b""}, FENCE)
    assert [first[0], *(key for key, _ in rows)] == [b"t1", b"t2", b"t3"]


def test_a_closed_store_has_its_rows_fence_and_meta_when_it_is_opened_again(home: Home) -> None:
    store = home.open()
    store.set_meta(META)
    store.write({b"ra\0h": b"head"}, FENCE)
    store = home.reopen(store)
    assert store.get(b"ra\0h") == b"head"
    assert store.fence() == FENCE
    assert store.meta() == META
    store.close()


def test_a_store_that_was_dropped_has_forgotten_everything(store: Store) -> None:
    store.set_meta(META)
    store.write({b"ra\0h": b"head"}, FENCE)
    store.flush()
    store.drop()
    assert list(store.scan(b"")) == []
    assert store.fence() == NO_FENCE
    store.write({b"ra\0h": b"new"}, FENCE)
    assert store.get(b"ra\0h") == b"new"


def test_a_checkpoint_is_a_store_of_its_own_with_what_was_not_flushed_too(
    home: Home, store: Store, tmp_path: Path
) -> None:
    store.write({b"ra\0h": b"head"}, FENCE)
    store.checkpoint(str(tmp_path / "copies" / "one"))
    store.write({b"ra\0h": None}, Fence(6, 3, 1, 3, 12, NOTHING_SENT))
    copy = home.open_copy(str(tmp_path / "copies" / "one"))
    assert copy.get(b"ra\0h") == b"head"
    assert copy.fence() == FENCE
    copy.close()


def test_a_second_close_does_nothing(home: Home) -> None:
    store = home.open()
    store.close()
    store.close()


def test_the_twin_loses_at_a_crash_what_was_not_flushed() -> None:
    store = MemoryStore()
    store.write({b"t1": b"1", b"t2": b"2"}, FENCE)
    store.flush()
    later = Fence(6, 3, 1, 3, 12, NOTHING_SENT)
    store.write({b"t1": None, b"t2": b"22", b"t3": b"3"}, later)
    store.write({b"t3": b"33"}, later)
    snapshot = store.snapshot()
    store.crash()
    assert list(store.scan(b"t")) == [(b"t1", b"1"), (b"t2", b"2")]
    assert store.fence() == FENCE
    assert list(snapshot.scan(b"t")) == [(b"t2", b"22"), (b"t3", b"33")]
