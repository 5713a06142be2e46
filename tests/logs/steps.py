"""Steps that many tests of the logs take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from millstream.events.logs.port import Group, Log, Reader, Record, StoredRecord, TopicPartition, TopicSpec

DEADLINE_S = 30.0


async def make_topic(log: Log, topic: str, partitions: int = 1) -> list[TopicPartition]:
    """The topic with our usual settings; its partitions."""
    await log.ensure_topic(TopicSpec(topic, partitions))
    return [TopicPartition(topic, p) for p in range(partitions)]


def values(*texts: str) -> list[Record]:
    """Records with these values."""
    return [Record(text.encode()) for text in texts]


async def read_count(reader: Reader, tp: TopicPartition, count: int) -> list[StoredRecord]:
    """The next `count` records of a partition, however many reads that takes."""
    got: list[StoredRecord] = []
    while len(got) < count:
        batch = await reader.read(timeout_s=DEADLINE_S)
        assert batch, f"nothing came within {DEADLINE_S:.0f} s; {len(got)} of {count} records were read"
        got += batch.get(tp, [])
    return got


async def read_all(log: Log, tp: TopicPartition, start: int = 0) -> list[StoredRecord]:
    """Everything from `start` to the end as it is now."""
    end = (await log.bounds(*tp)).end
    reader = log.reader({tp: start})
    try:
        got: list[StoredRecord] = []
        while reader.position(tp) < end:
            got += (await reader.read(timeout_s=DEADLINE_S))[tp]
        return got
    finally:
        await reader.close()


async def read_on(reader: Reader, *, max_records: int = 1000) -> None:
    """Read until an error ends it; fails where nothing comes for long."""
    while await reader.read(max_records=max_records, timeout_s=DEADLINE_S):
        pass


async def settled(members: list[Group], condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds over the members' assignments; each change of one is looked at."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            waits = [asyncio.ensure_future(m.changed(m.generation)) for m in members]
            # A change may fall between the look and the wait of another member, so each wait is a short one.
            _, pending = await asyncio.wait(waits, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            for wait in pending:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    assert condition(), what


def spread(members: list[Group], partitions: list[TopicPartition]) -> bool:
    """Whether every partition has exactly one holder, and loads differ by one at most."""
    held = [tp for m in members for tp in m.assignment]
    loads = [len(m.assignment) for m in members]
    return sorted(held) == sorted(partitions) and max(loads) - min(loads) <= 1
