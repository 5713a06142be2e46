"""Named types, and what a schema's default stands for: what reading, writing and comparing schemas share. Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from millstream.events.errors import SchemaUnreadable
from millstream.events.schema_files import Schema

_U64 = struct.Struct(">Q")


class Known(NamedTuple):
    """What this process has for a named type: its class (None: a fixed), its current schema, and how strict to be.

    follows_avro: another version is resolved by Avro's rules; else it must be ours, or older with upcasts.
    """

    cls: type | None
    schema: Schema
    follows_avro: bool

    @property
    def version(self) -> int:
        return int(self.schema.get("version", 1))


def type_name(node: Schema) -> str:
    """The type in a word: a primitive, 'array', 'map', 'union', or the full name of a record, enum or fixed."""
    if isinstance(node, list):
        return "union"
    if isinstance(node, str):
        return node
    if "name" in node:
        return str(node["name"])
    return node["type"] if isinstance(node["type"], str) else type_name(node["type"])


def enum_member(cls: type | None, symbol: str) -> Any:
    """The member of that name; a symbol without a class is its text. (A member's value may be no Avro symbol.)"""
    return cls[symbol] if cls is not None and issubclass(cls, Enum) else symbol


def is_uint64(node: Schema) -> bool:
    return isinstance(node, dict) and node.get("logicalType") == "uint64" and node.get("size") == 8


def version_of(record: Schema) -> int:
    """The property `version`; 1 where there is none. Raises `SchemaUnreadable` where it isn't a number."""
    version = record.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise SchemaUnreadable(f"the version of {record['name']} is {version!r}, and must be a whole number from 1.")
    return version


def collect_names(node: Schema, found: dict[str, Schema]) -> None:
    """Add every record, enum and fixed that the schema defines to `found`, by full name."""
    if isinstance(node, list):
        for branch in node:
            collect_names(branch, found)
    elif isinstance(node, dict):
        if "name" in node and "type" in node:
            found[node["name"]] = node
        for key in ("type", "items", "values"):
            if not isinstance(node.get(key), str):
                collect_names(node.get(key), found)
        for field in node.get("fields", ()):
            collect_names(field["type"], found)


def to_decimal(data: bytes, scale: int) -> Decimal:
    """Two's complement, big-endian, times 10 to the power of -`scale`; exact, whatever the context's precision."""
    unscaled = int.from_bytes(data, "big", signed=True)
    digits = tuple(map(int, str(abs(unscaled))))
    return Decimal((int(unscaled < 0), digits, -scale))


def default_maker(node: Schema, default: Any, known: Mapping[str, Known]) -> Callable[[], Any]:
    """Makes the value that a schema's default stands for, anew each time, so that no two records share a list.

    A union's default is of its first branch that takes it; bytes are text of code points 0 to 255.
    """
    if isinstance(node, list):
        branch = next((b for b in node if default_fits(b, default, known)), node[0])
        return default_maker(branch, default, known)
    entry = known.get(type_name(node))
    full = entry.schema if entry else node
    kind = full["type"] if isinstance(full, dict) else full
    if kind == "record" and entry and entry.cls:
        given = {f["name"]: default.get(f["name"], f.get("default")) for f in full["fields"]}
        makers = {f["name"]: default_maker(f["type"], given[f["name"]], known) for f in full["fields"]}
        cls = entry.cls
        return lambda: cls(**{name: make() for name, make in makers.items()})
    if kind == "array":
        items = [default_maker(full["items"], item, known) for item in default]
        return lambda: [make() for make in items]
    if kind == "map":
        values = {key: default_maker(full["values"], value, known) for key, value in default.items()}
        return lambda: {key: make() for key, make in values.items()}
    value = _plain_default(full, kind, default, entry)
    return lambda: value


def _plain_default(full: Schema, kind: str, default: Any, entry: Known | None) -> Any:
    if kind in ("bytes", "fixed"):
        data = default.encode("latin-1")
        if is_uint64(full):
            return _U64.unpack(data)[0]
        decimal_type = isinstance(full, dict) and full.get("logicalType") == "decimal"
        return to_decimal(data, int(full.get("scale", 0))) if decimal_type else data
    if kind == "enum":
        return enum_member(entry.cls if entry else None, default)
    return float(default) if kind in ("float", "double") else default


def default_fits(node: Schema, default: Any, known: Mapping[str, Known]) -> bool:
    """Whether `default`, as JSON gives it, is a default of this type (the outermost type only)."""
    entry = known.get(type_name(node))
    full = entry.schema if entry else node
    kind = full if isinstance(full, str) else full["type"]
    if isinstance(default, bool) or default is None:
        return bool(kind == ("boolean" if isinstance(default, bool) else "null"))
    kinds = _DEFAULT_KINDS.get(type(default), ())
    return kind in kinds


_DEFAULT_KINDS: dict[type, tuple[str, ...]] = {
    int: ("int", "long", "float", "double"),
    float: ("float", "double"),
    str: ("string", "bytes", "fixed", "enum"),
    list: ("array",),
    dict: ("map", "record"),
}
