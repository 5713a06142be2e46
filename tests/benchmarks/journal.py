"""Through the whole owner loop: command topic, decide, append, prove, fold into RocksDB, answer read by the client."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from millstream.events.codec import Codec
from millstream.events.daybook import EnterFlight, OpenDay
from millstream.events.logs.address import open_log
from millstream.streams.runtime.client import Client
from millstream.streams.runtime.prefix import find_topics

CLIENTS = (1, 100, 1000)
ENTER = EnterFlight("9E 1234", "JFK", "RDU", False, 12.0)
DAY = "2013-01-16"


@asynccontextmanager
async def server(address: str, prefix: str) -> AsyncIterator[None]:
    """`millstream serve` in a process of its own, until the block is left; entered when it is ready."""
    with tempfile.TemporaryDirectory(prefix="millstream-bench-server-") as folder:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "millstream"), "serve",
            "--log", address, "--prefix", prefix, "--folder", folder,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            lines = []
            while line := (await process.stdout.readline()).decode():
                lines.append(line)
                if "owns partitions" in line:
                    break
            else:
                raise SystemExit("the server ended: " + "".join(lines))
            yield
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()


async def measure(emit: Callable[..., None], kind: str, address: str, *, seconds: float) -> None:
    """`journal.commands_per_s` and `journal.p50_ms` with 1, 100 and 1000 clients, each with one command at a time."""
    prefix = f"bench-{secrets.token_hex(4)}"
    async with server(address, prefix), open_log(address) as log:
        topics = await find_topics(log, prefix)
        async with Client(log, topics, Codec()) as client:
            for clients in CLIENTS:
                await _load(client, clients, seconds=0.7)  # until everything is warm
                times = await _load(client, clients, seconds=seconds)
                emit("journal.commands_per_s", len(times) / seconds, "1/s", log=kind, clients=clients)
                emit("journal.p50_ms", statistics.median(times) * 1000, "ms", log=kind, clients=clients)


async def _load(client: Client, clients: int, *, seconds: float) -> list[float]:
    """Seconds from asking to answer, of every command within `seconds`."""
    token = secrets.token_hex(3)
    carriers = [f"{token}x{n}" for n in range(clients)]
    await asyncio.gather(*[client.ask(f"{c}-{DAY}", OpenDay(c, DAY, None)) for c in carriers])
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one(run_id: str) -> None:
        while (began := time.perf_counter()) < end:
            answer = await client.ask(run_id, ENTER)
            assert answer.accepted, answer
            times.append(time.perf_counter() - began)

    await asyncio.gather(*[one(f"{c}-{DAY}") for c in carriers])
    return times
