"""Where a test plays: a log of its own (a folder, or a prefix on a broker), and what runs on it."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from millstream.events.logs.address import open_log
from millstream.events.logs.port import Log
from millstream.events.topics import Topics
from millstream.streams.runtime.prefix import find_topics
from tests.support.commands import COMMAND, environment
from tests.support.processes import Program, Programs

_numbers = itertools.count()


class Place:
    """kind: 'embedded' or 'kafka'. partitions: of its prefix. cwd: a folder for everything else."""

    def __init__(self, kind: str, address: str, cwd: Path, *, partitions: int = 2) -> None:
        self.kind, self.address, self.cwd, self.partitions = kind, address, cwd, partitions
        # One broker has the tests of a whole run.
        self.prefix = "millstream" if kind == "embedded" else f"chaos{os.getpid()}-{next(_numbers)}"

    def __repr__(self) -> str:
        return f"Place({self.address}, {self.prefix})"

    @property
    def where(self) -> list[str]:
        return ["--log", self.address, "--prefix", self.prefix]

    @property
    def log_file(self) -> Path:
        """Of an embedded log."""
        return Path(self.address) / "log.sqlite3"

    @property
    def session_s(self) -> float:
        """The groups' session time-out that `millstream serve` uses here."""
        return 3.0 if self.kind == "embedded" else 6.0

    def folder(self, name: str) -> Path:
        return self.cwd / name

    def server(self, programs: Programs, name: str = "server", *, folder: str | None = None) -> Program:
        """`millstream serve` with a folder of its own, not started yet."""
        store = self.folder(folder or name)
        return programs.millstream(name, "serve", *self.where, "--folder", store, "--partitions", str(self.partitions))

    def kernels(self, programs: Programs, name: str = "kernels") -> Program:
        """`millstream kernels`, not started yet."""
        return programs.millstream(name, "kernels", *self.where, "--instance", name)

    @asynccontextmanager
    async def log(self) -> AsyncIterator[Log]:
        async with open_log(self.address) as log:
            yield log

    async def topics(self, log: Log) -> Topics:
        return await find_topics(log, self.prefix)

    async def run(self, *args: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`millstream ARGS` on this place, to its end."""
        return await run_millstream(*args, *self.where, cwd=self.cwd, code=code)

    async def verify(self, *folders: str) -> None:
        """All stores of these folders are what the log says, to the byte."""
        for done in await asyncio.gather(*(self.run("verify", "--folder", self.folder(f)) for f in folders)):
            assert "equal to the byte" in done.stdout
            assert "differs" not in done.stdout


async def run_millstream(
    *args: str | Path, cwd: Path, code: int | None = 0, deadline_s: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run `millstream` to its end without holding up the event loop. Never shows a traceback."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, args),
        cwd=cwd,
        env=environment(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_s):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    done = subprocess.CompletedProcess(list(args), process.returncode or 0, out.decode(), err.decode())
    assert "Traceback" not in done.stderr, done.stderr
    assert code is None or done.returncode == code, f"{done.returncode}, not {code}\n{done.stdout}\n{done.stderr}"
    return done
