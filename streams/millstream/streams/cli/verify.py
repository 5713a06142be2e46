"""`millstream verify`: fold the log anew, and compare with a server's stores, to the byte."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from millstream.events.envelope import Fence
from millstream.events.registry import load_schemas
from millstream.projections.reader import Progress as Folded
from millstream.projections.rocksdb_store import RocksStore
from millstream.projections.verify import Verified, verify_partition
from millstream.streams.cli.console import DONE, FAILED, err, escape, out, print_json, progress
from millstream.streams.cli.session import Session, reading
from millstream.streams.cli.settings import Setting
from millstream.streams.cli.stores import frozen_stores, wanted

SHOWN = 5


class Row(msgspec.Struct):
    """A difference as it is printed with --json: rows in hex, null where one side has none."""

    key: str
    store: str | None
    log: str | None


class Result(msgspec.Struct):
    """records: transitions folded. rows: compared. differences: the first ones."""

    partition: int
    offset: int
    records: int
    rows: int
    equal: bool
    differences: list[Row]


async def verify(address: Setting, prefix: str, folder: Path, partition: int | None, *, as_json: bool) -> int:
    """Verify one partition, or all that the folder has; the exit code."""
    wanted(folder, partition)
    results: list[Result] = []
    async with reading(address, prefix) as session, frozen_stores(folder) as stores:
        with progress(quiet=as_json) as bars:
            for number in wanted(folder, partition):
                results.append(await _verify_one(session, number, stores[number], bars))
                if as_json:
                    print_json(results[-1])
    if not as_json:
        _print(results)
    return DONE if all(result.equal for result in results) else FAILED


async def _verify_one(session: Session, partition: int, path: Path, bars: Progress) -> Result:
    log, topics, codec = session
    bar = bars.add_task(f"partition {partition}", total=None)
    records = 0

    def told(folded: Folded) -> None:
        nonlocal records
        records = folded.transitions
        bars.update(bar, completed=folded.position, total=folded.until)

    async def learn() -> None:
        await load_schemas(log, topics, codec)

    store = RocksStore(str(path), read_only=True)
    try:
        verified = await verify_partition(log, topics, partition, store, codec, progress=told, learn=learn)
    finally:
        store.close()
    return _result(verified, records, verified.fence)


def _result(verified: Verified, records: int, fence: Fence) -> Result:
    differences = [Row(d.key, _hex(d.ours), _hex(d.theirs)) for d in verified.differences]
    return Result(verified.partition, fence.offset, records, verified.rows, not differences, differences)


def _hex(row: bytes | None) -> str | None:
    return None if row is None else row.hex()


def _print(results: list[Result]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in ("partition", "up to offset", "records", "rows"):
        table.add_column(name, justify="right")
    table.add_column("")
    for r in results:
        equal = Text("equal to the byte", "green") if r.equal else Text("differs", "bold red")
        table.add_row(str(r.partition), f"{r.offset:,}", f"{r.records:,}", f"{r.rows:,}", equal)
    out.print(table)
    for r in results:
        for d in r.differences[:SHOWN]:
            err.print(f"partition {r.partition}: {escape(d.key)}", style="red", markup=False)
            err.print(f"  in the store:  {_short(d.store)}\n  from the log:  {_short(d.log)}", markup=False)
        if len(r.differences) > SHOWN:
            err.print(f"partition {r.partition}: more rows differ (all that were looked at: --json)")
    if not all(r.equal for r in results):
        err.print(
            "The log is the truth. The store is of no use: stop its server, then `millstream rebuild`. If that makes it"
            " differ again, this is a bug: keep both and report it."
        )


def _short(row: str | None) -> str:
    if row is None:
        return "nothing"
    return row if len(row) <= 80 else f"{row[:77]}... ({len(row) // 2:,} bytes)"
