"""A log with a little history, made in the test's own process, as a server that has stopped leaves it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from millstream.events.codec import Codec
from millstream.events.daybook import CloseDay, EnterFlight, OpenDay
from millstream.events.logs.port import TopicPartition
from millstream.events.logs.sqlite import SqliteLog
from millstream.events.topics import Topics
from millstream.streams.gpu.group import KernelGroup
from millstream.streams.runtime.client import Client, follow
from millstream.streams.runtime.prefix import find_topics
from millstream.streams.runtime.server import Server
from tests.support.aio import run

BOOK = "9E-2013-01-16"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with a log in `.millstream`: a day book that is closed, one that is open, and refusals."""
    run(_make(tmp_path / ".millstream"))
    return tmp_path


async def _make(folder: Path) -> None:
    async with SqliteLog(folder) as log:
        topics = await find_topics(log)
        async with Server(log, topics, folder / "server" / "millstream") as server:
            await server.ready()
            group = KernelGroup(log, topics, Codec(), instance_id="kernels")
            working = asyncio.create_task(group.run())
            await _fill(log, topics)
            group.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await working


async def _fill(log: SqliteLog, topics: Topics) -> None:
    codec = Codec()
    async with Client(log, topics, codec) as client:
        for book in (BOOK, "9E-2013-01-17"):
            carrier, day = book.split("-", 1)
            assert (await client.ask(book, OpenDay(carrier, day, None), command_id=f"{book}/open")).accepted
            for number, delay in enumerate((12.0, -3.0, None)):
                body = EnterFlight(f"9E{number}", "JFK", "BOS", delay is None, delay)
                assert (await client.ask(book, body, command_id=f"{book}/{number}")).accepted
        assert not (await client.ask(BOOK, OpenDay("9E", "2013-01-16", None), command_id="again")).accepted
        assert (await client.ask(BOOK, CloseDay(), command_id=f"{BOOK}/close")).accepted
        stream = topics.stream("reports")
        async for _ in follow(log, {TopicPartition(stream, p): 0 for p in range(4)}):
            return
