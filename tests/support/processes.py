"""Processes that are killed, stopped where they are, and started again, while the test's own event loop goes on.

`commands.py` runs `millstream` and waits for it; here nothing ever blocks, so that clients
in the test's process work on while servers die.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.aio import until
from tests.support.commands import COMMAND, environment

DEADLINE_S = 60.0
STOP_S = 20.0


class Program:
    """A command line that runs, over and over. What it says is kept, a file for each start."""

    def __init__(self, name: str, command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self.name, self._command, self._cwd, self._env = name, list(command), cwd, dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def __repr__(self) -> str:
        return f"Program({self.name!r}, started {self.starts} times)"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def said(self, start: int | None = None) -> str:
        """All that one start has said, the newest by default."""
        path = self._file(self.starts if start is None else start)
        return path.read_text(errors="replace") if path.exists() else ""

    def said_ever(self) -> str:
        """All that all starts have said."""
        return "".join(self.said(n) for n in range(1, self.starts + 1))

    def start(self) -> Program:
        assert not self.running, f"{self.name} runs"
        self.starts += 1
        with self._file(self.starts).open("wb") as file:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._env, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        return self

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop it where it is (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGCONT)

    async def says(self, text: str, *, times: int = 1, deadline_s: float = DEADLINE_S) -> None:
        """Wait until its newest start has said `text`; fails where it ends, or takes too long."""

        def has_said() -> bool:
            ended = self.code
            if self.said().count(text) >= times:
                return True
            assert ended is None, f"{self.name} ended with exit code {ended} before it said {text!r}:\n{self.said()}"
            return False

        await self._until(has_said, f"{self.name} says {text!r}", deadline_s)

    async def ends(self, code: int | None = None, *, deadline_s: float = DEADLINE_S) -> str:
        """Wait for its end, and check the exit code. Returns what it said; there is never a traceback in it."""
        await self._until(lambda: not self.running, f"{self.name} ends", deadline_s)
        assert code is None or self.code == code, f"{self.name}: exit code {self.code}, expected {code}\n{self.said()}"
        assert "Traceback" not in self.said(), self.said()
        return self.said()

    async def stop(self, code: int | None = 0) -> str:
        """Ask it to end (SIGTERM), and wait."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)
        return await self.ends(code)

    def end(self) -> None:
        """However it is: gone, and waited for."""
        if self._process is None:
            return
        if self.running:
            self.thaw()
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    async def _until(self, holds: Callable[[], bool], what: str, deadline_s: float) -> None:
        try:
            await until(holds, what, deadline_s, pause_s=0.05)
        except AssertionError as failed:
            raise AssertionError(f"{failed}\n{self.name} has said:\n{self.said()}") from None

    def _file(self, start: int) -> Path:
        return self._cwd / f"said-{self.name}-{start}"


class Programs:
    """`async with Programs(folder) as programs:`; whatever was started in the block is gone after it."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.all: list[Program] = []

    def millstream(self, name: str, *args: str | Path, env: Mapping[str, str] | None = None) -> Program:
        """`millstream ARGS`, not started yet."""
        return self._add(name, [*COMMAND, *map(str, args)], env)

    def python(self, name: str, file: Path, *args: str | Path) -> Program:
        """A script of the tests, not started yet. It finds `tests` as pytest does."""
        root = str(Path(__file__).parent.parent.parent)
        return self._add(name, [sys.executable, "-P", str(file), *map(str, args)], {"PYTHONPATH": root})

    def _add(self, name: str, command: Sequence[str], env: Mapping[str, str] | None) -> Program:
        program = Program(name, command, self.cwd, {**environment(), **(env or {})})
        self.all.append(program)
        return program

    async def __aenter__(self) -> Programs:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for program in self.all:
            program.thaw()
            if program.running:
                os.kill(program.pid, signal.SIGTERM)
        for program in self.all:
            await asyncio.to_thread(program.end)
