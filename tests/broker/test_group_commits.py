"""Positions committed while members come and go: a commit that comes too late costs nobody the membership."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from millstream.events.errors import LogUnavailable
from millstream.events.logs.kafka import KafkaLog
from millstream.events.logs.port import TopicPartition, TopicSpec
from millstream.streams.broker.server import Broker
from tests.support.aio import run, until

pytestmark = pytest.mark.broker


def test_a_member_that_commits_while_others_come_and_go_stays_the_one_that_it_is(kafka_broker: Broker) -> None:
    async def check() -> None:
        async with KafkaLog(kafka_broker.bootstrap, settings={"session_timeout_s": 3.0}) as log:
            await log.ensure_topic(TopicSpec("group-commits", 2))
            steady = await log.join("group-commits", ["group-commits"], instance_id="steady")
            await steady.changed(0)
            done = asyncio.Event()

            async def commit() -> None:
                while not done.is_set():
                    for tp in steady.assignment:
                        with contextlib.suppress(LogUnavailable):
                            await steady.commit({tp: 0})
                    await asyncio.sleep(0)

            # Several at once, so that there is always one under way when a rebalance ends.
            committing = [asyncio.ensure_future(commit()) for _ in range(4)]
            for _ in range(3):
                generation = steady.generation
                other = await log.join("group-commits", ["group-commits"], instance_id="other")
                await steady.changed(generation)
                await other.changed(0)
                assert len(other.assignment) == 1
                generation = steady.generation
                await other.close(leave=True)
                await steady.changed(generation)
            done.set()
            await asyncio.gather(*committing)
            assert steady.assignment == {TopicPartition("group-commits", p) for p in range(2)}
            # It is heard under the same id as before.
            await until(lambda: steady.silent_for_s() < 0.5, "its heartbeats are answered")
            await steady.close(leave=True)

    run(check(), deadline_s=60)
