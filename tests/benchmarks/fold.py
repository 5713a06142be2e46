"""How fast a journal becomes rows: read, judged, decoded, folded and written to RocksDB, as at a take-over or a rebuild."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable

from millstream.events.codec import Codec
from millstream.projections.fold import Runs
from millstream.projections.reader import JournalReader
from millstream.projections.rocksdb_store import RocksStore
from tests.benchmarks.bench_fold import journal_of
from tests.support.journal import PARTITION, TOPICS, log_of


async def measure(emit: Callable[..., None], *, events: int) -> None:
    """`fold.events_per_s`: one event a transition, from a log in memory into a store on disk."""
    codec = Codec()
    journal = journal_of(events, codec)
    log = await log_of(journal.records)
    with tempfile.TemporaryDirectory() as folder:
        store = RocksStore(f"{folder}/store")
        reader = JournalReader(log=log, topics=TOPICS, partition=PARTITION, runs=Runs(store), codec=codec)
        began = time.perf_counter()
        await reader.catch_up_to_end()
        took = time.perf_counter() - began
        store.close()
    emit("fold.events_per_s", events / took, "1/s", store="rocksdb")
