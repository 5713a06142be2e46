"""How fast a journal folds into a store: records decoded, folded and written, in batches of 500. Prints, judges nothing.

python -P tests/benchmarks/bench_fold.py [records]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from millstream.events.codec import Codec
from millstream.events.daybook import DayOpened, FlightEntered
from millstream.events.envelope import Event, Fence, Ref, Transition, read_fence_header
from millstream.events.logs.port import Record
from millstream.projections.fence import Judge, fence_after
from millstream.projections.fold import Runs, apply, finish
from millstream.projections.memory_store import MemoryStore
from millstream.projections.rocksdb_store import RocksStore
from millstream.projections.store import Store
from tests.support.journal import CODEC, PARTITION, Journal, PlainCodec

RUNS = 100
BATCH = 500


def journal_of(records: int, codec: PlainCodec | Codec = CODEC) -> Journal:
    """Flights entered by commands, one event a transition, in `RUNS` day books by turns."""
    journal = Journal(codec=codec)
    journal.claim()
    for i in range(records):
        run_id = f"9E-2013-{i % RUNS:05}"
        event: Event = DayOpened("9E", run_id[3:])
        if i >= RUNS:
            event = FlightEntered(i // RUNS - 1, "1234", "JFK", "BOS", False, 12.5)
        journal.add(run_id, event, command_id=f"0123456789abcdef{i:08}", reply=b"17")
    return journal


def fold(store: Store, journal: Journal) -> dict[str, float]:
    """CPU of this thread in microseconds a transition: header and judge, apply, finish, write. No decoding."""
    runs, judge, fence = Runs(store), Judge(), store.fence()
    spent = {"judge": 0.0, "apply": 0.0, "finish": 0.0, "write": 0.0}
    claim = read_fence_header(journal.records[0].headers)
    assert claim is not None
    fence = fence_after(fence, claim, 0)
    clock = time.thread_time
    count = len(journal.records) - 1
    for first in range(1, count + 1, BATCH):
        rows: dict[bytes, bytes | None] = {}
        # Decoded just before, as a reader does: what lay in memory for long costs more to look at.
        records = [Record(r.value, r.key, tuple(r.headers)) for r in journal.records[first : first + BATCH]]
        part = [CODEC.decode(r.value or b"") for r in records]
        began = clock()
        fence, refs = judge_all(judge, records, fence, first, part)
        judged = clock()
        for ref, transition in zip(refs, part, strict=True):
            assert isinstance(transition, Transition)
            apply(runs, transition, ref, rows)
        applied = clock()
        finish(runs, rows)
        finished = clock()
        runs.write(rows, fence)
        written = clock()
        spent["judge"] += judged - began
        spent["apply"] += applied - judged
        spent["finish"] += finished - applied
        spent["write"] += written - finished
    return {name: s / count * 1e6 for name, s in spent.items()}


def judge_all(
    judge: Judge, records: list[Record], fence: Fence, first: int, part: list[object]
) -> tuple[Fence, list[Ref]]:
    refs = []
    for offset, (record, transition) in enumerate(zip(records, part, strict=True), first):
        mark = read_fence_header(record.headers)
        assert mark is not None
        assert isinstance(transition, Transition)
        if judge(mark, offset, fence) == "apply":
            refs.append(Ref(PARTITION, mark.epoch_offset, mark.claim_id, mark.number))
            fence = fence_after(fence, mark, offset, transition)
    return fence, refs


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    journal = journal_of(records)
    with tempfile.TemporaryDirectory() as folder:
        for name, store in (("memory", MemoryStore()), ("rocksdb", RocksStore(f"{folder}/store"))):
            spent = fold(store, journal)
            parts = ", ".join(f"{part} {us:.2f}" for part, us in spent.items())
            total = sum(spent.values())
            print(f"{name}: {total:.2f} µs a transition ({parts}); {1e6 / total:,.0f}/s without decoding")
            store.close()


if __name__ == "__main__":
    main()
