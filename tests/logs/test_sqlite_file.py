"""What the embedded log promises about its file: opening, the disk, the clock, the WAL."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millstream.events.errors import AppendUnknown, LogFolderUnusable, LogUnavailable
from millstream.events.logs.port import Record, TopicPartition, TopicSpec
from millstream.events.logs.sqlite import SqliteLog
from millstream.events.logs.sqlite_writer import WAL_BYTES_BOUND
from tests.logs.steps import make_topic, read_all, read_count, values
from tests.support.aio import run, until


async def _open_and_close(folder: Path) -> str:
    async with SqliteLog(folder) as log:
        return await log.identity()


def _refusal(folder: Path) -> str:
    with pytest.raises(LogFolderUnusable) as refused:
        run(_open_and_close(folder))
    return str(refused.value)


@contextmanager
def mounted_tmpfs(at: Path, options: str) -> Iterator[None]:
    """A small disk; skips the test where this user may not mount one."""
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode != 0:
        pytest.skip(f"can't mount a small disk here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert run(_open_and_close(folder)) == run(_open_and_close(folder))
    assert (folder / "log.sqlite3").exists()


def test_two_folders_are_two_logs(tmp_path: Path) -> None:
    assert run(_open_and_close(tmp_path / "a")) != run(_open_and_close(tmp_path / "b"))


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file, not a folder" in _refusal(tmp_path / "file")
    assert f"'{tmp_path / 'file'}' is a file, not a folder" in _refusal(tmp_path / "file" / "below")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", "size=1m,ro"):
        text = _refusal(tmp_path / "disk" / "log")
        assert "can't be written: Read-only file system" in text
        assert "Read-only file system" in _refusal(tmp_path / "disk")


def test_the_folder_of_a_kafka_broker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "meta.properties").write_text("cluster.id=x\n")
    assert "holds the data of a Kafka broker" in _refusal(tmp_path)
    assert not (tmp_path / "log.sqlite3").exists()


def test_a_file_that_is_not_sqlite_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite3").write_text("dear diary, " * 10)
    assert "isn't an SQLite file" in _refusal(tmp_path)
    assert (tmp_path / "log.sqlite3").read_text() == "dear diary, " * 10


def test_an_sqlite_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "log.sqlite3")
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = (tmp_path / "log.sqlite3").read_bytes()
    assert "an SQLite file of another program" in _refusal(tmp_path)
    assert (tmp_path / "log.sqlite3").read_bytes() == before


def test_a_newer_file_format_is_refused(tmp_path: Path) -> None:
    run(_open_and_close(tmp_path))
    file = sqlite3.connect(tmp_path / "log.sqlite3")
    file.execute("PRAGMA user_version = 7")
    file.close()
    assert "has the file format 7, newer than 1" in _refusal(tmp_path)


def test_an_empty_file_left_by_a_kill_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite3").touch()
    assert run(_open_and_close(tmp_path)) != ""


def test_a_log_that_is_not_open_says_so(tmp_path: Path) -> None:
    async def check() -> None:
        log = SqliteLog(tmp_path)
        with pytest.raises(LogUnavailable, match="is not open"):
            await log.append("t", 0, values("a"))
        async with log:
            (tp,) = await make_topic(log, "t")
            reader = log.reader({tp: 0})
            waiting = asyncio.ensure_future(reader.read())
            await asyncio.sleep(0)
        with pytest.raises(LogUnavailable, match="is not open"):
            await waiting

    run(check())


def test_closing_writes_what_is_queued(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            (tp,) = await make_topic(log, "t")
            appends = [asyncio.ensure_future(log.append("t", 0, values(str(i)))) for i in range(20)]
            await asyncio.sleep(0)
        assert sorted([(await append).offset for append in appends]) == list(range(20))
        async with SqliteLog(tmp_path) as log:
            assert len(await read_all(log, tp)) == 20

    run(check())


def test_time_never_goes_back_though_the_clock_does(tmp_path: Path) -> None:
    hour = 3_600_000
    clock = [10 * hour]

    async def check() -> None:
        async with SqliteLog(tmp_path, now_ms=lambda: clock[0]) as log:
            await make_topic(log, "t", 2)
            stamps = []
            for now in (10 * hour, 9 * hour, 11 * hour, 10 * hour, 11 * hour + 1):
                clock[0] = now
                stamps.append((await log.append("t", 0, values("x"))).timestamp)
            assert stamps == [10 * hour, 10 * hour, 11 * hour, 11 * hour, 11 * hour + 1]
        clock[0] = 5 * hour
        (tmp_path / "log.lock").unlink()  # as after a copy without it: the records themselves know the time
        async with SqliteLog(tmp_path, now_ms=lambda: clock[0]) as log:
            assert (await log.append("t", 0, values("x"))).timestamp == 11 * hour + 1
            assert (await log.append("t", 1, values("x"))).timestamp == 11 * hour + 1, "one clock for the whole log"

    run(check())


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_membership_outlives_a_jump_of_the_wall_clock(tmp_path: Path, hours: int) -> None:
    clock = [10 * 3_600_000]

    async def check() -> None:
        async with SqliteLog(tmp_path, now_ms=lambda: clock[0]) as log:
            (tp,) = await make_topic(log, "t")
            members = [await log.join("g", ["t"], instance_id=i, session_timeout_s=2.4) for i in ("a", "b")]
            await members[0].changed(members[0].generation)
            generations = [m.generation for m in members]
            clock[0] += hours * 3_600_000
            # Only heartbeats write here.
            written = log.writer.own_commits
            await until(lambda: log.writer.own_commits >= written + 6, "both have renewed their leases three times")
            assert [m.generation for m in members] == generations
            assert members[0].assignment | members[1].assignment == {tp}
            for member in members:
                await member.close(leave=True)

    run(check())


def test_a_full_disk_makes_appends_unknown_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async def check(folder: Path) -> None:
        async with SqliteLog(folder) as log:
            (tp,) = await make_topic(log, "t")
            ballast = folder.parent / "ballast"
            ballast.write_bytes(b"\0" * (2 << 20))
            landed = await _append_until_full(log)
            ballast.unlink()
            after = await log.append("t", 0, values("after"))
            stored = await read_all(log, tp)
            assert [r.offset for r in stored] == list(range(len(stored)))
            assert stored[after.offset].value == b"after"
            assert after.offset % 10 == 0
            assert after.offset >= landed
        async with SqliteLog(folder) as log:
            assert await read_all(log, tp) == stored

    with mounted_tmpfs(tmp_path / "disk", "size=8m"):
        run(check(tmp_path / "disk" / "log"))


async def _append_until_full(log: SqliteLog) -> int:
    """Batches of 10 records until the disk is full, and some more; how many records were acknowledged."""
    landed = 0

    async def fill() -> None:
        nonlocal landed
        while True:
            await log.append("t", 0, [Record(os.urandom(5000))] * 10)
            landed += 10

    with pytest.raises(AppendUnknown, match=r"the disk is full\. Make room|writing the disk failed"):
        await fill()
    for _ in range(3):
        with pytest.raises(AppendUnknown):
            await log.append("t", 0, [Record(os.urandom(50_000))] * 10)
    return landed


def test_a_file_that_may_not_grow_refuses_whole_batches_only(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            (tp,) = await make_topic(log, "t")
            await log.append("t", 0, values("first"))
            pages = await log.writer.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
            await log.writer.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
            with pytest.raises(AppendUnknown, match=r"the disk is full\. Make room; the log goes on by itself"):
                await log.append("t", 0, [Record(b"x" * 3000)] * 20)
            assert (await log.append("t", 0, values("small"))).offset == 1
            await log.writer.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone())
            assert (await log.append("t", 0, [Record(b"x" * 3000)] * 20)).offset == 2
            assert len(await read_all(log, tp)) == 22

    run(check())


def test_the_wal_stays_short_while_readers_poll(tmp_path: Path) -> None:
    wal = tmp_path / "log.sqlite3-wal"
    sizes = [0]

    async def fill(log: SqliteLog, partition: int) -> None:
        for _ in range(65):
            await log.append("t", partition, [Record(b"x" * 10_000)] * 80)
            sizes.append(wal.stat().st_size)

    async def follow(log: SqliteLog, tp: TopicPartition) -> int:
        reader = log.reader({tp: 0})
        return len(await read_count(reader, tp, 65 * 80))

    async def check() -> None:
        async with SqliteLog(tmp_path) as log, SqliteLog(tmp_path) as other:
            parts = await make_topic(log, "t", 2)
            tasks = [follow(of, tp) for of in (log, other) for tp in parts]
            counts = await asyncio.gather(fill(log, 0), fill(other, 1), *tasks)
            assert counts[2:] == [65 * 80] * 4

    run(check())
    assert max(sizes) < WAL_BYTES_BOUND


def test_readers_hold_no_transaction_between_reads(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            (tp,) = await make_topic(log, "t")
            await log.append("t", 0, values(*map(str, range(500))))
            reader = log.reader({tp: 0})
            await reader.read(max_records=200)
            waiting = asyncio.ensure_future(read_count(reader, tp, 301))
            await asyncio.sleep(0)
            outside = sqlite3.connect(tmp_path / "log.sqlite3", isolation_level=None)
            try:
                busy, _, _ = outside.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                outside.close()
            assert busy == 0, "nobody holds a snapshot"
            await log.append("t", 0, values("last"))
            assert (await waiting)[-1].value == b"last"

    run(check())


def test_a_compacted_topic_does_not_grow_with_its_updates(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            await log.ensure_topic(TopicSpec("fences", 1, cleanup="compact"))
            tp = TopicPartition("fences", 0)
            for i in range(50):
                await log.append(*tp, [Record(str(i).encode(), key=str(k % 4).encode()) for k in range(100)])
            stored = await read_all(log, tp)
            assert len(stored) < 1_100
            offsets = [r.offset for r in stored]
            assert offsets == sorted(offsets)
            assert {r.key: r.value for r in stored} == {str(k).encode(): b"49" for k in range(4)}

    run(check())


def test_a_large_topic_is_deleted_while_others_are_appended_to(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            await make_topic(log, "large", 2)
            (tp,) = await make_topic(log, "small")
            for p in (0, 1):
                await log.append("large", p, [Record(b"x" * 100)] * 6_000)
            ends = await asyncio.gather(
                log.delete_before("large", 0, 5_500),
                log.delete_topic("large"),
                *(log.append("small", 0, values(str(i))) for i in range(30)),
                return_exceptions=True,
            )
            assert await log.partitions("large") is None
            assert [end.offset for end in ends[2:]] == list(range(30))  # type: ignore[union-attr]
            assert len(await read_all(log, tp)) == 30

    run(check())
