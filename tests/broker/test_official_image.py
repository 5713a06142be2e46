"""The same log on the official image, where a Docker engine runs."""

from __future__ import annotations

import pytest

from millstream.events.logs.kafka import KafkaLog
from millstream.events.logs.port import Record, TopicPartition, TopicSpec
from tests.support.aio import run

pytestmark = pytest.mark.broker


def test_the_official_image_takes_and_gives_back_records(kafka_image: str) -> None:
    async def check() -> None:
        async with KafkaLog(kafka_image) as log:
            await log.ensure_topic(TopicSpec("image", 2))
            end = await log.append("image", 1, [Record(b"v", b"k", [("h", None)])])
            reader = log.reader({TopicPartition("image", 1): end.offset})
            got = (await reader.read(timeout_s=30))[TopicPartition("image", 1)]
            assert [(r.key, r.value, r.timestamp) for r in got] == [(b"k", b"v", end.timestamp)]
            await reader.close()

    run(check())
