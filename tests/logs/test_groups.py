"""What a log promises about groups."""

from __future__ import annotations

import asyncio

import pytest

from millstream.events.errors import InstanceInUse
from tests.logs.conftest import Logs
from tests.logs.steps import make_topic, settled, spread
from tests.support.aio import run


def test_a_single_member_gets_every_partition(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            partitions = await make_topic(log, logs.topic(), 4)
            member = await log.join("g" + partitions[0].topic, [partitions[0].topic], instance_id="one")
            assert await member.changed(0) == frozenset(partitions) == member.assignment
            assert member.generation >= 1
            await member.close(leave=True)

    run(check())


def test_partitions_are_shared_out_evenly_and_each_has_one_holder(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two, logs.open() as three:
            topic = logs.topic()
            partitions = await make_topic(one, topic, 8)
            members = [
                await log.join("g" + topic, [topic], instance_id=name, session_timeout_s=_long(logs))
                for name, log in (("one", one), ("two", two), ("three", three))
            ]
            await settled(members, lambda: spread(members, partitions), "8 partitions are spread over 3 members")
            for member in members:
                await member.close(leave=True)

    run(check())


def test_only_what_must_move_moves_when_a_member_comes(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two, logs.open() as three:
            topic = logs.topic()
            partitions = await make_topic(one, topic, 6)
            first = await one.join("g" + topic, [topic], instance_id="one", session_timeout_s=_long(logs))
            second = await two.join("g" + topic, [topic], instance_id="two", session_timeout_s=_long(logs))
            await settled([first, second], lambda: spread([first, second], partitions), "shared by two")
            before = (first.assignment, second.assignment)
            third = await three.join("g" + topic, [topic], instance_id="three", session_timeout_s=_long(logs))
            members = [first, second, third]
            await settled(members, lambda: spread(members, partitions), "shared by three")
            assert first.assignment < before[0]
            assert second.assignment < before[1]
            for member in members:
                await member.close(leave=True)

    run(check())


def test_a_member_that_leaves_hands_its_partitions_on_at_once(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two:
            topic = logs.topic()
            partitions = await make_topic(one, topic, 4)
            # A session so long that nothing can come of a time-out.
            first = await one.join("g" + topic, [topic], instance_id="one", session_timeout_s=30.0)
            second = await two.join("g" + topic, [topic], instance_id="two", session_timeout_s=30.0)
            await settled([first, second], lambda: spread([first, second], partitions), "shared by two")
            generation = second.generation
            await first.close(leave=True)
            assert await second.changed(generation) == frozenset(partitions)
            await second.close(leave=True)

    run(check())


def test_a_member_that_falls_silent_is_replaced_after_its_session(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two:
            topic = logs.topic()
            partitions = await make_topic(one, topic, 4)
            first = await one.join("g" + topic, [topic], instance_id="one", session_timeout_s=logs.session_s)
            second = await two.join("g" + topic, [topic], instance_id="two", session_timeout_s=logs.session_s)
            await settled([first, second], lambda: spread([first, second], partitions), "shared by two")
            await first.close()
            await settled([second], lambda: second.assignment == frozenset(partitions), "the rest took over")
            await second.close(leave=True)

    run(check())


def test_a_static_member_that_returns_has_its_partitions_and_nobody_notices(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two:
            topic = logs.topic()
            partitions = await make_topic(one, topic, 4)
            first = await one.join("g" + topic, [topic], instance_id="one", session_timeout_s=30.0)
            second = await two.join("g" + topic, [topic], instance_id="two", session_timeout_s=30.0)
            await settled([first, second], lambda: spread([first, second], partitions), "shared by two")
            had, generation = first.assignment, second.generation
            await first.close()
            async with logs.open() as again:
                back = await again.join("g" + topic, [topic], instance_id="one", session_timeout_s=30.0)
                assert await back.changed(0) == had
                assert second.generation == generation
                await back.close(leave=True)
            await second.close(leave=True)

    run(check())


def test_the_older_of_two_processes_with_one_instance_id_is_told(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two:
            topic = logs.topic()
            partitions = await make_topic(one, topic, 2)
            older = await one.join("g" + topic, [topic], instance_id="same", session_timeout_s=_long(logs))
            await older.changed(0)
            waiting = asyncio.ensure_future(older.changed(older.generation))
            newer = await two.join("g" + topic, [topic], instance_id="same", session_timeout_s=_long(logs))
            with pytest.raises(InstanceInUse, match=r"'same'.*folder was probably copied"):
                await waiting
            assert older.assignment == frozenset()
            assert await newer.changed(0) == frozenset(partitions)
            await older.close(leave=True)
            assert newer.assignment == frozenset(partitions), "the older one can't take the newer one's place down"
            await newer.close(leave=True)

    run(check())


def test_a_position_committed_by_one_member_is_there_for_the_next(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            one, two = await make_topic(log, topic, 2)
            member = await log.join("g" + topic, [topic], instance_id="one", session_timeout_s=_long(logs))
            await member.changed(0)
            assert await member.committed(one) is None
            await member.commit({one: 5})
            await member.commit({one: 9, two: 0})
            await member.close(leave=True)
            later = await log.join("g" + topic, [topic], instance_id="two", session_timeout_s=_long(logs))
            await later.changed(0)
            assert (await later.committed(one), await later.committed(two)) == (9, 0)
            other = await log.join("h" + topic, [topic], instance_id="two", session_timeout_s=_long(logs))
            await other.changed(0)
            assert await other.committed(one) is None
            await later.close(leave=True)
            await other.close(leave=True)

    run(check())


def test_committed_positions_do_not_outlive_their_topic(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            (tp,) = await make_topic(log, topic)
            member = await log.join("g" + topic, [topic], instance_id="one", session_timeout_s=_long(logs))
            await member.changed(0)
            await member.commit({tp: 5})
            await member.close(leave=True)
            await log.delete_topic(topic)
            await make_topic(log, topic)
            again = await log.join("g" + topic, [topic], instance_id="one", session_timeout_s=_long(logs))
            await again.changed(0)
            assert await again.committed(tp) is None
            await again.close(leave=True)

    run(check())


def test_members_are_given_only_topics_that_they_named(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as one, logs.open() as two:
            a, b = logs.topic(), logs.topic()
            parts = {topic: await make_topic(one, topic, 2) for topic in (a, b)}
            left = await one.join("g" + a, [a], instance_id="left", session_timeout_s=_long(logs))
            both = await two.join("g" + a, [a, b], instance_id="right", session_timeout_s=_long(logs))
            members = [left, both]

            def shared() -> bool:
                held = sorted(tp for m in members for tp in m.assignment)
                return held == sorted(parts[a] + parts[b]) and all(tp.topic == a for tp in left.assignment)

            await settled(members, shared, "each topic has only members that named it")
            for member in members:
                await member.close(leave=True)

    run(check())


def test_a_topic_made_after_joining_is_shared_out_too(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            member = await log.join("g" + topic, [topic], instance_id="one", session_timeout_s=logs.session_s)
            assert member.assignment == frozenset()
            partitions = await make_topic(log, topic, 2)
            await settled([member], lambda: member.assignment == frozenset(partitions), "the new topic is given out")
            await member.close(leave=True)

    run(check())


def test_a_live_member_is_heard_from_well_within_its_session(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            await make_topic(log, topic)
            member = await log.join("g" + topic, [topic], instance_id="one", session_timeout_s=logs.session_s)
            await member.changed(0)
            assert member.session_timeout_s == logs.session_s
            generation = member.generation
            async with asyncio.timeout(30):
                heartbeats = 0
                while heartbeats < 3:
                    before = member.silent_for_s()
                    await asyncio.sleep(logs.session_s / 20)
                    heartbeats += member.silent_for_s() < before or member.silent_for_s() == 0
            assert member.generation == generation
            await member.close(leave=True)

    run(check())


def test_waiting_for_a_change_can_be_given_up(logs: Logs) -> None:
    async def check() -> None:
        async with logs.open() as log:
            topic = logs.topic()
            await make_topic(log, topic)
            member = await log.join("g" + topic, [topic], instance_id="one", session_timeout_s=_long(logs))
            await member.changed(0)
            waiting = asyncio.ensure_future(member.changed(member.generation))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert waiting.cancelled()
            await member.close(leave=True)

    run(check())


def _long(logs: Logs) -> float:
    """A session that a busy machine doesn't lose."""
    return max(logs.session_s, 6.0)
