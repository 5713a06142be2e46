"""What a log promises about reading."""

from __future__ import annotations

import asyncio

import pytest

from millstream.events.errors import OffsetOutOfRange, Stop, TopicMissing
from millstream.events.logs.port import Bounds, TopicPartition, read_range
from tests.logs.conftest import Logs
from tests.logs.steps import make_topic, read_all, read_count, read_on, values
from tests.support.aio import run


def test_a_reader_reads_from_its_position_in_order(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values(*map(str, range(10))))
            reader = log.reader({tp: 4})
            assert reader.position(tp) == 4
            got = await read_count(reader, tp, 6)
            assert [(r.offset, r.value) for r in got] == [(i, str(i).encode()) for i in range(4, 10)]
            assert reader.position(tp) == 10
            await reader.close()

    run(check())


def test_a_read_returns_at_most_so_many_records_a_partition(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            one, two = await make_topic(log, logs.topic(), 2)
            for tp in (one, two):
                await log.append(*tp, values(*map(str, range(10))))
            reader = log.reader({one: 0, two: 5})
            seen: dict[TopicPartition, list[int]] = {one: [], two: []}
            while len(seen[one]) + len(seen[two]) < 15:
                for tp, records in (await reader.read(max_records=3, timeout_s=30)).items():
                    assert 1 <= len(records) <= 3
                    seen[tp] += [r.offset for r in records]
            assert seen == {one: list(range(10)), two: list(range(5, 10))}
            await reader.close()

    run(check())


def test_a_reader_at_the_end_waits_and_is_woken_by_an_append(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("old"))
            reader = log.reader({tp: 1})
            waiting = asyncio.ensure_future(reader.read(timeout_s=30))
            await asyncio.sleep(0)
            assert not waiting.done()
            await log.append(*tp, values("new"))
            assert [r.value for r in (await waiting)[tp]] == [b"new"]
            await reader.close()

    run(check())


def test_a_waiting_reader_is_woken_by_another_handle(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log, logs.open() as other:
            (tp,) = await make_topic(log, logs.topic())
            reader = log.reader({tp: 0})
            waiting = asyncio.ensure_future(reader.read(timeout_s=30))
            await asyncio.sleep(0)
            await other.append(*tp, values("from elsewhere"))
            assert [r.value for r in (await waiting)[tp]] == [b"from elsewhere"]
            await reader.close()

    run(check())


def test_a_read_that_times_out_returns_nothing_and_moves_nothing(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            reader = log.reader({tp: 0})
            assert await reader.read(timeout_s=0.05) == {}
            assert reader.position(tp) == 0
            await log.append(*tp, values("a"))
            assert [r.offset for r in await read_count(reader, tp, 1)] == [0]
            await reader.close()

    run(check())


def test_a_cancelled_read_loses_nothing(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            reader = log.reader({tp: 0})
            waiting = asyncio.ensure_future(reader.read())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await log.append(*tp, values("a"))
            assert [r.value for r in await read_count(reader, tp, 1)] == [b"a"]
            await reader.close()

    run(check())


def test_assigning_replaces_partitions_and_positions(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            one, two = await make_topic(log, logs.topic(), 2)
            await log.append(*one, values("a", "b"))
            await log.append(*two, values("c", "d"))
            reader = log.reader({one: 0})
            await read_count(reader, one, 2)
            reader.assign({two: 1})
            assert [r.value for r in await read_count(reader, two, 1)] == [b"d"]
            with pytest.raises(KeyError):
                reader.position(one)
            reader.assign({one: 1, two: 2})
            assert [r.value for r in await read_count(reader, one, 1)] == [b"b"]
            assert (reader.position(one), reader.position(two)) == (2, 2)
            await reader.close()

    run(check())


def test_assigning_another_partition_ends_the_wait_for_the_first(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            one, two = await make_topic(log, logs.topic(), 2)
            await log.append(*two, values("c"))
            reader = log.reader({one: 0})
            waiting = asyncio.ensure_future(reader.read(timeout_s=30))
            await asyncio.sleep(0)
            reader.assign({two: 0})
            assert [r.value for r in (await waiting)[two]] == [b"c"]
            await reader.close()

    run(check())


def test_a_reader_of_nothing_waits(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            reader = log.reader({})
            assert await reader.read(timeout_s=0.02) == {}
            await reader.close()

    run(check())


def test_a_position_beyond_the_end_is_refused(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("a", "b"))
            reader = log.reader({tp: 3})
            with pytest.raises(OffsetOutOfRange, match=r"position 3 .* holds 0 to 1 .next is 2.") as refused:
                await reader.read(timeout_s=30)
            assert (refused.value.first, refused.value.end) == (0, 2)
            await reader.close()

    run(check())


def test_a_position_that_was_deleted_is_refused_and_nothing_is_skipped(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values(*map(str, range(10))))
            await log.delete_before(*tp, 6)
            reader = log.reader({tp: 5})
            with pytest.raises(OffsetOutOfRange, match=r"position 5 .* holds 6 to 9"):
                await reader.read(timeout_s=30)
            assert reader.position(tp) == 5
            reader.assign({tp: 6})
            assert [r.offset for r in await read_count(reader, tp, 4)] == [6, 7, 8, 9]
            await reader.close()

    run(check())


def test_deleting_keeps_the_offsets_of_what_stays_and_of_what_comes(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values(*map(str, range(10))))
            await log.delete_before(*tp, 7)
            assert await log.bounds(*tp) == Bounds(7, 10)
            await log.delete_before(*tp, 3)
            assert await log.bounds(*tp) == Bounds(7, 10)
            await log.delete_before(*tp, 10)
            assert await log.bounds(*tp) == Bounds(10, 10)
            assert (await log.append(*tp, values("next"))).offset == 10
            assert [(r.offset, r.value) for r in await read_all(log, tp, 10)] == [(10, b"next")]

    run(check())


def test_deleting_beyond_the_end_is_refused(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("a"))
            with pytest.raises(OffsetOutOfRange):
                await log.delete_before(*tp, 2)
            assert await log.bounds(*tp) == Bounds(0, 1)

    run(check())


def test_a_reader_that_is_behind_a_deletion_by_another_handle_notices(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log, logs.open() as other:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values(*map(str, range(10))))
            reader = log.reader({tp: 0})
            # The rest must not be in the reader's hands yet, so it reads nothing before the deletion.
            await other.delete_before(*tp, 9)
            with pytest.raises(OffsetOutOfRange):
                await read_on(reader, max_records=1)
            await reader.close()

    run(check())


def test_bounds_and_readers_of_a_missing_topic_say_so(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            with pytest.raises(TopicMissing, match=topic):
                await log.bounds(topic, 0)
            reader = log.reader({TopicPartition(topic, 0): 0})
            with pytest.raises(TopicMissing, match=topic):
                await reader.read(timeout_s=30)
            await reader.close()

    run(check())


def test_a_topic_deleted_under_a_waiting_reader_is_noticed(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("a"))
            reader = log.reader({tp: 0})
            await read_count(reader, tp, 1)
            waiting = asyncio.ensure_future(reader.read(timeout_s=30))
            await asyncio.sleep(0)
            await log.delete_topic(tp.topic)
            with pytest.raises(TopicMissing):
                await waiting
            assert await log.partitions(tp.topic) is None
            await reader.close()

    run(check())


def test_a_topic_made_again_with_fewer_records_stops_its_reader(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("a", "b", "c"))
            reader = log.reader({tp: 0})
            await read_count(reader, tp, 3)
            await log.delete_topic(tp.topic)
            await make_topic(log, tp.topic)
            await log.append(*tp, values("new"))
            with pytest.raises(Stop):
                await read_on(reader)
            assert reader.position(tp) == 3
            await reader.close()

    run(check())


def test_a_topic_made_again_with_more_records_stops_its_reader(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("a", "b", "c"))
            reader = log.reader({tp: 0})
            await read_count(reader, tp, 3)
            await log.delete_topic(tp.topic)
            await make_topic(log, tp.topic)
            await log.append(*tp, values(*"abcdefgh"))
            with pytest.raises(Stop, match=r"made again"):
                await reader.read(timeout_s=30)
            reader.assign({tp: 0})
            assert len(await read_count(reader, tp, 8)) == 8
            await reader.close()

    run(check())


def test_an_error_at_one_partition_loses_nothing_of_another(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            one, two = await make_topic(log, logs.topic(), 2)
            await log.append(*one, values("a"))
            reader = log.reader({one: 0, two: 7})
            with pytest.raises(OffsetOutOfRange):
                await read_on(reader)
            reader.assign({one: reader.position(one), two: 0})
            before = reader.position(one)
            assert before in (0, 1)
            if before == 0:
                assert [r.value for r in await read_count(reader, one, 1)] == [b"a"]
            await reader.close()

    run(check())


def test_large_records_are_all_read(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            for i in range(12):
                await log.append(*tp, values(f"{i}" * 800_000 if i < 10 else f"{i}" * 400_000))
            assert [len(r.value or b"") for r in await read_all(log, tp)] == [800_000] * 12

    run(check())


def test_a_range_is_read_to_its_end_and_no_further(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values(*map(str, range(20))))
            ranges = [(3, 17), (0, 20), (5, 5)]
            for start, end in ranges:
                got = [r.offset async for batch in read_range(log, *tp, start, end, max_records=4) for r in batch]
                assert got == list(range(start, end))

    run(check())


def test_two_readers_of_one_handle_do_not_disturb_each_other(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            readers = [log.reader({tp: 0}) for _ in range(2)]
            waits = [asyncio.ensure_future(read_count(r, tp, 40)) for r in readers]
            for i in range(20):
                await log.append(*tp, values(f"{i}a", f"{i}b"))
            first, second = await asyncio.gather(*waits)
            assert first == second
            assert [r.offset for r in first] == list(range(40))
            for reader in readers:
                await reader.close()

    run(check())
