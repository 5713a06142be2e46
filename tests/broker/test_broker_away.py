"""What the log does while its broker is killed, stopped or frozen, on a real one."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from millstream.events.errors import AppendUnknown, LogUnavailable
from millstream.events.logs.kafka import KafkaLog
from millstream.events.logs.port import Appended, Record, StoredRecord, TopicPartition, TopicSpec
from millstream.streams.broker.processes import free_port
from millstream.streams.broker.server import Broker
from tests.support.aio import run, until

pytestmark = pytest.mark.broker
_names = itertools.count()


async def _topic(log: KafkaLog, partitions: int = 1) -> list[TopicPartition]:
    topic = f"away{next(_names)}"
    await log.ensure_topic(TopicSpec(topic, partitions))
    return [TopicPartition(topic, p) for p in range(partitions)]


async def _append(log: KafkaLog, tp: TopicPartition, value: bytes) -> Appended:
    """Append until it is proved: a broker that was just frozen or restarted may refuse a first time."""
    for _ in range(200):
        try:
            return await log.append(*tp, [Record(value)])
        except AppendUnknown:
            await asyncio.sleep(0.05)
    raise AssertionError("the broker never took it")


async def _read_all(log: KafkaLog, tp: TopicPartition) -> list[StoredRecord]:
    end = (await log.bounds(*tp)).end
    reader = log.reader({tp: 0})
    got: list[StoredRecord] = []
    while reader.position(tp) < end:
        got += (await reader.read(timeout_s=30)).get(tp, [])
    await reader.close()
    return got


def test_a_kill_of_the_broker_loses_nothing_acknowledged_and_tears_no_batch(own_broker: Broker) -> None:
    async def check() -> None:
        notices: list[str] = []
        async with KafkaLog(own_broker.bootstrap, notice=notices.append) as log:
            tps = await _topic(log, 2)
            acknowledged: dict[TopicPartition, dict[int, Appended]] = {tp: {} for tp in tps}
            seen: list[StoredRecord] = []
            reader = log.reader({tps[0]: 0})
            done = asyncio.Event()

            async def write(tp: TopicPartition) -> None:
                for number in itertools.count():
                    if done.is_set():
                        return
                    try:
                        end = await log.append(*tp, [Record(b"%d/%d" % (number, i)) for i in range(3)])
                    except AppendUnknown:
                        continue
                    acknowledged[tp][number] = end

            async def follow() -> None:
                while True:
                    seen.extend((await reader.read()).get(tps[0], []))

            def written(count: int) -> bool:
                return all(len(acknowledged[tp]) >= count for tp in tps)

            following = asyncio.ensure_future(follow())
            writers = [asyncio.ensure_future(write(tp)) for tp in tps]
            await until(lambda: written(100), "100 batches are acknowledged on each partition")
            own_broker.kill()
            before = max(len(ends) for ends in acknowledged.values())
            await asyncio.to_thread(own_broker.start)
            await until(lambda: written(before + 50), "appends go on after the restart")
            done.set()
            await asyncio.gather(*writers)
            for tp in tps:
                records = await _read_all(log, tp)
                texts = [(r.value or b"").decode() for r in records]
                numbers = [text.partition("/")[0] for text in texts]
                batches = [(number, len(list(group))) for number, group in itertools.groupby(numbers)]
                assert all(size == 3 for _, size in batches), "every batch is whole, and lands once"
                at = {record.offset: text for record, text in zip(records, texts, strict=True)}
                for number, end in acknowledged[tp].items():
                    assert [at[end.offset + i] for i in range(3)] == [f"{number}/{i}" for i in range(3)]
                assert len({number for number, _ in batches}) == len(batches)
            everything = await _read_all(log, tps[0])
            await until(lambda: len(seen) >= len(everything), "the reader goes on after the restart")
            assert seen == everything
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert [text.split(" (")[0].split(" again")[0] for text in notices] == [
            f"Kafka at {own_broker.address} does not answer",
            f"Kafka at {own_broker.address} answers",
        ]

    run(check(), deadline_s=120)


def test_a_retired_append_is_never_sent_again(own_broker: Broker) -> None:
    async def check() -> None:
        async with KafkaLog(own_broker.bootstrap) as log, KafkaLog(own_broker.bootstrap) as other:
            (tp,) = await _topic(log)
            await _append(log, tp, b"first")
            producer = log._producer
            assert producer is not None
            for attempt in range(3):
                ghost = b"ghost %d" % attempt
                own_broker.pause()
                try:
                    append = asyncio.ensure_future(log.append(*tp, [Record(ghost)]))
                    await until(lambda: any(i.on_the_way for i in producer._identities), "it is on its way")
                    await log.retire()
                    with pytest.raises(AppendUnknown, match=r"retired.*read the log and learn"):
                        await append
                    assert not producer._batches
                    assert not producer._identities
                finally:
                    own_broker.resume()
                claim = await _append(log, tp, b"claim")
                # What stood in the socket when the broker froze may still land, once: an orphan, no retry.
                for _ in range(30):
                    await _append(other, tp, b"later")
                landed = [r.offset for r in await _read_all(log, tp) if r.value == ghost]
                assert len(landed) <= 1
                assert claim.timestamp > 0

    run(check())


def test_an_append_to_a_frozen_broker_ends_as_unknown_within_its_bound(own_broker: Broker) -> None:
    async def check() -> None:
        settings = {"append_timeout_s": 0.3, "request_timeout_ms": 300}
        async with KafkaLog(own_broker.bootstrap, settings=settings) as log:
            one, two = await _topic(log, 2)
            await _append(log, one, b"a")
            own_broker.pause()
            try:
                ends = await asyncio.gather(
                    log.append(*one, [Record(b"b")]), log.append(*two, [Record(b"c")]), return_exceptions=True
                )
                assert [type(end) for end in ends] == [AppendUnknown, AppendUnknown]
            finally:
                own_broker.resume()
            assert (await _append(log, one, b"d")).offset >= 1

    run(check())


def test_a_stopped_broker_is_said_once_refuses_within_a_bound_and_is_gone_on_with_by_itself(
    own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        notices: list[str] = []
        settings = {"append_timeout_s": 0.5, "session_timeout_s": 3.0}
        async with KafkaLog(own_broker.bootstrap, settings=settings, notice=notices.append) as log:
            (tp,) = await _topic(log)
            await _append(log, tp, b"before")
            reader = log.reader({tp: 0})
            assert [r.value for r in (await reader.read(timeout_s=30))[tp]] == [b"before"]
            member = await log.join("g" + tp.topic, [tp.topic], instance_id="one")
            await member.changed(0)
            await asyncio.to_thread(own_broker.stop)
            with caplog.at_level(logging.INFO):
                caplog.clear()
                waiting = asyncio.ensure_future(reader.read())
                for _ in range(3):
                    ends = await asyncio.gather(
                        *(log.append(*tp, [Record(b"x" * 1000)]) for _ in range(300)), return_exceptions=True
                    )
                    assert {type(end) for end in ends} == {AppendUnknown}
                producer = log._producer
                assert producer is not None
                assert not producer._batches, "nothing is kept for a broker that is away"
                assert not waiting.done()
                lines = [record.getMessage() for record in caplog.records]
                assert len(lines) < 10, lines
            assert len(notices) == 1
            assert own_broker.bootstrap in notices[0]
            late_notices: list[str] = []
            late = KafkaLog(own_broker.bootstrap, notice=late_notices.append)
            starting = asyncio.ensure_future(late.start())
            await until(lambda: bool(late_notices), "a log that is started now says that it waits")
            await asyncio.to_thread(own_broker.start)
            await starting
            assert await late.identity() == await log.identity()
            assert len(late_notices) == 2
            await late.close()
            await _append(log, tp, b"after")
            assert [r.value for r in (await waiting)[tp]][-1] == b"after"
            await until(lambda: member.silent_for_s() < 1.0, "the group hears it again")
            assert len(notices) == 2
            assert "answers again" in notices[1]
            await member.close(leave=True)
            await reader.close()

    run(check(), deadline_s=120)


def test_a_log_whose_broker_is_away_says_so_at_once_where_it_may_not_wait() -> None:
    async def check() -> None:
        bootstrap = f"127.0.0.1:{free_port()}"
        with pytest.raises(LogUnavailable, match=rf"{bootstrap} does not answer .*Start it, or check the address"):
            await KafkaLog(bootstrap).start(wait=False)

    run(check())
