"""What a log promises about topics, and about itself."""

from __future__ import annotations

import pytest

from millstream.events.errors import PartitionCountMismatch, TopicSettingsUnsafe
from millstream.events.logs.port import Record, TopicPartition, TopicSpec
from tests.logs.conftest import Logs
from tests.logs.steps import make_topic, read_count, values
from tests.support.aio import run


def test_a_topic_is_made_once_and_found_again(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log, logs.open() as other:
            topic = logs.topic()
            assert await log.partitions(topic) is None
            await log.ensure_topic(TopicSpec(topic, 3))
            await other.ensure_topic(TopicSpec(topic, 3))
            assert (await log.partitions(topic), await other.partitions(topic)) == (3, 3)

    run(check())


def test_another_partition_count_is_refused_with_both_numbers(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            await log.ensure_topic(TopicSpec(topic, 2))
            with pytest.raises(PartitionCountMismatch, match=rf"{topic}.* 2 partitions, expected 4"):
                await log.ensure_topic(TopicSpec(topic, 4))
            assert await log.partitions(topic) == 2

    run(check())


def test_another_setting_is_refused_by_name(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            await log.ensure_topic(TopicSpec(topic, 1, cleanup="compact"))
            with pytest.raises(TopicSettingsUnsafe, match=r"cleanup.*compact.*delete"):
                await log.ensure_topic(TopicSpec(topic, 1))

    run(check())


@pytest.mark.parametrize("setting", ["keep_forever", "log_append_time"])
def test_a_setting_that_would_eat_or_restamp_the_log_is_refused(logs: Logs, setting: str) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            await log.ensure_topic(TopicSpec(topic, 1, **{setting: False}))
            with pytest.raises(TopicSettingsUnsafe, match=topic):
                await log.ensure_topic(TopicSpec(topic, 1))

    run(check())


def test_a_deleted_topic_can_be_made_again_and_begins_at_zero(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            (tp,) = await make_topic(log, topic)
            await log.append(*tp, values("a", "b"))
            await log.delete_topic(topic)
            await log.ensure_topic(TopicSpec(topic, 2))
            assert (await log.append(*tp, values("c"))).offset == 0
            reader = log.reader({tp: 0})
            assert [r.value for r in await read_count(reader, tp, 1)] == [b"c"]
            await reader.close()

    run(check())


def test_deleting_a_topic_that_is_not_there_does_nothing(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            await log.delete_topic(logs.topic())

    run(check())


def test_the_identity_is_the_same_for_all_handles(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log, logs.open() as other:
            assert await log.identity() == await other.identity() != ""
        async with logs.open() as later:
            assert await later.identity() != ""

    run(check())


def test_the_log_says_of_what_kind_it_is(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            assert log.kind == logs.kind

    run(check())


def test_a_compacted_topic_keeps_at_least_the_newest_record_of_each_key(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            await log.ensure_topic(TopicSpec(topic, 1, cleanup="compact"))
            tp = TopicPartition(topic, 0)
            for i in range(25):
                await log.append(*tp, [Record(f"{i}.{k}".encode(), key=str(k % 7).encode()) for k in range(100)])
            end = (await log.bounds(*tp)).end
            assert end == 2500
            reader = log.reader({tp: 0})
            newest: dict[bytes | None, bytes | None] = {}
            while reader.position(tp) < end:
                for record in (await reader.read(timeout_s=30))[tp]:
                    newest[record.key] = record.value
            await reader.close()
            assert newest == {
                str(k).encode(): f"24.{max(x for x in range(100) if x % 7 == k)}".encode() for k in range(7)
            }

    run(check())
