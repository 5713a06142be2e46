"""`millstream rebuild`: drop a server's stores and fold them again from the log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.progress import Progress

from millstream.events.errors import StoreDamaged
from millstream.events.registry import load_schemas
from millstream.projections.reader import Progress as Folded
from millstream.projections.rocksdb_store import RocksStore
from millstream.projections.verify import rebuild as rebuild_partition
from millstream.streams.cli.console import DONE, counted, out, print_json, progress
from millstream.streams.cli.session import Session, reading
from millstream.streams.cli.settings import Setting
from millstream.streams.cli.stores import wanted
from millstream.streams.runtime.folder import ServerFolder


async def rebuild(address: Setting, prefix: str, folder: Path, partition: int | None, *, as_json: bool) -> int:
    """Rebuild one partition's store, or all that the folder has. Raises `FolderInUse` while a server holds it."""
    numbers = wanted(folder, partition)
    held = ServerFolder(folder, since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC, to rebuild its stores"))
    held.lock()
    try:
        async with reading(address, prefix) as session:
            with progress(quiet=as_json) as bars:
                for number in numbers:
                    records, offset = await _rebuild_one(session, number, held.store_path(number), bars)
                    if as_json:
                        print_json({"partition": number, "offset": offset, "records": records})
                    else:
                        out.print(f"partition {number}: {counted(records, 'record')} folded, up to offset {offset:,}")
    finally:
        held.unlock()
    return DONE


async def _rebuild_one(session: Session, partition: int, path: Path, bars: Progress) -> tuple[int, int]:
    """How many records were folded, and the offset of the last."""
    log, topics, codec = session
    bar = bars.add_task(f"partition {partition}", total=None)
    records = 0

    def told(folded: Folded) -> None:
        nonlocal records
        records = folded.transitions
        bars.update(bar, completed=folded.position, total=folded.until)

    async def learn() -> None:
        await load_schemas(log, topics, codec)

    try:
        store = RocksStore(str(path))
    except StoreDamaged:
        RocksStore.forget(str(path))
        store = RocksStore(str(path))
    try:
        fence = await rebuild_partition(log, topics, partition, store, codec, progress=told, learn=learn)
    finally:
        store.close()
    return records, fence.offset
