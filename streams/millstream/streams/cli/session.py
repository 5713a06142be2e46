"""Open what a verb works on: the log, the topics of the prefix, a codec that knows the prefix's schemas."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from millstream.events.codec import Codec
from millstream.events.logs.address import open_log
from millstream.events.logs.port import Log
from millstream.events.logs.sqlite_file import FILE
from millstream.events.registry import load_schemas
from millstream.events.topics import Topics
from millstream.streams.cli.console import NoServer, NotFound, err, escape
from millstream.streams.cli.settings import Setting
from millstream.streams.runtime.prefix import find_topics

T = TypeVar("T")

PATIENCE_S = 10.0
"""A person who looks at a log that is away wants to hear so; a broker that restarts is back by then."""


class Session(NamedTuple):
    """An open log and what is needed to read it."""

    log: Log
    topics: Topics
    codec: Codec


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's work on the quickest event loop there is."""
    if sys.platform != "win32":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    return asyncio.run(work)


def notice(text: str) -> None:
    """Where the log says that it waits, and that it has come back."""
    err.print(escape(text), style="yellow", markup=False)


@asynccontextmanager
async def opened(
    address: Setting, prefix: str, partitions: int | None = None, *, patience_s: float | None = PATIENCE_S
) -> AsyncIterator[Session]:
    """The log at `address`, made if it isn't there, and the topics of `prefix` as they are or would be.

    patience_s: how long a log that doesn't answer is waited for; None: for ever, as servers do. Raises `NoServer`.
    """
    log = open_log(address.value, notice=notice)
    try:
        try:
            async with asyncio.timeout(patience_s):
                await log.start()
                topics = await find_topics(log, prefix, partitions)
        except TimeoutError:
            raise NoServer(
                f"the log {address.value} (from: {address.origin}) has not answered for {patience_s:.0f} s. Start the"
                f" broker (a local one: millstream broker start), or name another log with --log."
            ) from None
        yield Session(log, topics, Codec())
    finally:
        await log.close()


@asynccontextmanager
async def reading(address: Setting, prefix: str, *, streams_only: bool = False) -> AsyncIterator[Session]:
    """As `opened`, for who only reads: nothing is made. Raises `NotFound` where there is no log, or no such prefix on it.

    streams_only: a prefix that has been published to and never served will do.
    """
    _refuse_missing_folder(address)
    async with opened(address, prefix) as session:
        needed = session.topics.schemas if streams_only else session.topics.journal
        if await session.log.partitions(needed) is None:
            raise NotFound(
                f"there is nothing of the prefix {prefix!r} on the log {address.value}: no topic {needed!r}."
                f" Nobody has served it yet (millstream serve), or it has another prefix (--prefix)."
            )
        await load_schemas(session.log, session.topics, session.codec)
        yield session


def _refuse_missing_folder(address: Setting) -> None:
    """A look at a log must not make one."""
    value = address.value
    if "://" in value or value == "memory:" or (Path(value) / FILE).exists():
        return
    raise NotFound(
        f"there is no log in {value} (from: {address.origin}; looked from {Path.cwd()}). Go to the folder that has it,"
        f" name it with --log FOLDER or --log kafka://HOST:PORT, or begin one: millstream serve"
    )
