"""Read a journal partition into a store: from the store's fence to an offset, in slices.

The one reader: an owner catches up with it to its own claim, a gateway follows
the log, `verify` and `rebuild` fold from the beginning. It never holds the event
loop longer than a slice, since group memberships live on it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from millstream.events.envelope import (
    FORMAT,
    NO_FENCE,
    Fence,
    FenceMark,
    GapAccepted,
    OwnershipClaimed,
    Ref,
    Transition,
    read_fence_header,
)
from millstream.events.errors import (
    LogWentBack,
    MillstreamError,
    NewerFormat,
    PartitionCountMismatch,
    Stop,
    StoreAheadOfLog,
    StoreDamaged,
    StoreOfAnotherLog,
    StoreOfOtherFolds,
    UnknownSchema,
)
from millstream.events.logs.port import Log, StoredRecord, read_range
from millstream.events.topics import Topics
from millstream.projections.fence import Gap, Hole, Judge, fence_after
from millstream.projections.fold import FOLDS_VERSION, Rows, Runs, apply, finish
from millstream.projections.store import StoreMeta

SLICE_S = 0.05
BATCH_RECORDS_MAX = 500


class Decodes(Protocol):
    """What a reader needs of the codec."""

    def decode(self, data: bytes) -> object: ...


class Progress(NamedTuple):
    """position: the next offset to read. until: where this reading ends. transitions: folded by this reader so far."""

    partition: int
    position: int
    until: int
    transitions: int


async def meta_of(log: Log, topics: Topics, partition: int) -> StoreMeta:
    """What a store of this partition, made by these folds, must say of itself."""
    return StoreMeta(FOLDS_VERSION, await log.identity(), topics.prefix, partition, topics.partitions)


async def gap_accepted(log: Log, topics: Topics, partition: int, hole: Hole, decode: Callable[[bytes], object]) -> bool:
    """Whether a `GapAccepted` that names this gap lies behind the hole."""
    end = (await log.bounds(topics.journal, partition)).end
    async for records in read_range(log, topics.journal, partition, hole.offset, end):
        for record in records:
            mark = read_fence_header(record.headers)
            if mark is None or mark.kind != "gap":
                continue
            value = decode(record.value or b"")
            if isinstance(value, GapAccepted) and Gap.of(value) == hole.gap:
                return True
    return False


class JournalReader:
    """Folds one partition of the journal into `runs` and its store. One task at a time may use it.

    learn: reads the schemas topic to its end; called where a record's schema isn't known. applied: told of every
    transition that counts, after it is written, with its record. claimed: told of every claim, with its offset.
    clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        log: Log,
        topics: Topics,
        partition: int,
        runs: Runs,
        codec: Decodes,
        learn: Callable[[], Awaitable[object]] | None = None,
        applied: Callable[[Ref, Transition, StoredRecord], None] | None = None,
        claimed: Callable[[int, OwnershipClaimed], None] | None = None,
        progress: Callable[[Progress], None] | None = None,
        slice_s: float = SLICE_S,
        batch_records: int = BATCH_RECORDS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._topics, self._partition, self._runs = log, topics, partition, runs
        self._decode, self._learn, self._applied, self._progress = codec.decode, learn, applied, progress
        self._tell_claim = claimed
        self._slice_s, self._batch_records, self._clock = slice_s, batch_records, clock
        self._judge = Judge()
        self.transitions = 0
        self.fence = runs.store.fence()
        self.position = self.fence.offset + 1

    def accept(self, gaps: Sequence[Gap]) -> None:
        """Go past these holes."""
        self._judge.gaps.update(gaps)

    @property
    def newest_at(self) -> int:
        """Partition time of the last transition folded, in ms."""
        return self._runs.at

    async def prepare(self) -> str | None:
        """`check` the store; drop one of another log or of other folds. Returns why, to be said loudly, or None.

        Raises `StoreAheadOfLog`, `PartitionCountMismatch`, `StoreDamaged`.
        """
        try:
            await self.check()
        except (StoreOfAnotherLog, StoreOfOtherFolds) as why:
            store = self._runs.store
            store.drop()
            store.set_meta(await meta_of(self._log, self._topics, self._partition))
            self._runs.clear()
            return str(why)
        return None

    async def check(self) -> None:
        """Compare the store with the log (rule 4): what it is of, and the record at its applied offset.

        Raises `StoreOfAnotherLog`, `StoreOfOtherFolds`, `StoreAheadOfLog`, `PartitionCountMismatch`, `StoreDamaged`.
        """
        store = self._runs.store
        fence = store.fence()
        expected = await meta_of(self._log, self._topics, self._partition)
        found = store.meta()
        if found is None:
            if fence != NO_FENCE:
                raise StoreDamaged(f"store {store.path!r} has rows but doesn't say of what. Rebuild it from the log.")
            store.set_meta(expected)
            return
        _compare_meta(store.path, expected, found)
        if fence != NO_FENCE:
            await self._check_fence(store.path, fence)

    async def catch_up(self, until: int) -> Fence:
        """Fold all records with offset < `until`. Returns the fence behind them; the store has it too.

        Raises `HoleInJournal`, `NewerFormat`, `PartitionCountMismatch`, `LogWentBack`, and `Stop` for a record that
        can't be read; what lies before the record is folded and written by then.
        """
        topic, partition = self._topics.journal, self._partition
        self.rewind()
        slice_end = self._clock() + self._slice_s
        async for records in read_range(self._log, topic, partition, self.position, until):
            begin = 0
            while begin < len(records):
                begin = await self._fold_some(records, begin, slice_end)
                self.position = records[begin - 1].offset + 1 if begin else self.position
                if self._clock() >= slice_end:
                    if self._progress is not None:
                        self._progress(Progress(partition, self.position, until, self.transitions))
                    await asyncio.sleep(0)
                    slice_end = self._clock() + self._slice_s
        await self._check_end(until)
        self.position = max(self.position, until)
        if self._progress is not None:
            self._progress(Progress(partition, self.position, until, self.transitions))
        return self.fence

    async def catch_up_to_end(self) -> Fence:
        """Fold up to where the log ends now."""
        bounds = await self._log.bounds(self._topics.journal, self._partition)
        return await self.catch_up(bounds.end)

    def rewind(self) -> None:
        """Begin behind the store's fence, which an owner moves too: it writes what it has proved by itself."""
        fence = self._runs.store.fence()
        if fence != self.fence:
            self.fence = fence
            self.position = fence.offset + 1

    async def _fold_some(self, records: Sequence[StoredRecord], begin: int, slice_end: float) -> int:
        """Fold a batch from `begin` on; returns the index behind it. Mends what can be mended and goes on."""
        done, problem = self._fold_batch(records, begin, slice_end)
        if problem is None:
            return done
        record = records[done]
        if isinstance(problem, Hole):
            await self._accepted(problem)
        elif isinstance(problem, UnknownSchema):
            await self._learn_schema(record, problem)
        else:
            raise _unreadable(self._topics.journal, self._partition, record, problem)
        return done

    def _fold_batch(
        self, records: Sequence[StoredRecord], begin: int, slice_end: float
    ) -> tuple[int, Exception | None]:
        """Judge, decode, fold and write until the batch is full, the slice is over, or a record can't be read."""
        judge, decode, runs, clock = self._judge, self._decode, self._runs, self._clock
        rows: Rows = {}
        applied: list[tuple[Ref, Transition, StoredRecord]] = []
        tell = self._applied is not None
        fence, problem = self.fence, None
        done = begin
        for done in range(begin, min(begin + self._batch_records, len(records))):
            record = records[done]
            mark = read_fence_header(record.headers)
            try:
                if mark is None:
                    raise Stop("it has no fence header, so no Millstream wrote it")
                verdict = judge(mark, record.offset, fence)
                if verdict == "drop" or verdict == "gap":
                    continue
                value = decode(record.value or b"")
                if verdict == "claim":
                    fence = self._claimed(fence, mark, record.offset, value)
                    continue
                if not isinstance(value, Transition):
                    raise Stop(f"its header is a transition's and its value is {type(value).__name__}")
            except Exception as error:  # noqa: BLE001 - what precedes it is good and is written first
                problem = error
                break
            ref = Ref(self._partition, mark.epoch_offset, mark.claim_id, mark.number)
            try:
                apply(runs, value, ref, rows)
            except Exception as error:
                # Half of it is in memory: only what the store has is known to be whole.
                runs.clear()
                raise _unreadable(self._topics.journal, self._partition, record, error) from error
            fence = fence_after(fence, mark, record.offset, value)
            self.transitions += 1
            if tell:
                applied.append((ref, value, record))
            if clock() >= slice_end:
                done += 1
                break
        else:
            done += 1
        self._write(rows, fence, applied)
        return done, problem

    def _write(self, rows: Rows, fence: Fence, applied: Sequence[tuple[Ref, Transition, StoredRecord]]) -> None:
        if fence == self.fence:
            return
        finish(self._runs, rows)
        self._runs.write(rows, fence)
        self.fence = fence
        if self._applied is not None:
            for ref, transition, record in applied:
                self._applied(ref, transition, record)

    def _claimed(self, fence: Fence, mark: FenceMark, offset: int, claim: object) -> Fence:
        if not isinstance(claim, OwnershipClaimed):
            raise Stop(f"its header is a claim's and its value is {type(claim).__name__}")
        if claim.format > FORMAT:
            raise NewerFormat(
                f"{claim.owner!r} claimed partition {self._partition} with journal format {claim.format}; this process"
                f" knows up to {FORMAT}. Upgrade it. Formats don't go back."
            )
        if claim.partitions != self._topics.partitions:
            raise PartitionCountMismatch(
                f"{claim.owner!r} claimed partition {self._partition} of {claim.partitions} partitions; here"
                f" {self._topics.journal!r} has {self._topics.partitions}. The count is fixed for the life of a prefix:"
                f" one of the two is configured wrongly, or the topic was made anew."
            )
        if self._tell_claim is not None:
            self._tell_claim(offset, claim)
        return fence_after(fence, mark, offset)

    async def _accepted(self, hole: Hole) -> None:
        """Go on where an operator has accepted the gap. Raises the hole where nobody has."""
        if not await gap_accepted(self._log, self._topics, self._partition, hole, self._decode):
            raise hole
        self._judge.gaps.add(hole.gap)

    async def _learn_schema(self, record: StoredRecord, problem: UnknownSchema) -> None:
        """Read the schemas to their end, once for this record. Raises `NewerFormat` where that doesn't help."""
        if self._learn is not None:
            await self._learn()
            try:
                self._decode(record.value or b"")
                return
            except UnknownSchema:
                pass
        raise NewerFormat(
            f"{self._topics.journal!r} partition {self._partition}, record at offset {record.offset}: {problem}"
        ) from problem

    async def _check_end(self, until: int) -> None:
        end = (await self._log.bounds(self._topics.journal, self._partition)).end
        if end < until:
            raise LogWentBack(
                f"{self._topics.journal!r} partition {self._partition} ended at {until} or later and ends at {end} now."
                f" It was truncated, or restored from an older copy. Restore the newer log before anything is appended."
            )

    async def _check_fence(self, path: str, fence: Fence) -> None:
        topic, partition = self._topics.journal, self._partition
        end = (await self._log.bounds(topic, partition)).end
        if fence.offset >= end:
            raise StoreAheadOfLog(
                f"store {path!r} is folded up to offset {fence.offset}, but {topic!r} partition {partition} ends at"
                f" {end}. The log was restored from an older copy, or truncated. Restore the newer log; if what it had is"
                f" lost for good, delete the store and start again: it is rebuilt from what is there."
            )
        found: StoredRecord | None = None
        async for records in read_range(self._log, topic, partition, fence.offset, fence.offset + 1):
            found = records[0]
        mark = None if found is None else read_fence_header(found.headers)
        if mark != _mark_of(fence):
            raise StoreOfAnotherLog(
                f"store {path!r} knows offset {fence.offset} of {topic!r} partition {partition} as"
                f" {_shown(_mark_of(fence))}, and the log has {_shown(mark)} there. The topic was probably made anew, or"
                f" the log restored. The store is of no use with this log; it is rebuilt."
            )


def _mark_of(fence: Fence) -> FenceMark:
    """The header of the record at the fence's offset."""
    if fence.number == 0:
        return FenceMark("claim", -1, fence.claim_id, 0)
    return FenceMark("transition", fence.epoch_offset, fence.claim_id, fence.number)


def _shown(mark: FenceMark | None) -> str:
    if mark is None:
        return "nothing of ours"
    if mark.kind == "transition":
        return f"number {mark.number} of epoch {mark.epoch_offset} (claim {mark.claim_id:016x})"
    return f"a {mark.kind} ({mark.claim_id:016x})"


def _compare_meta(path: str, expected: StoreMeta, found: StoreMeta) -> None:
    if found.partitions != expected.partitions:
        raise PartitionCountMismatch(
            f"store {path!r} is of a prefix with {found.partitions} partitions, and {expected.prefix!r} has"
            f" {expected.partitions}. The count is fixed for the life of a prefix: was the topic made anew?"
            f" Then delete the store."
        )
    ours = (expected.log_identity, expected.prefix, expected.partition)
    theirs = (found.log_identity, found.prefix, found.partition)
    if ours != theirs:
        raise StoreOfAnotherLog(
            f"store {path!r} is of log, prefix, partition {theirs!r}, and this is {ours!r}. It is rebuilt."
        )
    if found.folds_version != expected.folds_version:
        raise StoreOfOtherFolds(
            f"store {path!r} was made by folds of version {found.folds_version}; these are version"
            f" {expected.folds_version}. It is rebuilt from the log."
        )


def _unreadable(topic: str, partition: int, record: StoredRecord, problem: Exception) -> Exception:
    """A problem that already says what to do goes on as it is; everything else stops with its place."""
    where = f"{topic!r} partition {partition}, record at offset {record.offset}"
    if type(problem) is not Stop and isinstance(problem, Stop):
        return problem
    why = str(problem) if isinstance(problem, MillstreamError) else f"{type(problem).__name__}: {problem}"
    stop = Stop(
        f"{where}, can't be folded: {why}. A journal record is never skipped. If the log is damaged, restore it; if"
        f" not, this is a bug: keep the log and report it."
    )
    stop.__cause__ = problem
    return stop
