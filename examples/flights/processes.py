"""The demo's own processes: started, killed, started again, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

STOP_S = 15.0
TAIL_LINES = 15


class ProcessEnded(Exception):
    """A process ended that should have gone on. The text has the end of its log."""


class Processes:
    """`async with Processes(folder) as processes:`; what was started is stopped at the end, however that comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._starts: dict[str, int] = {}

    async def __aenter__(self) -> Processes:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, name: str, *args: str) -> int:
        """Run `millstream ARGS`, its output in `<folder>/<name>-<n>.log`. Returns the process id.

        In a session of its own, so that Ctrl-C reaches only us, and with our end as its end, should we be killed.
        """
        self._starts[name] = self._starts.get(name, 0) + 1
        with self.log_of(name).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command(*args, "--with-parent", str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._running[name] = process
        return process.pid

    async def kill(self, name: str) -> None:
        """kill -9, and wait until it is gone."""
        process = self._running.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        """Ask all to stop; kill what doesn't."""
        running, self._running = self._running, {}
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in running.values():
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()

    def check(self) -> None:
        """Raise `ProcessEnded` if one of them has ended by itself."""
        for name, process in self._running.items():
            if process.returncode is not None:
                raise ProcessEnded(
                    f"`millstream {name}` ended by itself with exit code {process.returncode}.\n{self.tail(name)}"
                )

    def log_of(self, name: str) -> Path:
        """Where its output is, of the newest start."""
        return self._folder / f"{name}-{self._starts.get(name, 1)}.log"

    def tail(self, name: str) -> str:
        """The end of its output, headed by where all of it is."""
        path = self.log_of(name)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join([f"The end of {path}:", *(f"  {line}" for line in lines[-TAIL_LINES:])])

    def tails(self) -> str:
        return "\n".join(self.tail(name) for name in self._starts)


def command(*args: str) -> list[str]:
    """`millstream ARGS` with this very Python."""
    return [sys.executable, "-P", "-m", "millstream.streams.cli.main", *args]


async def show(*args: str) -> int:
    """Run `millstream ARGS` on our own terminal; the exit code."""
    process = await asyncio.create_subprocess_exec(*command(*args), stdin=asyncio.subprocess.DEVNULL)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
