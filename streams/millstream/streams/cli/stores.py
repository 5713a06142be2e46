"""The stores of a server's folder, for verbs that look at them from outside while the server goes on, or without it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from millstream.streams.cli.console import NoServer, NotFound
from millstream.streams.runtime.clock import Chance
from millstream.streams.runtime.folder import ServerFolder

CHECKPOINT_WAIT_S = 30.0
POLL_S = 0.05


def store_paths(folder: Path) -> dict[int, Path]:
    """Partition -> store, as far as the folder has one."""
    stores = folder / "store"
    found = [p for p in stores.iterdir() if p.name.isdigit()] if stores.is_dir() else []
    return {int(p.name): p for p in sorted(found, key=lambda p: int(p.name))}


def wanted(folder: Path, partition: int | None) -> list[int]:
    """The partitions that a verb is about. Raises `NotFound` where the folder has none, or not this one."""
    found = store_paths(folder)
    if not found:
        raise NotFound(
            f"there are no stores in {str(folder)!r}. Where a server keeps them is said when it starts; name that with"
            f" --folder. A server that has never run here has none: millstream serve"
        )
    if partition is None:
        return list(found)
    if partition not in found:
        raise NotFound(
            f"the folder {str(folder)!r} has no store of partition {partition}; it has {_listed(list(found))}."
        )
    return [partition]


@asynccontextmanager
async def frozen_stores(folder: Path) -> AsyncIterator[dict[int, Path]]:
    """Stores that nobody writes to: copies made by the live server, or a stopped server's own. Open them read-only.

    Raises `NoServer` where something holds the folder and makes no copies.
    """
    here = ServerFolder(folder, since="")
    if not here.held:
        yield store_paths(folder)
        return
    target = here.request_checkpoint(Chance())
    try:
        await _made(here, target)
        # A partition that the server doesn't own any more has a store that nobody writes to.
        copies = {int(p.name): p for p in target.iterdir()} if target.is_dir() else {}
        yield store_paths(folder) | copies
    finally:
        target.with_suffix(".request").unlink(missing_ok=True)
        target.with_suffix(".done").unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)


async def _made(here: ServerFolder, target: Path) -> None:
    done, loop = target.with_suffix(".done"), asyncio.get_running_loop()
    deadline = loop.time() + CHECKPOINT_WAIT_S
    while not done.exists():
        if not here.held:
            raise NoServer(f"the server that held {str(here.path)!r} ended before it had copied its stores. Ask again.")
        if loop.time() > deadline:
            raise NoServer(
                f"a process holds {str(here.path)!r} and has not copied its stores within {CHECKPOINT_WAIT_S:.0f} s."
                f" It may be stopped (state T), or on a full disk. Look at it, or stop it and ask again."
            )
        await asyncio.sleep(POLL_S)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
