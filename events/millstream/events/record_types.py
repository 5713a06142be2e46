"""What a struct's annotations say about its schema: the types inside it, and whether the two agree. Pure."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any

from millstream.events.avro_types import Known, collect_names, is_uint64
from millstream.events.envelope import CommandBody, Event
from millstream.events.errors import SchemaUnreadable
from millstream.events.schema_files import Schema

_PRIMITIVES: Mapping[type, tuple[str, ...]] = {
    int: ("long", "int"),
    float: ("double", "float"),
    str: ("string",),
    bool: ("boolean",),
    bytes: ("bytes",),
    type(None): ("null",),
}
_OPEN: Mapping[type, str] = {Event: "events", CommandBody: "commands"}


def find_types(cls: type, schema: Schema) -> dict[str, Known]:
    """Every named type in `schema`, with the class that the annotations of `cls` have for it.

    Raises `SchemaUnreadable` for a record or enum that no annotation mentions, and where fields differ.
    """
    by_name = {schema["name"].rpartition(".")[2]: cls} | {inner.__name__: inner for inner in _inside(cls, set())}
    named: dict[str, Schema] = {}
    collect_names(schema, named)
    found = {}
    for full_name, node in named.items():
        inner = by_name.get(full_name.rpartition(".")[2])
        if node["type"] == "record":
            if inner is None:
                raise SchemaUnreadable(
                    f"no struct inside {cls.__name__} is called {full_name}. Name one as the schema does."
                )
            differences = list(struct_differences(inner, node, named))
            if differences:
                raise SchemaUnreadable(f"{inner.__name__} and its schema {full_name} differ: {'; '.join(differences)}.")
        elif inner is None or not issubclass(inner, Enum):
            inner = None
        found[full_name] = Known(inner, node, follows_avro=True)
    return found


def _inside(cls: type, seen: set[type]) -> set[type]:
    """All structs, named tuples and enums that the annotations of `cls` lead to."""
    for hint in typing.get_type_hints(cls).values():
        for inner in _leaves(hint):
            if inner not in seen and (hasattr(inner, "__struct_fields__") or hasattr(inner, "_fields")):
                seen.add(inner)
                _inside(inner, seen)
            elif isinstance(inner, type) and issubclass(inner, Enum):
                seen.add(inner)
    return seen


def _leaves(hint: Any) -> Iterator[type]:
    arguments = typing.get_args(hint)
    if not arguments and isinstance(hint, type):
        yield hint
    for argument in arguments:
        yield from _leaves(argument)


def struct_differences(cls: type, schema: Schema, named: Mapping[str, Schema]) -> Iterator[str]:
    """What tells a struct from its schema, a text for each field: fields, their order, their types."""
    ours: list[str] = list(getattr(cls, "__struct_fields__", ()) or getattr(cls, "_fields", ()))
    theirs = [field["name"] for field in schema["fields"]]
    yield from (f"field {name!r} is in the struct only" for name in ours if name not in theirs)
    yield from (f"field {name!r} is in the schema only" for name in theirs if name not in ours)
    if sorted(ours) == sorted(theirs) and ours != theirs:
        yield f"the order of fields is {', '.join(ours)} in the struct and {', '.join(theirs)} in the schema"
    hints = typing.get_type_hints(cls)
    for field in schema["fields"]:
        if field["name"] in hints and not agrees(hints[field["name"]], field["type"], named):
            hint, written = hints[field["name"]], field["type"]
            yield f"field {field['name']!r} is {getattr(hint, '__name__', hint)} in the struct and {written} in the schema"


def agrees(hint: Any, node: Schema, named: Mapping[str, Schema]) -> bool:
    """Whether values of the annotation are what the schema's type holds."""
    if hint is Any:
        return True
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return agrees(arguments[0], node, named)
    if origin in (types.UnionType, typing.Union):
        return _union_agrees(arguments, node, named)
    if isinstance(node, str) and node in named:
        node = named[node]
    if isinstance(node, dict) and "union_of" in node:
        return bool(_OPEN.get(hint) == node["union_of"])
    kind = node if isinstance(node, str) else node["type"] if isinstance(node, dict) else "union"
    if isinstance(kind, dict | list):
        return agrees(hint, kind, named)
    if kind == "array":
        return isinstance(origin, type) and issubclass(origin, Sequence) and agrees(arguments[0], node["items"], named)
    if kind == "map":
        return isinstance(origin, type) and issubclass(origin, Mapping) and agrees(arguments[1], node["values"], named)
    return _single_agrees(hint, node, kind)


def _union_agrees(arguments: tuple[Any, ...], node: Schema, named: Mapping[str, Schema]) -> bool:
    if not isinstance(node, list) or len(node) != len(arguments):
        return False
    return all(any(agrees(argument, branch, named) for branch in node) for argument in arguments)


def _single_agrees(hint: Any, node: Schema, kind: str) -> bool:
    if not isinstance(hint, type):
        return typing.get_origin(hint) is typing.Literal and kind in ("string", "enum")
    if kind == "record":
        return bool(hint.__name__ == node["name"].rpartition(".")[2])
    if kind == "enum":
        return issubclass(hint, Enum) or hint is str
    if isinstance(node, dict) and node.get("logicalType") == "decimal":
        return hint is Decimal
    if kind == "fixed":
        return hint is (int if is_uint64(node) else bytes)
    return kind in _PRIMITIVES.get(hint, ())
