"""Where a setting comes from: the option, the environment, a file, the default; the strongest first.

A file is `[tool.millstream]` in the nearest `pyproject.toml` or `millstream.toml`
from the working folder upwards. A relative folder counts from the file that
names it; by default the log is the nearest `.millstream`.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from millstream.events.errors import Refused

FILES = ("millstream.toml", "pyproject.toml")
DEFAULT_FOLDER = ".millstream"
DEFAULT_PREFIX = "millstream"


class Setting(NamedTuple):
    """A value, and where it was found, in words."""

    value: str
    origin: str


class WrongSetting(Refused):
    """A settings file can't be read, or a setting in it is of the wrong type."""


def find_log(given: str | None, here: Path | None = None) -> Setting:
    """The log's address. A folder comes back as people would write it; relative to `here`, the working folder."""
    here = here or Path.cwd()
    if given is not None:
        return Setting(given, "--log")
    if env := os.environ.get("MILLSTREAM_LOG"):
        return Setting(env, "MILLSTREAM_LOG")
    found = _in_file("log", here)
    if found is not None:
        value, file = found
        if _is_address(value):
            return Setting(value, str(file))
        return Setting(_shown(file.parent / value, here), str(file))
    for folder in (here, *here.parents):
        if (folder / DEFAULT_FOLDER).is_dir():
            return Setting(_shown(folder / DEFAULT_FOLDER, here), "nearest folder of that name")
    return Setting(f"./{DEFAULT_FOLDER}", "default")


def find_prefix(given: str | None, here: Path | None = None) -> Setting:
    """The prefix of the topics."""
    if given is not None:
        return Setting(given, "--prefix")
    if env := os.environ.get("MILLSTREAM_PREFIX"):
        return Setting(env, "MILLSTREAM_PREFIX")
    found = _in_file("prefix", here or Path.cwd())
    return Setting(DEFAULT_PREFIX, "default") if found is None else Setting(found[0], str(found[1]))


def find_folder(given: Path | None, log: Setting, prefix: str, here: Path | None = None) -> Path:
    """The folder of a server's stores: `--folder`, `MILLSTREAM_FOLDER`, `folder` in a file, else beside the log.

    On Kafka that is the nearest `.millstream`, with a folder for each cluster: its stores are worth nothing elsewhere.
    """
    here = here or Path.cwd()
    if given is not None:
        return given
    if env := os.environ.get("MILLSTREAM_FOLDER"):
        return Path(env)
    found = _in_file("folder", here)
    if found is not None:
        return found[1].parent / found[0]
    if not _is_address(log.value):
        return Path(log.value) / "server" / prefix
    cluster = re.sub(r"[^A-Za-z0-9.]+", "-", log.value.partition("://")[2] or log.value).strip("-")
    for folder in (here, *here.parents):
        if (folder / DEFAULT_FOLDER).is_dir():
            return folder / DEFAULT_FOLDER / "server" / cluster / prefix
    return Path(DEFAULT_FOLDER) / "server" / cluster / prefix


def _is_address(value: str) -> bool:
    return "://" in value or value == "memory:"


def _shown(path: Path, here: Path) -> str:
    resolved = path.resolve()
    try:
        return f"./{resolved.relative_to(here.resolve())}"
    except ValueError:
        return str(resolved)


def _in_file(name: str, here: Path) -> tuple[str, Path] | None:
    """A setting in the nearest file that has our table, and that file."""
    for folder in (here, *here.parents):
        for file in (folder / f for f in FILES):
            table = _table(file)
            if table is None:
                continue
            value = table.get(name)
            if value is None:
                return None
            if not isinstance(value, str):
                raise WrongSetting(
                    f"{str(file)!r}: [tool.millstream] {name} = {value!r} is no text. Write it in quotes."
                )
            return value, file
    return None


def _table(file: Path) -> dict[str, Any] | None:
    try:
        with file.open("rb") as opened:
            table = tomllib.load(opened).get("tool", {}).get("millstream")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{str(file)!r} can't be read: {error}. Mend it, or name the log with --log.") from error
    except OSError:
        return None
    if table is not None and not isinstance(table, dict):
        raise WrongSetting(
            f"{str(file)!r}: tool.millstream is no table. Write [tool.millstream], and log = ... below it."
        )
    return table
