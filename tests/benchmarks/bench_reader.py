"""How fast the journal reader folds a partition of a memory log into RocksDB. Prints CPU time of this thread; judges nothing.

    python -P tests/benchmarks/bench_reader.py [records]

With a MessagePack codec; what the real codec takes more or less is measured with it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from millstream.projections.fold import Runs
from millstream.projections.reader import JournalReader
from millstream.projections.rocksdb_store import RocksStore
from tests.benchmarks.bench_fold import journal_of
from tests.support.journal import CODEC, PARTITION, TOPICS, log_of


async def measure(records: int) -> None:
    journal = journal_of(records)
    log = await log_of(journal.records)
    began = time.thread_time()
    for record in journal.records:
        CODEC.decode(record.value or b"")
    decoding = time.thread_time() - began
    with tempfile.TemporaryDirectory() as folder:
        store = RocksStore(f"{folder}/store")
        reader = JournalReader(log=log, topics=TOPICS, partition=PARTITION, runs=Runs(store), codec=CODEC)
        began = time.thread_time()
        await reader.catch_up_to_end()
        took = time.thread_time() - began
        store.close()
    us, decode_us = took / records * 1e6, decoding / records * 1e6
    print(f"{records / took:,.0f} transitions/s: {us:.1f} µs each, of which decoding is about {decode_us:.1f}")


if __name__ == "__main__":
    asyncio.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
