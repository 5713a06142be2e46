"""The journal reader: what it folds, what it drops, where it stops and what it says then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from millstream.events.daybook import DayOpened, FlightEntered
from millstream.events.envelope import NO_FENCE, OwnershipClaimed, Ref, Transition, fence_header
from millstream.events.errors import (
    HoleInJournal,
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
from millstream.events.logs.port import Log, Record, StoredRecord
from millstream.projections.daybook import DayBook
from millstream.projections.fence import Gap
from millstream.projections.fold import FOLDS_VERSION, Runs
from millstream.projections.memory_store import MemoryStore
from millstream.projections.reader import Decodes, JournalReader, Progress, meta_of
from millstream.projections.store import Store, StoreMeta
from tests.support.aio import run
from tests.support.journal import (
    CODEC,
    PARTITION,
    TOPICS,
    Journal,
    fold_records,
    log_of,
    random_journal,
    rows_of,
)

DAY = "9E-2013-01-16"
OPENED = DayOpened("9E", "2013-01-16")


def flight(position: int) -> FlightEntered:
    return FlightEntered(position, "1234", "JFK", "BOS", False, 1.0)


def reader_of(log: Log, store: Store, codec: Decodes = CODEC, **options: object) -> JournalReader:
    return JournalReader(
        log=log,
        topics=TOPICS,
        partition=PARTITION,
        runs=Runs(store),
        codec=codec,
        **options,  # type: ignore[arg-type]
    )


def read(records: Sequence[Record], store: Store | None = None, **options: object) -> Store:
    """The store after reading a log with these records to its end."""
    into: Store = MemoryStore() if store is None else store

    async def reading() -> None:
        reader = reader_of(await log_of(records), into, **options)
        await reader.check()
        await reader.catch_up_to_end()

    run(reading())
    return into


def flights_in(store: Store, run_id: str = DAY) -> int:
    book = Runs(store).get(run_id)
    assert book is not None
    assert isinstance(book.state, DayBook)
    return len(book.state.flights)


def small_journal(flights: int = 3) -> Journal:
    journal = Journal()
    journal.claim()
    journal.add(DAY, OPENED, command_id="c0")
    for position in range(flights):
        journal.add(DAY, flight(position), command_id=f"c{position + 1}")
    return journal


def test_reading_a_log_gives_what_folding_its_records_gives() -> None:
    journal = random_journal(1, 1500)
    expected = MemoryStore()
    fence = fold_records(expected, journal.records)
    store = read(journal.records)
    assert rows_of(store) == rows_of(expected)
    assert store.fence() == fence


def test_records_of_a_stale_epoch_are_dropped_even_if_they_cant_be_decoded() -> None:
    journal = small_journal()
    old, old_number = journal.epoch, journal.number
    journal.claim(8)
    journal.add(DAY, flight(3), epoch=old, number=old_number + 1)
    journal.records.append(Record(b"\xff of a newer release", None, (fence_header(*old, old_number + 2),)))
    journal.add(DAY, flight(3))
    assert flights_in(read(journal.records)) == 4


def test_a_retry_that_landed_twice_counts_once() -> None:
    journal = small_journal()
    journal.records.append(journal.records[-1])
    journal.records.append(journal.records[-3])
    journal.add(DAY, flight(3))
    assert flights_in(read(journal.records)) == 4


def test_at_a_hole_the_reader_stops_with_all_before_it_written() -> None:
    journal = small_journal()
    journal.add(DAY, flight(3), number=journal.number + 3)
    store = MemoryStore()
    with pytest.raises(HoleInJournal, match="expected number 5, found 7 at offset 5"):
        read(journal.records, store)
    assert flights_in(store) == 3
    assert store.fence().number == 4


def test_an_accepted_gap_further_on_lets_the_reader_go_past_its_hole() -> None:
    journal = small_journal()
    epoch = journal.epoch
    journal.add(DAY, flight(3), number=7)
    journal.add(DAY, flight(4))
    journal.claim(8)
    journal.accept_gap(epoch, after=4, before=7)
    journal.add(DAY, flight(5))
    store = read(journal.records)
    assert flights_in(store) == 6
    assert (store.fence().epoch_offset, store.fence().number) == (7, 1)


def test_an_accepted_gap_of_another_hole_does_not_help() -> None:
    journal = small_journal()
    journal.add(DAY, flight(3), number=7)
    journal.accept_gap(journal.epoch, after=4, before=6)
    with pytest.raises(HoleInJournal):
        read(journal.records)


def test_gaps_can_be_handed_to_the_reader() -> None:
    journal = small_journal()
    journal.add(DAY, flight(3), number=7)

    async def reading() -> Store:
        reader = reader_of(await log_of(journal.records), store := MemoryStore())
        reader.accept([Gap(*journal.epoch, 4, 7)])
        await reader.catch_up_to_end()
        return store

    assert flights_in(run(reading())) == 4


def test_a_claim_with_a_newer_format_stops_the_reader() -> None:
    journal = small_journal()
    journal.claim(8, format=99)
    with pytest.raises(NewerFormat, match="format 99; this process knows up to 1"):
        read(journal.records)


def test_a_claim_of_another_partition_count_stops_the_reader() -> None:
    journal = small_journal()
    journal.claim(8, partitions=16)
    with pytest.raises(PartitionCountMismatch, match=r"of 16 partitions; here .test\.journal. has 4"):
        read(journal.records)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(b"what is this"), "it has no fence header"),
        (Record(b"\xff\xff", None, (fence_header(0, 7, 5),)), "can't be folded"),
        (Record(None, None, (fence_header(0, 7, 5),)), "can't be folded"),
        (
            Record(CODEC.encode(OwnershipClaimed("o", "p", 7, 4, 1, 0)), None, (fence_header(0, 7, 5),)),
            "its header is a transition's and its value is OwnershipClaimed",
        ),
        (
            Record(
                CODEC.encode(Transition(9, "none", None, -1, None, None, (flight(0),))),
                None,
                (fence_header(0, 7, 5),),
            ),
            "FlightEntered for run 'none', which doesn't exist",
        ),
    ],
)
def test_a_journal_record_that_cant_be_read_is_never_skipped(record: Record, why: str) -> None:
    journal = small_journal()
    store = MemoryStore()
    with pytest.raises(Stop, match="offset 5, can't be folded") as caught:
        read([*journal.records, record], store)
    assert why in str(caught.value)
    if "doesn't exist" not in why:
        assert store.fence().number == 4


class LateCodec:
    """Knows the schema of a record only once it has been learned."""

    def __init__(self, *, helps: bool) -> None:
        self.knows, self.helps, self.learned = False, helps, 0

    def decode(self, data: bytes) -> object:
        record = CODEC.decode(data)
        if isinstance(record, Transition) and isinstance(record.events[0], FlightEntered) and not self.knows:
            raise UnknownSchema(0xABC)
        return record

    async def learn(self) -> None:
        self.learned += 1
        self.knows = self.helps


def test_an_unknown_schema_is_looked_for_in_the_schemas_before_the_reader_stops() -> None:
    codec = LateCodec(helps=True)
    store = read(small_journal().records, codec=codec, learn=codec.learn)
    assert flights_in(store) == 3
    assert codec.learned == 1


def test_a_schema_that_the_schemas_do_not_have_stops_the_reader() -> None:
    codec = LateCodec(helps=False)
    with pytest.raises(NewerFormat, match="offset 2: no schema with fingerprint 0000000000000abc"):
        read(small_journal().records, codec=codec, learn=codec.learn)
    assert codec.learned == 1


def test_a_new_store_is_told_what_it_is_of() -> None:
    async def checking() -> tuple[StoreMeta | None, str]:
        log = await log_of([])
        store = MemoryStore()
        await reader_of(log, store).check()
        return store.meta(), await log.identity()

    meta, identity = run(checking())
    assert meta == StoreMeta(FOLDS_VERSION, identity, "test", PARTITION, 4)


def refusal_of(meta_changes: dict[str, object], error: type[MillstreamError]) -> tuple[str, str | None]:
    """What `check` says of a store whose meta differs, and what `prepare` says when it has dropped it."""

    async def checking() -> tuple[str, str | None]:
        log = await log_of(small_journal().records)
        store = MemoryStore()
        reader = reader_of(log, store)
        await reader.check()
        await reader.catch_up_to_end()
        meta = await meta_of(log, TOPICS, PARTITION)
        fields = {name: getattr(meta, name) for name in StoreMeta.__struct_fields__}
        store.set_meta(StoreMeta(**(fields | meta_changes)))
        reader = reader_of(log, store)
        with pytest.raises(error) as caught:
            await reader.check()
        if error is PartitionCountMismatch:
            return str(caught.value), None
        why = await reader.prepare()
        assert store.fence() == NO_FENCE
        assert store.meta() == meta
        await reader.catch_up_to_end()
        assert flights_in(store) == 3
        return str(caught.value), why

    return run(checking())


def test_a_store_of_another_log_is_refused_and_dropped_when_it_is_prepared() -> None:
    text, why = refusal_of({"log_identity": "other"}, StoreOfAnotherLog)
    assert "('other', 'test', 1)" in text
    assert why == text


def test_a_store_of_other_folds_is_refused_and_dropped_when_it_is_prepared() -> None:
    text, why = refusal_of({"folds_version": 0}, StoreOfOtherFolds)
    assert "made by folds of version 0; these are version 1" in text
    assert why == text


def test_a_store_of_another_partition_count_is_refused_and_kept() -> None:
    text, _ = refusal_of({"partitions": 16}, PartitionCountMismatch)
    assert "with 16 partitions, and 'test' has 4" in text


def test_a_store_with_rows_that_says_nothing_of_itself_is_damaged() -> None:
    store = MemoryStore()
    fold_records(store, small_journal().records)
    with pytest.raises(StoreDamaged, match="doesn't say of what"):
        read(small_journal().records, store)


def checked_against(records: Sequence[Record]) -> None:
    """Check a store that was folded from the small journal against a log with `records`, of the same identity."""

    async def checking() -> None:
        log = await log_of(records)
        store = MemoryStore()
        fold_records(store, small_journal().records)
        store.set_meta(await meta_of(log, TOPICS, PARTITION))
        await reader_of(log, store).check()

    run(checking())


def test_a_store_is_known_again_by_the_record_at_its_applied_offset() -> None:
    checked_against(small_journal(5).records)


def test_a_store_whose_applied_record_is_another_one_in_the_log_is_of_another_log() -> None:
    other = Journal()
    other.claim(9)
    for _ in range(6):
        other.add("", command_id="c")
    with pytest.raises(StoreOfAnotherLog, match=r"knows offset 4 .* as number 4 of epoch 0 \(claim 0+7\), and the log"):
        checked_against(other.records)


def test_a_store_that_knows_more_than_its_log_is_a_loud_error() -> None:
    with pytest.raises(StoreAheadOfLog, match=r"folded up to offset 4, but .test\.journal. partition 1 ends at 4"):
        checked_against(small_journal(2).records)


def test_a_log_that_is_shorter_than_what_was_asked_for_went_back() -> None:
    async def reading() -> None:
        reader = reader_of(await log_of(small_journal().records), MemoryStore())
        await reader.catch_up(9)

    with pytest.raises(LogWentBack, match="ended at 9 or later and ends at 5 now"):
        run(reading())


def test_what_was_written_beside_the_reader_is_not_folded_again() -> None:
    journal = small_journal()

    async def reading() -> Store:
        log = await log_of(journal.records)
        store = MemoryStore()
        reader = reader_of(log, store)
        await reader.catch_up(3)
        fold_records(store, journal.records[:4])
        reader._runs.clear()
        await reader.catch_up_to_end()
        return store

    assert flights_in(run(reading())) == 3


def test_a_reader_that_follows_a_log_goes_on_where_it_was() -> None:
    journal = random_journal(4, 300)

    async def following() -> Store:
        log = await log_of(journal.records)
        reader = reader_of(log, store := MemoryStore())
        for until in range(0, len(journal.records) + 1, 30):
            await reader.catch_up(until)
        return store

    expected = MemoryStore()
    fold_records(expected, journal.records)
    assert rows_of(run(following())) == rows_of(expected)


def test_the_reader_tells_of_transitions_that_count_and_of_claims() -> None:
    journal = small_journal()
    journal.records.append(journal.records[-1])
    journal.claim(8)
    seen: list[tuple[int, str | None, int]] = []
    claims: list[tuple[int, int]] = []

    def applied(ref: Ref, transition: Transition, record: StoredRecord) -> None:
        seen.append((ref.number, transition.command_id, record.offset))

    read(journal.records, applied=applied, claimed=lambda offset, claim: claims.append((offset, claim.claim_id)))
    assert seen == [(1, "c0", 1), (2, "c1", 2), (3, "c2", 3), (4, "c3", 4)]
    assert claims == [(0, 7), (6, 8)]


def test_the_reader_lets_others_run_between_its_slices() -> None:
    ticks = iter(range(1_000_000))
    told: list[Progress] = []
    turns = 0

    async def reading() -> None:
        log = await log_of(random_journal(1, 400).records)
        reader = reader_of(
            log,
            MemoryStore(),
            slice_s=20,
            # Each look at the clock is a second: a slice is over after at most twenty records.
            clock=lambda: float(next(ticks)),
            progress=told.append,
        )

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        await reader.catch_up_to_end()
        task.cancel()

    run(reading())
    assert turns >= 15
    assert len(told) >= 15
    assert [p.position for p in told] == sorted(p.position for p in told)
    assert told[-1].position == told[-1].until == 400
