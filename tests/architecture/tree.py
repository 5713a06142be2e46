"""The checkout as files: what there is, which of it is ours to publish, and the modules by name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PORTIONS = ("events", "projections", "kernels", "streams")
_NOT_OURS = {"__pycache__", "dist"}


@cache
def files() -> tuple[Path, ...]:
    """What git tracks, and what it would if it were added; without git all files but caches. Relative to `ROOT`, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    found = [Path(name) for name in listed.stdout.decode().split("\0") if name] if listed.returncode == 0 else _walk()
    return tuple(sorted(path for path in found if (ROOT / path).is_file()))


def _walk() -> Iterator[Path]:
    for folder, names, found in os.walk(ROOT):
        names[:] = [name for name in names if not name.startswith(".") and name not in _NOT_OURS]
        yield from (Path(folder, name).relative_to(ROOT) for name in found)


def text_of(path: Path) -> str | None:
    """The file's text, or None where it is no text in UTF-8."""
    data = (ROOT / path).read_bytes()
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def pages() -> list[Path]:
    """Every page of documentation."""
    return [path for path in files() if path.suffix == ".md"]


def modules() -> dict[str, Path]:
    """'millstream.events.codec' -> 'events/millstream/events/codec.py', for every module of every portion."""
    found = {}
    for path in files():
        if path.suffix == ".py" and path.parts[0] in PORTIONS:
            parts = path.with_suffix("").parts[1:]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found
