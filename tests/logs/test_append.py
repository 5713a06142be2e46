"""What a log promises about appending."""

from __future__ import annotations

import asyncio

import pytest

from millstream.events.errors import AppendUnknown, BatchTooLarge, RecordTooLarge
from millstream.events.logs.port import Appended, Header, Record, TopicPartition
from tests.logs.conftest import Logs
from tests.logs.steps import make_topic, read_all, values
from tests.support.aio import run


def test_an_append_returns_the_offset_of_its_first_record(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            first = await log.append(*tp, values("a", "b", "c"))
            second = await log.append(*tp, values("d"))
            assert (first.offset, second.offset) == (0, 3)
            assert [(r.offset, r.value) for r in await read_all(log, tp)] == list(enumerate([b"a", b"b", b"c", b"d"]))

    run(check())


def test_an_append_returns_the_time_that_readers_see(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            appended = [await log.append(*tp, values("x")) for _ in range(20)]
            times = [r.timestamp for r in await read_all(log, tp)]
            assert times == sorted(times)
            assert [a.timestamp for a in appended] == times

    run(check())


def test_each_partition_counts_its_own_offsets(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            one, two = await make_topic(log, logs.topic(), 2)
            await log.append(*one, values("a", "b"))
            assert (await log.append(*two, values("c"))).offset == 0
            assert [r.value for r in await read_all(log, one)] == [b"a", b"b"]
            assert [r.value for r in await read_all(log, two)] == [b"c"]

    run(check())


def test_a_batch_stands_together_however_many_append_at_once(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            batches = [values(*(f"{b}.{i}" for i in range(1 + b % 7))) for b in range(50)]
            appended = await asyncio.gather(*(log.append(*tp, batch) for batch in batches))
            stored = await read_all(log, tp)
            assert [r.offset for r in stored] == list(range(sum(map(len, batches))))
            for batch, at in zip(batches, appended, strict=True):
                assert [r.value for r in stored[at.offset : at.offset + len(batch)]] == [r.value for r in batch]

    run(check())


def test_appends_awaited_one_after_another_stand_in_that_order(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            offsets = [(await log.append(*tp, values(str(i)))).offset for i in range(50)]
            assert offsets == list(range(50))
            assert [r.value for r in await read_all(log, tp)] == [str(i).encode() for i in range(50)]

    run(check())


@pytest.mark.parametrize("count", [1, 3, 4, 5, 63, 64, 65, 255, 256, 257, 1000])
def test_a_batch_of_any_number_of_records_is_whole(logs: Logs, count: int) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values(*map(str, range(count))))
            assert [r.value for r in await read_all(log, tp)] == [str(i).encode() for i in range(count)]

    run(check())


RECORDS = {
    "a key that isn't UTF-8": Record(b"v", key=b"\xff\x00"),
    "no key": Record(b"v", key=None),
    "an empty key": Record(b"v", key=b""),
    "no value": Record(None, key=b"k"),
    "an empty value": Record(b"", key=b"k"),
    "neither key nor value": Record(None),
    "every byte": Record(bytes(range(256)), key=bytes(range(256))),
    "a header without a value": Record(b"v", headers=(("none", None),)),
    "a header with an empty value": Record(b"v", headers=(("empty", b""),)),
    "a header that isn't UTF-8": Record(b"v", headers=(("raw", b"\xff\xfe\x00"),)),
    "a header twice": Record(b"v", headers=(("traceparent", b"00-a"), ("other", b"1"), ("traceparent", b"not one"))),
    "a header name of letters and signs": Record(b"v", headers=(("größe/1:2 \u2603", b"x"),)),
    "200 headers": Record(b"v", headers=tuple((f"h{i}", str(i).encode()) for i in range(200))),
}


@pytest.mark.parametrize("what", RECORDS)
def test_a_record_comes_back_as_it_was(logs: Logs, what: str) -> None:
    record = RECORDS[what]

    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, [record])
            (stored,) = await read_all(log, tp)
            assert (stored.key, stored.value) == (record.key, record.value)
            assert _pairs(stored.headers) == _pairs(record.headers)

    run(check())


def _pairs(headers: object) -> list[Header]:
    assert isinstance(headers, tuple | list)
    return [(name, value) for name, value in headers]


def test_a_record_over_the_limit_is_refused_and_nothing_is_written(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            large = Record(b"v" * log.limits.record_bytes_max, key=b"k")
            with pytest.raises(RecordTooLarge, match=r"1,000,001 bytes .* is over the limit of 1,000,000") as refused:
                await log.append(*tp, [*values("a"), large])
            assert (refused.value.size, refused.value.limit) == (1_000_001, 1_000_000)
            assert (await log.bounds(*tp)).end == 0

    run(check())


def test_a_record_of_exactly_the_limit_is_taken(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            record = Record(b"v" * (log.limits.record_bytes_max - 3), key=b"k", headers=(("h", b"x"),))
            await log.append(*tp, [record])
            assert (await read_all(log, tp))[0].value == record.value

    run(check())


def test_a_batch_over_the_limit_is_refused_and_nothing_is_written(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            batch = [Record(b"v" * 100_000)] * 10
            with pytest.raises(BatchTooLarge, match=r"10 records and 1,000,000 bytes .* limit of 900,000"):
                await log.append(*tp, batch)
            assert (await log.bounds(*tp)).end == 0
            await log.append(*tp, batch[:9])
            assert (await log.bounds(*tp)).end == 9

    run(check())


def test_an_empty_batch_is_a_mistake_of_the_caller(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            with pytest.raises(ValueError, match=r"no records"):
                await log.append(*tp, [])

    run(check())


def test_an_append_to_a_topic_that_is_not_there_ends_as_unknown(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            with pytest.raises(AppendUnknown, match=r"is not on this log"):
                await log.append(logs.topic(), 0, values("a"))

    run(check())


def test_retiring_ends_appends_under_way_and_the_next_append_works(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            (tp,) = await make_topic(log, logs.topic())
            await log.append(*tp, values("before"))
            under_way = [asyncio.ensure_future(log.append(*tp, values(f"lost {i}"))) for i in range(30)]
            await asyncio.sleep(0)
            await log.retire()
            ends = await asyncio.gather(*under_way, return_exceptions=True)
            assert all(isinstance(end, AppendUnknown | Appended) for end in ends), ends
            after = await log.append(*tp, values("after"))
            stored = await read_all(log, tp)
            assert stored[after.offset].value == b"after"
            landed = {r.value: r.offset for r in stored}
            assert len(landed) == len(stored), "something landed twice"
            for i, end in enumerate(ends):
                if isinstance(end, Appended):
                    assert landed[f"lost {i}".encode()] == end.offset
            assert (await log.bounds(*tp)).end == len(stored)

    run(check())


def test_fifty_clients_append_at_once_and_each_gets_its_own_offset(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log, logs.open() as other:
            (tp,) = await make_topic(log, logs.topic())
            appended = await asyncio.gather(
                *((log if i % 2 else other).append(*tp, [Record(b"start", key=str(i).encode())]) for i in range(50))
            )
            assert sorted(a.offset for a in appended) == list(range(50))
            by_offset = {r.offset: r.key for r in await read_all(log, TopicPartition(*tp))}
            assert [by_offset[a.offset] for a in appended] == [str(i).encode() for i in range(50)]

    run(check())


def test_what_one_handle_has_appended_is_there_for_another(logs: Logs) -> None:
    async def check() -> None:
        topic = logs.topic()
        async with logs.open() as log:
            (tp,) = await make_topic(log, topic)
            await log.append(*tp, values("kept"))
        async with logs.open() as log:
            assert [r.value for r in await read_all(log, tp)] == [b"kept"]

    run(check())
