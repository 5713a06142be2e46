"""Run `millstream` as people do, in a folder, and look at what it says: to its end, or as a process that goes on."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millstream.streams.cli import console
from millstream.streams.cli.main import main

WIDTH = 200
DEADLINE_S = 60.0
COMMAND = [sys.executable, "-P", "-m", "millstream.streams.cli.main"]


def environment() -> dict[str, str]:
    """Ours without what would decide for the command where its log is; output as it comes, in a wide terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MILLSTREAM_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "COLUMNS": str(WIDTH), "MILLSTREAM_DEVICE": "cpu"}


def millstream(
    *args: str | Path, cwd: Path, stdin: bytes = b"", code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in this process, since a start of Python costs more than most of what is tested.

    With `code`, fail where it ends otherwise, showing what it said.
    """
    out, err = io.BytesIO(), io.BytesIO()
    with tempfile.TemporaryFile("w+") as given, pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd):
        for name in [name for name in os.environ if name.startswith("MILLSTREAM_")]:
            patch.delenv(name)
        patch.setattr(sys, "argv", ["millstream", *map(str, args)])
        for name, stream in (("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, io.TextIOWrapper(stream, "utf-8", write_through=True))
        patch.setattr(sys, "stdin", given)
        given.buffer.write(stdin)
        given.seek(0)
        console.out.width = console.err.width = WIDTH
        found = _main()
        texts = [stream.getvalue().decode() for stream in (out, err)]
    if code is not None:
        assert found == code, f"exit code {found}, expected {code}\n" + "\n".join(texts)
    return subprocess.CompletedProcess(list(args), found, *texts)


def _main() -> int:
    try:
        main()
    except SystemExit as end:
        return 0 if end.code is None else int(end.code)
    raise AssertionError("the command line returned without an exit code")


class Running:
    """A `millstream` that goes on; its output stands in a file that grows."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self._output = process, output

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has said `text`; fails where it ends, or takes too long."""
        self._wait(lambda: self.output.count(text) >= times, f"{text!r}")

    def ends(self, code: int | None = None) -> int:
        """Wait for its end, and check the exit code."""
        found = self.process.wait(DEADLINE_S)
        assert code is None or found == code, f"exit code {found}, expected {code}\n{self.output}"
        return found

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while not holds():
            ended = self.process.poll()
            if ended is not None and not holds():
                raise AssertionError(f"ended with exit code {ended} before it said {what}:\n{self.output}")
            if time.monotonic() > end:
                raise AssertionError(f"didn't say {what} in {DEADLINE_S:.0f} s:\n{self.output}")
            time.sleep(0.02)


@contextmanager
def running(*args: str | Path, cwd: Path, stdin: int | None = None) -> Iterator[Running]:
    """Run it beside the test; ended with the block."""
    number = len(list(cwd.glob("output-*")))
    output = cwd / f"output-{number}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=file,
            stderr=file,
        )
    try:
        yield Running(process, output)
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
