"""How waits on the embedded log are woken, also where the system is of little help."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from millstream.events.logs.port import TopicPartition
from millstream.events.logs.sqlite_wake import Waker, watch_file
from tests.support.aio import run

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Others:
    """Other processes: how often they have committed, and what SQLite says when asked."""

    def __init__(self) -> None:
        self.commits = 0
        self.news = False

    def has_news(self) -> bool:
        return self.news


async def waiting(waker: Waker, mark: int = 0, of: TopicPartition = A) -> asyncio.Task[None]:
    task = asyncio.create_task(waker.wait(mark, frozenset([of]), None))
    await asyncio.sleep(0)
    return task


def test_own_commits_wake_those_who_wait_for_their_partitions_only() -> None:
    async def check() -> None:
        waker = Waker(lambda: 0, lambda: False)
        a, b = await waiting(waker, of=A), await waiting(waker, of=B)
        waker.touched([B])
        await b
        assert not a.done()
        waker.touched(None)
        await a
        waker.close()

    run(check())


def test_a_commit_between_the_look_and_the_wait_is_not_missed() -> None:
    async def check() -> None:
        waker = Waker(lambda: 8, lambda: False)
        await waker.wait(7, frozenset([A]), None)
        waker.close()

    run(check())


def test_without_help_from_the_system_the_counter_is_polled() -> None:
    async def check() -> None:
        others = Others()
        waker = Waker(lambda: others.commits, others.has_news)  # not started: it watches no file
        task = await waiting(waker)
        others.commits += 1
        await task
        waker.close()

    run(check())


def test_a_file_that_cannot_be_watched_is_no_error(tmp_path: Path) -> None:
    assert watch_file(tmp_path / "not there") == -1


def test_a_write_to_the_watched_file_wakes(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_bytes(b"0")
    descriptor = watch_file(file)
    if descriptor < 0:
        pytest.skip("no inotify here")
    os.close(descriptor)

    async def check() -> None:
        others = Others()
        waker = Waker(lambda: others.commits, others.has_news)
        waker.start(file)
        for _ in range(20):
            task = await waiting(waker, mark=others.commits)
            others.commits += 1
            file.write_bytes(b"1")
            await task
        waker.close()

    run(check())


def test_commits_that_the_watched_file_did_not_tell_of_are_found_and_then_polled_for(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_bytes(b"0")

    async def check() -> None:
        others = Others()
        waker = Waker(lambda: others.commits, others.has_news)
        waker.start(file)
        for _ in range(5):
            task = await waiting(waker, mark=others.commits)
            others.commits += 1
            await task
        waker.close()

    run(check())


def test_a_commit_that_was_never_counted_is_found_by_asking_sqlite(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.write_bytes(b"0")

    async def check() -> None:
        others = Others()
        waker = Waker(lambda: others.commits, others.has_news)
        waker.start(file)
        task = await waiting(waker)
        others.news = True
        await task
        waker.close()

    run(check())


def test_a_wait_can_time_out() -> None:
    async def check() -> None:
        waker = Waker(lambda: 0, lambda: False)
        await waker.wait(0, frozenset([A]), 0.01)
        waker.close()

    run(check())
