"""The memory log's faults: each end of an append, once, by script; and many by a seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from millstream.events.errors import AppendUnknown, LogUnavailable, LogWentBack, OffsetOutOfRange
from millstream.events.logs.memory import MemoryCluster, MemoryLog
from millstream.events.logs.memory_faults import End, Faults, Script
from millstream.events.logs.port import Appended, TopicPartition
from tests.logs.steps import make_topic, read_all, read_count, settled, values
from tests.support.aio import run

TP = TopicPartition("t", 0)


def stored(cluster: MemoryCluster) -> list[str]:
    return [(r.value or b"").decode() for r in cluster.streams[TP].records]


async def scripted(*ends: End, late_after: int = 2) -> tuple[MemoryCluster, MemoryLog]:
    """A log whose next appends end so. The topic is there and holds one record."""
    cluster = MemoryCluster(now_ms=lambda: 1000)
    plain = MemoryLog(cluster)
    await make_topic(plain, "t", 2)
    await plain.append(*TP, values("first"))
    return cluster, MemoryLog(cluster, faults=Script(ends, late_after=late_after))


def test_an_append_can_land_and_end_in_an_error() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.LANDED_ERROR)
        with pytest.raises(AppendUnknown):
            await log.append(*TP, values("a"))
        assert stored(cluster) == ["first", "a"]

    run(check())


def test_an_append_can_land_and_tell_no_offset() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.LANDED_NO_OFFSET)
        assert await log.append(*TP, values("a")) == Appended(-1, -1)
        assert stored(cluster) == ["first", "a"]

    run(check())


def test_an_append_can_land_and_tell_another_offset() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.LANDED_OTHER_OFFSET)
        assert (await log.append(*TP, values("a"))).offset == 2
        assert stored(cluster) == ["first", "a"]

    run(check())


def test_an_append_can_be_refused() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.REFUSED)
        with pytest.raises(AppendUnknown):
            await log.append(*TP, values("a"))
        cluster.settle()
        assert stored(cluster) == ["first"]

    run(check())


def test_an_append_can_end_in_an_error_and_land_later() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.LATE_ERROR, late_after=2)
        with pytest.raises(AppendUnknown):
            await log.append(*TP, values("late"))
        assert stored(cluster) == ["first"]
        await log.append(*TP, values("b"))
        assert stored(cluster) == ["first", "b"]
        await log.append(*TP, values("c"))
        assert stored(cluster) == ["first", "b", "late", "c"]

    run(check())


def test_an_append_of_which_nothing_is_heard_ends_when_retired_and_can_land_later() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.LATE_SILENT, End.NEVER, late_after=50)
        waits = [asyncio.ensure_future(log.append(*TP, values(name))) for name in ("late", "never")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await log.retire()
        assert all(isinstance(end, AppendUnknown) for end in await asyncio.gather(*waits, return_exceptions=True))
        assert stored(cluster) == ["first"]
        cluster.settle()
        assert stored(cluster) == ["first", "late"]

    run(check())


def test_an_append_can_land_twice() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.TWICE, late_after=1)
        assert (await log.append(*TP, values("a", "b"))).offset == 1
        await log.append(*TP, values("c"))
        assert stored(cluster) == ["first", "a", "b", "a", "b", "c"]

    run(check())


def test_what_a_retired_sender_had_under_way_lands_late_like_a_zombies() -> None:
    async def check() -> None:
        cluster, log = await scripted(late_after=3)
        waiting = asyncio.ensure_future(log.append(*TP, values("zombie")))
        await asyncio.sleep(0)
        await log.retire()
        with pytest.raises(AppendUnknown):
            await waiting
        successor = MemoryLog(cluster)
        for name in ("a", "b", "c"):
            await successor.append(*TP, values(name))
        assert stored(cluster) == ["first", "a", "b", "zombie", "c"]

    run(check())


def test_without_faults_nothing_lands_after_retiring() -> None:
    async def check() -> None:
        cluster, _ = await scripted()
        log = MemoryLog(cluster)
        waiting = asyncio.ensure_future(log.append(*TP, values("gone")))
        await asyncio.sleep(0)
        await log.retire()
        await asyncio.gather(waiting, return_exceptions=True)
        cluster.settle()
        assert stored(cluster) == ["first"]

    run(check())


def test_a_late_append_does_not_land_in_a_topic_made_again() -> None:
    async def check() -> None:
        cluster, log = await scripted(End.LATE_ERROR, late_after=5)
        with pytest.raises(AppendUnknown):
            await log.append(*TP, values("late"))
        await log.delete_topic("t")
        await make_topic(log, "t", 2)
        cluster.settle()
        assert stored(cluster) == []

    run(check())


def test_a_crash_drops_what_waits_and_refuses_what_comes() -> None:
    async def check() -> None:
        cluster, _ = await scripted()
        log = MemoryLog(cluster)
        reader = log.reader({TP: 1})
        waits = [asyncio.ensure_future(reader.read()), asyncio.ensure_future(log.append(*TP, values("a")))]
        await asyncio.sleep(0)
        log.crash()
        await asyncio.gather(*waits, return_exceptions=True)
        assert all(wait.cancelled() for wait in waits)
        with pytest.raises(LogUnavailable, match="was crashed"):
            await log.append(*TP, values("b"))
        assert stored(cluster) == ["first"]

    run(check())


def test_a_crashed_member_is_replaced_after_its_session() -> None:
    async def check() -> None:
        cluster, one = await scripted()
        two = MemoryLog(cluster)
        first = await one.join("g", ["t"], instance_id="one", session_timeout_s=0.05)
        second = await two.join("g", ["t"], instance_id="two", session_timeout_s=0.05)
        assert len(first.assignment) == len(second.assignment) == 1
        one.crash()
        assert len(second.assignment) == 1
        await settled([second], lambda: len(second.assignment) == 2, "the rest took over")

    run(check())


def test_a_member_cut_off_learns_nothing_and_joins_anew_when_it_is_heard_again() -> None:
    async def check() -> None:
        cluster, one = await scripted()
        two = MemoryLog(cluster)
        first = await one.join("g", ["t"], instance_id="one", session_timeout_s=0.05)
        second = await two.join("g", ["t"], instance_id="two", session_timeout_s=0.05)
        one.fall_silent()
        await settled([second], lambda: len(second.assignment) == 2, "the rest took over")
        assert len(first.assignment) == 1, "it doesn't know yet"
        assert first.silent_for_s() > 0
        generation = first.generation
        one.speak_again()
        assert len(await first.changed(generation)) == 1
        assert len(second.assignment) == 1
        assert first.silent_for_s() == 0

    run(check())


def test_a_log_cut_below_what_was_read_is_noticed() -> None:
    async def check() -> None:
        cluster, _ = await scripted()
        log = MemoryLog(cluster)
        await log.append(*TP, values("a", "b"))
        reader = log.reader({TP: 0})
        await read_count(reader, TP, 3)
        cluster.truncate(TP, 1)
        with pytest.raises(LogWentBack, match="was read up to 3 and now ends at 1"):
            await reader.read()
        fresh = log.reader({TP: 3})
        with pytest.raises(OffsetOutOfRange):
            await fresh.read()

    run(check())


def test_the_clock_of_the_log_never_goes_back() -> None:
    async def check() -> None:
        times = iter([1000, 500, 2000])
        log = MemoryLog(MemoryCluster(now_ms=lambda: next(times)))
        await make_topic(log, "t")
        assert [(await log.append(*TP, values("x"))).timestamp for _ in range(3)] == [1000, 1000, 2000]

    run(check())


def _history(seed: int) -> tuple[list[str], list[str]]:
    """What was told and what is stored after 200 appends under every kind of fault."""
    told: list[str] = []

    async def check() -> list[str]:
        cluster = MemoryCluster(now_ms=lambda: 1000)
        await make_topic(MemoryLog(cluster), "t")
        faults = Faults(random.Random(seed), {end: 0.08 for end in End if end is not End.OK})
        log = MemoryLog(cluster, faults=faults)
        for i in range(200):
            waiting = asyncio.ensure_future(log.append(*TP, values(str(i))))
            for _ in range(3):
                await asyncio.sleep(0)
            if not waiting.done():
                await log.retire()
            (end,) = await asyncio.gather(waiting, return_exceptions=True)
            told.append(str(end))
        faults.quiet = True
        cluster.settle()
        assert len(await read_all(MemoryLog(cluster), TP)) == len(stored(cluster))
        return stored(cluster)

    return told, run(check())


def test_a_seed_is_a_history() -> None:
    assert _history(7) == _history(7)
    assert _history(7) != _history(8)


def test_under_a_seed_every_kind_of_end_occurs() -> None:
    _, records = _history(7)
    copies = Counter(records)
    assert max(copies.values()) == 2, "something landed twice"
    assert len(copies) < 200, "something never landed"
    assert records != sorted(records, key=int), "something landed late"
