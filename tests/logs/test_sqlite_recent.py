"""What the embedded log keeps at hand of its own appends, which must never differ from the file."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from millstream.events.logs.port import Record
from millstream.events.logs.sqlite import SqliteLog
from millstream.events.logs.sqlite_recent import RECENT_BYTES_MAX, Recent
from tests.logs.steps import make_topic, read_all, read_count
from tests.support.aio import run


def offsets(recent: Recent, position: int, stream: int = 1) -> list[int]:
    return [r.offset for r in recent.read(stream, position, 100)]


def test_what_was_added_is_read_from_any_position() -> None:
    recent = Recent()
    recent.add(1, 5, 0, [Record(b"a"), Record(b"b")], 2)
    recent.add(1, 7, 0, [Record(b"c")], 1)
    assert [offsets(recent, p) for p in (4, 5, 6, 7, 8)] == [[], [5, 6, 7], [6, 7], [7], []]
    assert [r.offset for r in recent.read(1, 5, 2)] == [5, 6]


def test_a_gap_or_another_creation_of_the_topic_begins_anew() -> None:
    recent = Recent()
    recent.add(1, 0, 0, [Record(b"a")], 1)
    recent.add(1, 2, 0, [Record(b"c")], 1)
    assert [offsets(recent, p) for p in (0, 1, 2)] == [[], [], [2]]
    recent.add(2, 3, 0, [Record(b"d")], 1)
    assert offsets(recent, 3, stream=1) == offsets(recent, 2, stream=2) == []
    assert offsets(recent, 3, stream=2) == [3]


def test_not_more_is_kept_than_the_limit() -> None:
    recent = Recent()
    for i in range(10):
        recent.add(1, i, 0, [Record(b"x" * (RECENT_BYTES_MAX // 4))], RECENT_BYTES_MAX // 4)
    assert offsets(recent, 0) == []
    assert offsets(recent, 9) == [9]
    recent.add(1, 10, 0, [Record(b"x" * (2 * RECENT_BYTES_MAX))], 2 * RECENT_BYTES_MAX)
    assert sum(len(r.value or b"") for p in range(12) for r in recent.read(1, p, 1)) <= 2 * RECENT_BYTES_MAX


@pytest.mark.parametrize("seed", range(3))
def test_a_following_reader_sees_what_a_fresh_one_reads_from_the_file(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def check() -> None:
        async with SqliteLog(tmp_path) as log, SqliteLog(tmp_path) as other:
            (tp,) = await make_topic(log, "t")
            reader = log.reader({tp: 0})
            following = asyncio.ensure_future(read_count(reader, tp, 400))
            done = 0
            while done < 400:
                batch = [
                    Record(
                        rng.randbytes(rng.choice((0, 10, 30_000))), rng.choice((None, b"k")), (("h", None), ("h", b"x"))
                    )
                    for _ in range(min(rng.randint(1, 20), 400 - done))
                ]
                await rng.choice((log, log, log, other)).append(*tp, batch)
                done += len(batch)
            assert await following == await read_all(other, tp)
            await reader.close()

    run(check())
