"""The live runs of a partition over its store: what is written, and what is decided but not proved yet. Pure but for the store.

A batch goes: `fold.apply` for each transition, `fold.finish` once, then, after
its append is proved, `Runs.write`. Batches are written in the order in which
they were finished; the next one may be decided before the last one is written.
What `get`, `peek_answer`, `tombstone` and `timers` say includes what isn't
written yet; `pending_outputs` doesn't. After an append whose end is unknown:
`clear`, and fold the journal.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec

from millstream.events.daybook import DayClosed, FiguresAsked, MonthAsked
from millstream.events.envelope import NOTHING_SENT, Event, Fence, Sent
from millstream.events.monthbook import MonthAnswered
from millstream.events.run import CommandDeadLettered, CommandForwarded, RefusalAnswered
from millstream.projections.keys import (
    HEAD,
    ITEM,
    OUTBOX,
    PLAN,
    TIME_KEY,
    TOMBSTONE,
    answer_key,
    outbox_key,
    pack_time,
    parse_outbox,
    plan_key,
    run_prefix,
    tombstone_key,
    unpack_time,
)
from millstream.projections.run import Run, encode, from_rows, has_plan, head_row
from millstream.projections.store import Store
from millstream.projections.timers import Rows, Timers

RUNS_MAX = 10_000

Output = tuple[str, int, Event]
"""What is to be sent: run id, `at` of the transition in ms, the event that asks for it."""

OutputEvent = (
    FiguresAsked | MonthAsked | DayClosed | MonthAnswered | RefusalAnswered | CommandForwarded | CommandDeadLettered
)


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a command was decided. code: None where it was accepted, else with `reason` the refusal. reply: JSON.
    at: partition time in ms."""

    code: str | None
    reason: str
    reply: bytes | None
    at: int


class Tombstone(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """until: ms. command_id, answer: of the command that removed the run, since the run's own answers are gone."""

    until: int
    command_id: str | None
    answer: Answer | None


class Sealed(NamedTuple):
    """A finished batch that is not written yet. run_ids: of runs that it changes; answered: of those with answers."""

    rows: Rows
    run_ids: set[str]
    answered: set[str]
    timers: set[bytes]
    last_output: Sent


_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode
_tombstone: Callable[[bytes], Tombstone] = msgspec.msgpack.Decoder(Tombstone).decode
_output: Callable[[bytes], tuple[str, int, Any]] = msgspec.msgpack.Decoder(tuple[str, int, OutputEvent]).decode


class Runs:
    """Runs, answers, tombstones, timers and outputs of one partition.

    max_runs: how many runs stay in memory, least recently used out; those with unwritten changes always stay.
    at: partition time of the last transition, ms. outbox: outputs that aren't acknowledged, in order, unproved ones
    too. open, answered: the rows of the batch that isn't finished yet, and the runs with answers in it.
    """

    def __init__(self, store: Store, max_runs: int = RUNS_MAX) -> None:
        self.store = store
        self.max_runs = max_runs
        self.timers = Timers(store)
        self._load()

    def clear(self) -> None:
        """Forget all that isn't in the store, and everything cached."""
        self.timers.clear()
        self._load()

    def _load(self) -> None:
        self._cache: OrderedDict[str, Run | None] = OrderedDict()
        self._unwritten: dict[str, int] = {}
        self._dirty: set[str] = set()
        self._sealed: deque[Sealed] = deque()
        self.open: Rows = {}
        self.answered: set[str] = set()
        row = self.store.get(TIME_KEY)
        self.at = 0 if row is None else unpack_time(row)
        # Acknowledged outputs left deleted rows below: begin behind them.
        sent = self.store.fence().sent
        start = None if sent == NOTHING_SENT else outbox_key(sent)
        self.outbox: deque[tuple[Sent, Output]] = deque(
            (parse_outbox(key), _output(value)) for key, value in self.store.scan(OUTBOX, start)
        )
        self._last_output = self._proved_output = self.outbox[-1][0] if self.outbox else NOTHING_SENT
        self._plans = {key[1:].decode() for key, _ in self.store.scan(PLAN)}
        self._any_tombstone = next(self.store.scan(TOMBSTONE), None) is not None

    def get(self, run_id: str) -> Run | None:
        """The run with all that is folded into it, or None where there is none."""
        cache = self._cache
        if run_id in cache:
            cache.move_to_end(run_id)
            return cache[run_id]
        run = cache[run_id] = self._read(run_id)
        if len(cache) > self.max_runs:
            self._evict(run_id)
        return run

    def peek_answer(self, run_id: str, command_id: str) -> Answer | None:
        """How this command of the run was decided, or None if it wasn't yet."""
        row = self._row(answer_key(run_id, command_id))
        if row is not None:
            return _answer(row)
        buried = self._buried_as(run_id)
        return buried.answer if buried is not None and buried.command_id == command_id else None

    def tombstone(self, run_id: str) -> int | None:
        """Until when (ms) the id of a removed run is reserved; None where no run of that id was removed."""
        buried = self._buried_as(run_id)
        return None if buried is None else buried.until

    def open_plans(self) -> list[str]:
        """Runs whose plans have slices left, as of the last finished batch."""
        return sorted(self._plans)

    def pending_outputs(self) -> Iterator[tuple[Sent, Output]]:
        """Outputs that are proved and not acknowledged, in journal order."""
        proved = self._proved_output
        return takewhile(lambda output: output[0] <= proved, self.outbox)

    def write(self, rows: Rows, fence: Fence) -> None:
        """Write the oldest finished batch to the store; its append must be proved."""
        if not self._sealed or self._sealed[0].rows is not rows:
            raise ValueError("batches are written as they were finished: this one isn't the oldest unwritten")
        self.store.write(rows, fence)
        batch = self._sealed.popleft()
        self._proved_output = batch.last_output
        self.timers.written(batch.timers)
        for run_id in batch.run_ids:
            left = self._unwritten[run_id] - 1
            if left:
                self._unwritten[run_id] = left
            else:
                del self._unwritten[run_id]

    # What folds call: each changes memory and puts its rows into `rows`.

    def begin(self, run: Run) -> None:
        """A new run, where there is none."""
        self._cache[run.run_id] = run
        if len(self._cache) > self.max_runs:
            self._evict(run.run_id)

    def touch(self, run_id: str) -> None:
        """The run has changed: its head is written with this batch, and it stays in memory until then."""
        if run_id not in self._dirty:
            self._dirty.add(run_id)
            self._unwritten[run_id] = self._unwritten.get(run_id, 0) + 1

    def bury(self, run_id: str, tombstone: Tombstone, rows: Rows) -> None:
        """Drop a run with all its rows; leave a tombstone."""
        run = self.get(run_id)
        prefix = run_prefix(run_id)
        for key, _ in self.store.scan(prefix):
            rows[key] = None
        for unwritten in self._unwritten_rows(run_id):
            rows.update({key: None for key in unwritten if key.startswith(prefix)})
        if run is not None:
            for timer_id, due_at in run.timers.items():
                self.timers.change(due_at, run_id, timer_id, rows, is_set=False)
        self._cache[run_id] = None
        self.touch(run_id)
        rows[tombstone_key(run_id)] = encode(tombstone)
        self._any_tombstone = True

    def put_output(self, sent: Sent, output: Output, rows: Rows) -> None:
        rows[outbox_key(sent)] = encode(output)
        self.outbox.append((sent, output))
        self._last_output = sent

    def forget_outputs(self, sent: Sent, rows: Rows) -> None:
        """All outputs up to `sent` are acknowledged."""
        outbox = self.outbox
        while outbox and outbox[0][0] <= sent:
            key = outbox_key(outbox.popleft()[0])
            # The key of an output is used once, so one that is new in this batch isn't in the store.
            if key in rows:
                del rows[key]
            else:
                rows[key] = None

    def seal(self, rows: Rows) -> None:
        """The batch is complete: put the heads of its runs, and the partition's time."""
        cache = self._cache
        for run_id in self._dirty:
            run = cache[run_id]
            if run is None:
                rows[run_prefix(run_id) + HEAD] = None
            else:
                rows[run.key + HEAD] = head_row(run)
            planned = run is not None and has_plan(run)
            if planned != (run_id in self._plans):
                rows[plan_key(run_id)] = b"" if planned else None
                (self._plans.add if planned else self._plans.discard)(run_id)
        rows[TIME_KEY] = pack_time(self.at)
        timers = self.timers.seal(rows)
        self._sealed.append(Sealed(rows, self._dirty, self.answered, timers, self._last_output))
        self._dirty, self.answered, self.open = set(), set(), {}

    def _read(self, run_id: str) -> Run | None:
        prefix = run_prefix(run_id)
        head = self.store.get(prefix + HEAD)
        if head is None:
            return None
        return from_rows(run_id, head, (value for _, value in self.store.scan(prefix + ITEM)))

    def _evict(self, newest: str) -> None:
        """Down to `max_runs`, but for runs with unwritten changes and for `newest`, which is about to have some."""
        cache, unwritten = self._cache, self._unwritten
        for _ in range(len(cache)):
            if len(cache) <= self.max_runs:
                return
            run_id = next(iter(cache))
            if run_id == newest or run_id in unwritten:
                cache.move_to_end(run_id)
            else:
                del cache[run_id]

    def _row(self, key: bytes) -> bytes | None:
        """A row as it will be once all that is decided is written."""
        if key in self.open:
            return self.open[key]
        for batch in reversed(self._sealed):
            if key in batch.rows:
                return batch.rows[key]
        return self.store.get(key)

    def _unwritten_rows(self, run_id: str) -> list[Rows]:
        """The unwritten batches that have rows of the run. Looking through one is long, so most runs need none."""
        found = [b.rows for b in self._sealed if run_id in b.run_ids or run_id in b.answered]
        if run_id in self._dirty or run_id in self.answered:
            found.append(self.open)
        return found

    def _buried_as(self, run_id: str) -> Tombstone | None:
        if not self._any_tombstone:
            return None
        row = self._row(tombstone_key(run_id))
        return None if row is None else _tombstone(row)
