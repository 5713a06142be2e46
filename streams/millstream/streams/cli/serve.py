"""`millstream serve`: own a share of the partitions until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from millstream.streams.cli.console import DONE, err, escape, out, plain
from millstream.streams.cli.session import Session, opened
from millstream.streams.cli.settings import Setting
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.server import Server

PARENT_POLL_S = 0.5


def release() -> str:
    """The version that is installed."""
    try:
        return version("millstream")
    except PackageNotFoundError:
        return "(not installed)"


def say(text: str) -> None:
    """A line for people who watch the server."""
    err.print(escape(text), style="yellow", markup=False)


def log_to_stderr() -> None:
    """Warnings of all libraries; what the server says through `say` isn't said twice."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("millstream.server").setLevel(logging.CRITICAL)


async def serve(
    address: Setting, prefix: str, folder: Path, partitions: int | None, *, kernels: bool, with_parent: int | None
) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code."""
    log_to_stderr()
    async with opened(address, prefix, partitions, patience_s=None) as session:
        topics = session.topics
        out.print(
            f"[bold]millstream {release()}[/]   log {plain(address.value)} ({session.log.kind})   prefix {prefix}"
            f"   {topics.partitions} partitions   stores {plain(folder)}"
        )
        server = Server(session.log, topics, folder, codec=session.codec, say=say)
        async with server:
            works = [server.serve(), _tell_claims(server)]
            if kernels:
                works.append(_kernels(session))
            await until_stopped(works, with_parent=with_parent)
        counts = server.counts
        out.print(
            f"stopped: {counts.records:,} records in {counts.batches:,} batches, {counts.claims} claims,"
            f" {counts.unknown} unknown ends"
        )
    return DONE


async def _tell_claims(server: Server) -> None:
    await server.ready()
    epochs = " ".join(f"{p}@{f.epoch_offset}" for p, f in sorted(server.fences.items()))
    out.print(f"owns partitions (number@epoch): {epochs or 'none; others have them all, and this one stands by'}")
    await asyncio.Event().wait()


async def _kernels(session: Session) -> None:
    # Not at the top: a server without kernels needs no arrays.
    from millstream.streams.cli.kernels import member

    await member(session, f"serve-{os.getpid()}-{Chance().token()}")


async def until_stopped(works: list[Coroutine[Any, Any, Any]], *, with_parent: int | None) -> None:
    """Run `works` side by side until one ends, SIGTERM or Ctrl-C comes, or the parent process is gone.

    Raises what one of them raises. A second Ctrl-C doesn't wait for a clean end.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def stopping() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping)
    tasks = [loop.create_task(work) for work in works]
    watching: list[asyncio.Task[Any]] = [loop.create_task(stop.wait())]
    if with_parent is not None:
        watching.append(loop.create_task(_gone(with_parent)))
    try:
        await asyncio.wait([*tasks, *watching], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in (*tasks, *watching):
            task.cancel()
        for task in (*tasks, *watching):
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _gone(parent: int) -> None:
    """Return when the process that started this one has ended, however it did; also if it had before we looked."""
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(PARENT_POLL_S)
