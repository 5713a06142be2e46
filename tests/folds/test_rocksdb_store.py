"""What only a store on disk can meet: locks, damage, a kill between flushes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.events.envelope import NOTHING_SENT, Fence
from millstream.events.errors import FolderInUse, LogFolderUnusable, StoreDamaged
from millstream.projections.memory_store import MemoryStore
from millstream.projections.rocksdb_store import RocksStore
from tests.support.journal import fold_records, random_journal, rows_of

FENCE = Fence(5, 3, 7, 2, 11, NOTHING_SENT)

# Folds a random journal batch by batch, flushes some of them, and says after each batch how far it is.
FOLDER = """
import sys
from tests.support.journal import fold_records, random_journal
from millstream.projections.rocksdb_store import RocksStore
store = RocksStore(sys.argv[1])
records = random_journal(int(sys.argv[2]), int(sys.argv[3])).records
for end in range(10, len(records), 10):
    fold_records(store, records[:end], batch=3)
    if end % 70 == 0:
        store.flush()
    print(end, flush=True)
sys.stdin.read()
"""


def _damage(path: Path) -> None:
    """Overwrite the middle of every table file."""
    tables = list(path.glob("*.sst"))
    assert tables
    for table in tables:
        size = table.stat().st_size
        with table.open("r+b") as file:
            file.write(b"\xa5" * (size // 2))


def test_a_store_is_open_in_one_place_only(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    with pytest.raises(FolderInUse, match="open in another process"):
        RocksStore(str(tmp_path / "s"))
    with pytest.raises(FolderInUse):
        RocksStore.forget(str(tmp_path / "s"))
    store.write({b"t": b"1"}, FENCE)
    store.close()


def test_a_store_of_another_process_is_in_use(tmp_path: Path) -> None:
    child = _start(tmp_path / "s", seed=1, records=40)
    try:
        _wait_for(child, 10)
        with pytest.raises(FolderInUse):
            RocksStore(str(tmp_path / "s"))
    finally:
        _kill(child)


def test_a_read_only_store_sees_what_was_flushed_beside_its_owner_and_cant_write(tmp_path: Path) -> None:
    owner = RocksStore(str(tmp_path / "s"))
    owner.write({b"t1": b"1"}, FENCE)
    owner.flush()
    owner.write({b"t2": b"2"}, Fence(6, 3, 7, 3, 12, NOTHING_SENT))
    reader = RocksStore(str(tmp_path / "s"), read_only=True)
    assert list(reader.scan(b"t")) == [(b"t1", b"1")]
    assert reader.fence() == FENCE
    with pytest.raises(StoreDamaged, match="read only"):
        reader.write({b"t3": b"3"}, FENCE)
    reader.close()
    owner.close()


def test_a_read_only_store_that_isnt_there_says_who_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreDamaged, match="there is no store in"):
        RocksStore(str(tmp_path / "none"), read_only=True)


def test_a_damaged_table_is_found_and_the_store_heals_by_rebuild(tmp_path: Path) -> None:
    path = tmp_path / "s"
    records = random_journal(2, 400).records
    store = RocksStore(str(path))
    fold_records(store, records)
    before = rows_of(store)
    store.close()
    _damage(path)
    with pytest.raises(StoreDamaged, match="rebuild"):
        rows_of(RocksStore(str(path)))
    RocksStore.forget(str(path))
    healed = RocksStore(str(path))
    fold_records(healed, records)
    assert rows_of(healed) == before
    healed.close()


def test_a_store_whose_files_are_gone_or_garbled_is_damaged_not_empty(tmp_path: Path) -> None:
    for name, what in (("gone", "*.sst"), ("garbled", "CURRENT"), ("cut", "MANIFEST-*")):
        path = tmp_path / name
        store = RocksStore(str(path))
        fold_records(store, random_journal(2, 100).records)
        store.close()
        for file in path.glob(what):
            file.unlink() if name == "gone" else file.write_bytes(b"garbage")
        with pytest.raises(StoreDamaged):
            rows_of(RocksStore(str(path)))
        RocksStore.forget(str(path))
        RocksStore(str(path)).close()


def test_a_store_that_was_deleted_is_folded_anew(tmp_path: Path) -> None:
    records = random_journal(3, 200).records
    store = RocksStore(str(tmp_path / "s"))
    fold_records(store, records)
    before = rows_of(store)
    store.close()
    RocksStore.forget(str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()
    anew = RocksStore(str(tmp_path / "s"))
    fold_records(anew, records)
    assert rows_of(anew) == before
    anew.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cant_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(LogFolderUnusable, match="can't be written"):
            RocksStore(str(tmp_path / "s"))
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("kill_at", [60, 130, 250])
def test_after_a_kill_between_flushes_the_rest_of_the_journal_gives_the_full_fold(tmp_path: Path, kill_at: int) -> None:
    seed, length = 11, 300
    child = _start(tmp_path / "s", seed=seed, records=length)
    try:
        _wait_for(child, kill_at)
    finally:
        _kill(child)
    records = random_journal(seed, length).records
    store = RocksStore(str(tmp_path / "s"))
    assert store.fence().offset < len(records) - 1
    fold_records(store, records)
    full = MemoryStore()
    fold_records(full, records)
    assert rows_of(store) == rows_of(full)
    store.close()


def _start(path: Path, *, seed: int, records: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", FOLDER, str(path), str(seed), str(records)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _wait_for(child: subprocess.Popen[str], end: int) -> None:
    """Until it has folded up to `end`, or is done."""
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= end:
            return
    raise AssertionError(f"the folding process ended with {child.wait()} before it came to {end}")


def _kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
