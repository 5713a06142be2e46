"""The schemas in the folder `schemas`, and the table of structs that they are for. Pure but for reading those files.

One file is one record at one version, `DayOpened.v1.avsc`. It names other
records by full name ("millstream.Figures") and the two open unions by
placeholder ({"union_of": "events"}); `compose` puts in what they stand for,
from the table of classes. So a new event needs a struct and a file, and no
edit of `Transition`. A released file is never edited (see `schema_check`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from types import ModuleType
from typing import Any

from millstream.events import daybook, envelope, flight, kernel, monthbook, run
from millstream.events.envelope import CommandBody, Event
from millstream.events.errors import SchemaUnreadable

Schema = Any
"""A schema as JSON gives it: a name, a list (union), or an object."""

NAMESPACE = "millstream"
NOUNS: tuple[ModuleType, ...] = (run, daybook, monthbook)
"""Where events and commands are looked for. A new noun is a new entry at the end."""

JOURNAL: tuple[type, ...] = (envelope.OwnershipClaimed, envelope.GapAccepted, envelope.Transition, envelope.Command)
STREAMS: tuple[type, ...] = (flight.Flight, flight.DayReport)
OTHERS: tuple[type, ...] = (envelope.Fence, kernel.KernelCalled, kernel.DeadLetter)
PARTS: tuple[type, ...] = (envelope.Sent, envelope.Origin, daybook.Figures, kernel.Array)
"""Structs that stand in others only."""

TOP_LEVEL = JOURNAL + STREAMS + OTHERS
"""Records that are written by themselves."""

_FILE = re.compile(r"([A-Z][A-Za-z0-9]*)\.v([1-9][0-9]*)\.avsc")
_NAMED = frozenset({"record", "enum", "fixed", "error"})
PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def _of_kind(base: type) -> tuple[type, ...]:
    return tuple(
        cls
        for module in NOUNS
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, base) and cls.__module__ == module.__name__
    )


EVENTS: tuple[type[Event], ...] = _of_kind(Event)
COMMANDS: tuple[type[CommandBody], ...] = _of_kind(CommandBody)
UNIONS: Mapping[str, tuple[type, ...]] = {"events": EVENTS, "commands": COMMANDS}
CLASSES: Mapping[str, type] = {f"{NAMESPACE}.{cls.__name__}": cls for cls in (*TOP_LEVEL, *PARTS, *EVENTS, *COMMANDS)}
"""Every struct that has a schema file, by full name."""

FOLLOWS_AVRO = frozenset(f"{NAMESPACE}.{cls.__name__}" for cls in STREAMS)
"""Records of streams: a reader of another version resolves them by Avro's rules. All others it must know (rule 4)."""


def read_files(folder: Any = None) -> dict[tuple[str, int], Schema]:
    """All schemas by (short name, version). Raises `SchemaUnreadable` naming the file that isn't one."""
    root = folder or resources.files("millstream.events") / "schemas"
    found = {}
    for file in sorted(root.iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".avsc"):
            continue
        match = _FILE.fullmatch(file.name)
        if not match:
            raise SchemaUnreadable(
                f"{file.name}: the name must be <Record>.v<version>.avsc, such as DayOpened.v1.avsc."
            )
        name, version = match[1], int(match[2])
        found[name, version] = _checked(file.name, file.read_text("utf-8"), name, version)
    return found


def _checked(file: str, text: str, name: str, version: int) -> Schema:
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise SchemaUnreadable(f"{file}: not JSON: {error}.") from error
    expected = {"name": f"{NAMESPACE}.{name}", "version": version}
    for key, value in expected.items():
        if not isinstance(schema, dict) or schema.get(key) != value:
            raise SchemaUnreadable(f"{file}: {key!r} must be {value!r}, as the file's name says.")
    return schema


@cache
def files() -> dict[tuple[str, int], Schema]:
    """The schemas that this release ships with. Not to be changed."""
    return read_files()


def current_version(name: str, schemas: Mapping[tuple[str, int], Schema] | None = None) -> int:
    """The newest version of the record `name` (short). Raises `SchemaUnreadable` where there is no file."""
    versions = [v for n, v in (schemas if schemas is not None else files()) if n == name]
    if not versions:
        raise SchemaUnreadable(f"there is no schema file {name}.v1.avsc. Add it to the folder schemas.")
    return max(versions)


def expand_unions(node: Schema) -> Schema:
    """The schema with each placeholder replaced by the list of names that it stands for."""
    if isinstance(node, list):
        return [expand_unions(branch) for branch in node]
    if not isinstance(node, dict):
        return node
    if "union_of" in node:
        return [f"{NAMESPACE}.{cls.__name__}" for cls in UNIONS[node["union_of"]]]
    return {
        key: expand_unions(value) if key in ("type", "items", "values") else _fields(key, value)
        for key, value in node.items()
    }


def _fields(key: str, value: Any) -> Any:
    return [expand_unions(field) for field in value] if key == "fields" else value


def compose(name: str, version: int | None = None) -> Schema:
    """The whole schema of the record `name` (short), readable by any Avro tool without the other files.

    A record stands at its first use, its name at the later ones, as Avro demands. What is
    referred to is taken at its current version.
    """
    schema = files()[name, version or current_version(name)]
    return _inline(expand_unions(schema), set())


def _inline(node: Schema, defined: set[str]) -> Schema:
    if isinstance(node, list):
        return [_inline(branch, defined) for branch in node]
    if isinstance(node, str):
        if node in PRIMITIVES or node in defined:
            return node
        short = node.removeprefix(f"{NAMESPACE}.")
        return _inline(expand_unions(files()[short, current_version(short)]), defined)
    if node["type"] in _NAMED:
        defined.add(node["name"])
    composed = dict(node)
    for key in ("items", "values"):
        if key in node:
            composed[key] = _inline(node[key], defined)
    if "fields" in node:
        composed["fields"] = [{**field, "type": _inline(field["type"], defined)} for field in node["fields"]]
    elif not isinstance(node["type"], str):
        composed["type"] = _inline(node["type"], defined)
    return composed


def shipped() -> Iterator[Schema]:
    """The composed schemas of all top-level records, each version that has a file, the current one last."""
    for cls in TOP_LEVEL:
        for version in range(1, current_version(cls.__name__) + 1):
            if (cls.__name__, version) in files():
                yield compose(cls.__name__, version)
