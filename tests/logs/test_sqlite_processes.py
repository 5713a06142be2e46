"""What the embedded log promises to several processes at once."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from millstream.events.errors import AppendUnknown
from millstream.events.logs.port import Bounds, Record, StoredRecord, TopicPartition, TopicSpec
from millstream.events.logs.sqlite import SqliteLog
from tests.logs.steps import make_topic, read_all, read_count, settled, values
from tests.support.aio import run

PROGRAM = Path(__file__).parent / "process.py"


@asynccontextmanager
async def process(role: str, *words: object) -> AsyncIterator[Process]:
    """One of the roles of `process.py`; killed at the end if it is still there."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(PROGRAM), role, *map(str, words), stdin=PIPE, stdout=PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def line(of: Process) -> list[str]:
    assert of.stdout is not None
    return (await of.stdout.readline()).decode().split()


async def rest(of: Process) -> list[list[str]]:
    assert of.stdout is not None
    return [text.split() for text in (await of.stdout.read()).decode().splitlines()]


def keys(records: list[StoredRecord]) -> list[str]:
    return [(r.key or b"").decode() for r in records]


def assert_dense_and_whole(records: list[StoredRecord]) -> None:
    """Offsets without a gap, and every batch complete and together. Keys are name/batch/index/count."""
    assert [r.offset for r in records] == list(range(len(records)))
    at = 0
    while at < len(records):
        name, batch, index, count = keys(records)[at].split("/") if at < len(records) else ("", "", "", "")
        assert index == "0", f"a batch begins in its middle at offset {at}"
        expected = [f"{name}/{batch}/{i}/{count}" for i in range(int(count))]
        assert [(r.key or b"").decode() for r in records[at : at + int(count)]] == expected
        at += int(count)


def test_three_processes_append_and_readers_agree_without_a_gap(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            (tp,) = await make_topic(log, "t")
            async with (
                process("append", tmp_path, "t", "one", 60, 50) as one,
                process("append", tmp_path, "t", "two", 60, 50) as two,
                process("append", tmp_path, "t", "three", 60, 50) as three,
            ):
                readers = [log.reader({tp: 0}) for _ in range(2)]
                first, second = await asyncio.gather(*(read_count(r, tp, 3 * 180) for r in readers))
                assert first == second
                assert_dense_and_whole(first)
                times = [r.timestamp for r in first]
                assert times == sorted(times)
                for name, of in (("one", one), ("two", two), ("three", three)):
                    for offset, batch, _ in (await rest(of))[1:]:
                        assert keys(first)[int(offset)].startswith(f"{name}/{batch}/0/")
                for reader in readers:
                    await reader.close()

    run(check())


def test_a_reader_does_not_pass_a_record_that_is_committed_late(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            (tp,) = await make_topic(log, "t")
            await log.append("t", 0, [Record(None, key=b"first/0/0/1")])
            async with process("hold", tmp_path, "t") as late, AsyncExitStack() as stack:
                assert await line(late) == ["inserted", "1"]
                quick = await stack.enter_async_context(process("append", tmp_path, "t", "quick", 3, 10))
                readers = [log.reader({tp: 0}) for _ in range(2)]
                waits = [asyncio.ensure_future(read_count(r, tp, 8)) for r in readers]
                own = asyncio.ensure_future(log.append("t", 0, [Record(None, key=b"own/0/0/1")]))
                await asyncio.wait([own], timeout=0.1)
                assert not own.done(), "nothing is appended while another process is between insert and commit"
                assert await log.bounds("t", 0) == Bounds(0, 1)
                assert late.stdin is not None
                late.stdin.write(b"go on\n")
                first, second = await asyncio.gather(*waits)
                assert first == second
                assert_dense_and_whole(first)
                assert keys(first)[:2] == ["first/0/0/1", "held/0/0/1"]
                assert (await own).offset >= 2
                await quick.wait()
                for reader in readers:
                    await reader.close()

    run(check())


def test_a_process_that_waits_is_woken_by_another_one(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            _, answers = await make_topic(log, "t", 2)
            async with process("echo", tmp_path, "t", 50) as other:
                assert await line(other) == ["ready"]
                reader = log.reader({answers: 0})
                for i in range(50):
                    await log.append("t", 0, values(str(i)))
                    assert [r.value for r in await read_count(reader, answers, 1)] == [str(i).encode()]
                await reader.close()

    run(check())


@pytest.mark.parametrize("seed", range(6))
def test_what_a_killed_process_was_told_is_there(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)

    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            await log.ensure_topic(TopicSpec("t", 1))
        told: dict[int, str] = {}
        for round_ in range(2):
            async with process("append", tmp_path, "t", f"r{round_}", 1_000_000, rng.choice((20, 3000))) as writer:
                assert await line(writer) == ["ready"]
                for _ in range(rng.randint(1, 150)):
                    offset, batch, count = await line(writer)
                    told[int(offset)] = f"r{round_}/{batch}/0/{count}"
                await asyncio.sleep(rng.random() / 200)  # so that the kill falls anywhere in an append
                writer.send_signal(signal.SIGKILL)
                for words in await rest(writer):
                    if len(words) == 3:
                        told[int(words[0])] = f"r{round_}/{words[1]}/0/{words[2]}"
            async with SqliteLog(tmp_path) as log:
                stored = await read_all(log, TopicPartition("t", 0))
                assert_dense_and_whole(stored)
                assert {offset: keys(stored)[offset] for offset in told} == told
                await log.append("t", 0, [Record(None, key=f"after/{round_}/0/1".encode())])

    run(check())


def test_a_stopped_process_with_the_lock_makes_appends_unknown_and_is_named(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path, stuck_s=0.3) as log:
            (tp,) = await make_topic(log, "t")
            async with process("hold", tmp_path, "t") as holder:
                assert await line(holder) == ["inserted", "0"]
                with pytest.raises(AppendUnknown, match=rf"by process {holder.pid}\. It may be stopped"):
                    await log.append("t", 0, values("never"))
                holder.kill()
            assert (await log.append("t", 0, values("later"))).offset == 0
            assert [r.value for r in await read_all(log, tp)] == [b"later"], "what was given up didn't land"

    run(check())


def test_a_process_that_writes_without_a_pause_lets_others_in(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            await make_topic(log, "t", 2)
            async with process("append", tmp_path, "t", "busy", 1_000_000, 10) as busy:
                assert await line(busy) == ["ready"]
                for i in range(30):
                    before = (await log.bounds("t", 0)).end
                    assert (await log.append("t", 1, values("x"))).offset == i
                    # An append of ours waits for the transaction under way, and for few more.
                    assert (await log.bounds("t", 0)).end - before < 500

    run(check())


def test_another_process_takes_over_from_a_killed_member(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            partitions = await make_topic(log, "t", 4)
            async with process("member", tmp_path, "t", "killed", 1.0) as other:
                assert await line(other) == ["joined", "4"]
                mine = await log.join("g", ["t"], instance_id="mine", session_timeout_s=1.0)
                await settled([mine], lambda: len(mine.assignment) == 2, "half of it is ours")
                other.kill()
                await settled([mine], lambda: mine.assignment == frozenset(partitions), "all of it is ours")
                await mine.close(leave=True)

    run(check())


def test_a_stopped_member_loses_its_partitions_and_comes_back_as_a_member(tmp_path: Path) -> None:
    async def check() -> None:
        async with SqliteLog(tmp_path) as log:
            partitions = await make_topic(log, "t", 4)
            async with process("member", tmp_path, "t", "stopped", 1.0) as other:
                assert await line(other) == ["joined", "4"]
                mine = await log.join("g", ["t"], instance_id="mine", session_timeout_s=1.0)
                await settled([mine], lambda: len(mine.assignment) == 2, "half of it is ours")
                await _stop_outside_the_lock(log, other)
                await settled([mine], lambda: mine.assignment == frozenset(partitions), "all of it is ours")
                other.send_signal(signal.SIGCONT)
                await settled([mine], lambda: len(mine.assignment) == 2, "half of it is the other's again")
                await mine.close(leave=True)

    run(check())


async def _stop_outside_the_lock(log: SqliteLog, other: Process) -> None:
    """Stop a process, but not while it holds the log's lock: that is another test."""
    while True:
        other.send_signal(signal.SIGSTOP)
        try:
            async with asyncio.timeout(1.0):
                await log.append("t", 0, values("is the lock free?"))
            return
        except TimeoutError:
            other.send_signal(signal.SIGCONT)


def test_processes_that_make_the_same_log_at_once_agree_on_its_identity(tmp_path: Path) -> None:
    async def check() -> None:
        logs = [SqliteLog(tmp_path / "new") for _ in range(8)]
        await asyncio.gather(*(log.start() for log in logs))
        await asyncio.gather(*(log.ensure_topic(TopicSpec("t", 2)) for log in logs))
        assert len({await log.identity() for log in logs}) == 1
        await asyncio.gather(*(log.close() for log in logs))

    run(check())
