"""A server and a client in this process, on an embedded log in a folder: for examples, trials and tests.

Nothing has to be started first. What was acknowledged is in the folder when the program
runs again, and `millstream history` and `millstream verify` read it as any other log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from millstream.events.codec import Codec
from millstream.events.logs.address import DEFAULT_FOLDER, open_log
from millstream.events.topics import DEFAULT_PREFIX
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.prefix import find_topics
from millstream.streams.runtime.server import Server


@asynccontextmanager
async def local(folder: str = DEFAULT_FOLDER, *, prefix: str = DEFAULT_PREFIX) -> AsyncIterator[Client]:
    """A client of a server that owns all partitions of the log in `folder`, which is made where it is missing.

    Raises `FolderInUse` where another server has the folder, and in the block whatever ends the server.
    """
    async with open_log(folder) as log:
        topics, codec = await find_topics(log, prefix), Codec()
        async with Server(log, topics, Path(folder) / "server" / prefix, codec=codec) as server, _watched(server):
            await server.ready()
            async with Client(log, topics, codec) as client:
                yield client


@asynccontextmanager
async def _watched(server: Server) -> AsyncIterator[None]:
    """Raise in the block what ends the server: nobody would answer any more, and the block would wait for ever."""
    block = asyncio.current_task()
    assert block is not None
    serving = asyncio.ensure_future(server.serve())
    serving.add_done_callback(lambda done: None if done.cancelled() else block.cancel())
    try:
        yield
    except asyncio.CancelledError:
        if serving.done() and not serving.cancelled() and (error := serving.exception()) is not None:
            block.uncancel()
            raise error from None
        raise
    finally:
        serving.cancel()
