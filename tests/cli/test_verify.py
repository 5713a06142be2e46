"""`millstream verify` and `rebuild`: any state shown can be computed again from the log, to the byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec

from millstream.events.topics import partition_of
from millstream.projections.keys import run_prefix
from millstream.projections.rocksdb_store import RocksStore
from tests.cli.conftest import BOOK
from tests.support.commands import millstream, running

PARTITION = partition_of(BOOK, 4)
STORES = Path(".millstream/server/millstream")


def results(shop: Path, *args: str, code: int = 0) -> dict[int, dict[str, Any]]:
    lines = millstream("verify", "--json", *args, cwd=shop, code=code).stdout.splitlines()
    return {result["partition"]: result for result in map(msgspec.json.decode, lines)}


def spoil(shop: Path) -> None:
    """Change a byte in the head of the book's run."""
    store = RocksStore(str(shop / STORES / "store" / str(PARTITION)))
    key = run_prefix(BOOK) + b"h"
    row = store.get(key)
    assert row is not None
    store.write({key: row.replace(b"9E", b"9F", 1)}, store.fence())
    store.close()


def test_the_stores_of_a_stopped_server_equal_the_log(shop: Path) -> None:
    found = results(shop)
    assert sorted(found) == [0, 1, 2, 3]
    assert all(result["equal"] for result in found.values())
    assert found[PARTITION]["records"] > 5
    assert found[PARTITION]["rows"] > 5
    assert "equal to the byte" in millstream("verify", cwd=shop).stdout


def test_a_changed_row_is_found_and_named_and_a_rebuild_mends_it(shop: Path) -> None:
    spoil(shop)
    found = results(shop, code=1)
    assert [p for p, result in found.items() if not result["equal"]] == [PARTITION]
    (difference,) = found[PARTITION]["differences"]
    assert difference["key"] == f"head of run '{BOOK}'"
    assert difference["store"].replace("3946", "3945", 1) == difference["log"]
    shown = millstream("verify", cwd=shop, code=1)
    assert "differs" in shown.stdout
    assert f"partition {PARTITION}: head of run '{BOOK}'" in shown.stderr
    assert "millstream rebuild" in shown.stderr
    assert all(result["equal"] for p, result in results(shop, "--partition", str((PARTITION + 1) % 4)).items())

    rebuilt = millstream("rebuild", cwd=shop).stdout
    assert f"partition {PARTITION}: {found[PARTITION]['records']} records folded" in rebuilt
    assert all(result["equal"] for result in results(shop).values())


def test_a_live_server_is_verified_while_it_goes_on(shop: Path) -> None:
    with running("serve", cwd=shop) as server:
        server.says("owns partitions")
        found = results(shop)
        assert sorted(found) == [0, 1, 2, 3]
        assert all(result["equal"] for result in found.values())
        assert server.process.poll() is None
        assert not list((shop / STORES / "checkpoints").iterdir())


def test_a_store_is_not_rebuilt_while_a_server_holds_it(shop: Path) -> None:
    with running("serve", cwd=shop) as server:
        server.says("owns partitions")
        refused = millstream("rebuild", cwd=shop, code=4)
        assert f"process {server.process.pid}" in refused.stderr
        server.process.terminate()
        server.ends(0)
    millstream("rebuild", "--partition", "0", "--json", cwd=shop)


def test_a_damaged_store_is_rebuilt(shop: Path) -> None:
    path = shop / STORES / "store" / str(PARTITION)
    for file in (*path.glob("*.sst"), *path.glob("MANIFEST-*")):
        file.write_bytes(b"\0" * 100)
    damaged = millstream("verify", cwd=shop, code=1).stderr
    assert "millstream rebuild" in damaged
    millstream("rebuild", cwd=shop)
    assert all(result["equal"] for result in results(shop).values())


def test_stores_that_arent_there_end_with_3(shop: Path) -> None:
    assert "has no store of partition 9" in millstream("verify", "--partition", "9", cwd=shop, code=3).stderr
    shutil.rmtree(shop / STORES)
    for verb in ("verify", "rebuild"):
        assert "there are no stores in" in millstream(verb, cwd=shop, code=3).stderr
    assert not (shop / STORES).exists()
