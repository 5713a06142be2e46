"""A disk of a few megabytes, to be filled, or made read-only. Skips the test where this user may mount nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A file system of its own at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave not a byte free."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        ballast.write(bytes(size))
                except OSError:
                    continue

    def make_room(self) -> None:
        (self.path / "ballast").unlink(missing_ok=True)

    def make_read_only(self, yes: bool = True) -> None:
        _mount("-o", f"remount,{'ro' if yes else 'rw'}", str(self.path))


@contextmanager
def small_disk(path: Path, size_mb: int) -> Iterator[Disk]:
    path.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        pytest.skip(f"a disk of our own can't be mounted here (user {os.getuid()}): {why}")
    try:
        yield Disk(path)
    finally:
        # Lazily: a process that a failed test leaves is ended by others, and must not keep the disk for ever.
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)


def _mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True, capture_output=True, text=True)
