"""Avro binary to records: one function for each writer schema, put together once. Pure.

A record is read straight into its struct, with no dict between where the writer's
fields are the struct's. An older version goes through the upcasts; a stream's
record of any other version is resolved by Avro's rules (fields by name or alias,
defaults for what is missing, promotions); anything else that this release doesn't
know stops the reader, but only when such a record really comes.

Functions get a `BytesIO` whose bytes end in one byte too many. Whoever reads past
the end, or is told a negative length (which reads all there is), takes that byte
too, and the caller sees it by the position. So the leaves need no checks of their
own, a length can't make anybody allocate more than the bytes that are there, and
an array can't be longer than its bytes, since items that take none are refused.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import repeat
from operator import call
from typing import Any, NamedTuple, NoReturn

from millstream.events.avro_types import (
    Known,
    collect_names,
    default_maker,
    enum_member,
    is_uint64,
    to_decimal,
    type_name,
    version_of,
)
from millstream.events.errors import NewerFormat, SchemaIncompatible, SchemaUnreadable, Undecodable
from millstream.events.schema_files import Schema
from millstream.events.upcast import Upcasts

Read = Callable[[BytesIO], Any]


class Leaves(NamedTuple):
    """Readers of the primitive types; fastavro's compiled ones, or those below."""

    long: Read
    string: Read
    bytes: Read
    boolean: Read
    float: Read
    double: Read


_F32 = struct.Struct("<f")
_F64 = struct.Struct("<d")
_U64 = struct.Struct(">Q")


def read_long(fo: BytesIO) -> int:
    """Zig-zag, 7 bits a byte, lowest first. Raises `IndexError` at the end, `ValueError` over 64 bits."""
    n = shift = 0
    while True:
        byte = fo.read(1)[0]
        n |= (byte & 127) << shift
        if byte < 128:
            return (n >> 1) ^ -(n & 1)
        shift += 7
        if shift > 63:
            raise ValueError("a number takes more than 64 bits")


def read_bytes(fo: BytesIO) -> bytes:
    return fo.read(read_long(fo))


PYTHON_LEAVES = Leaves(
    long=read_long,
    string=lambda fo: fo.read(read_long(fo)).decode(),
    bytes=read_bytes,
    boolean=lambda fo: fo.read(1)[0] != 0,
    float=lambda fo: _F32.unpack(fo.read(4))[0],
    double=lambda fo: _F64.unpack(fo.read(8))[0],
)


def read_uint64(fo: BytesIO) -> int:
    return _U64.unpack(fo.read(8))[0]  # type: ignore[no-any-return]


def compile_reader(schema: Schema, known: Mapping[str, Known], upcasts: Upcasts, leaves: Leaves) -> Read:
    """A function that reads what was written with `schema`, into the classes of `known` (full name -> type).

    With no `known` at all, records are read as dicts. Raises `SchemaUnreadable` for schemas that
    can't be read safely. The function raises `NewerFormat`, `SchemaIncompatible`, or anything at
    all for bytes that aren't of the schema.
    """
    return _Compiler(schema, known, upcasts, leaves).reader(schema, None)


class _Compiler:
    """One writer schema on its way to a function."""

    def __init__(self, schema: Schema, known: Mapping[str, Known], upcasts: Upcasts, leaves: Leaves) -> None:
        self.known, self.upcasts, self.leaves = known, upcasts, leaves
        self.written: dict[str, Schema] = {}
        self.done: dict[str, Read] = {}
        collect_names(schema, self.written)

    def reader(self, w: Schema, r: Schema | None) -> Read:
        """Reads a value written as `w`, as the type `r` (None: as it is written)."""
        if isinstance(w, list):
            return self.union(w, r)
        if isinstance(r, list):
            r = next((branch for branch in r if self.fits(w, branch)), r)
        unknown = bool(self.known) and type_name(w) in self.written and type_name(w) not in self.known
        if r is not None and not unknown and not self.fits(w, r):
            return stop(SchemaIncompatible, f"{type_name(w)} was written where {type_name(r)} is expected")
        if isinstance(w, str) and w in self.written:
            return self.named(self.written[w], r)
        kind = w if isinstance(w, str) else w["type"]
        if kind in ("record", "error", "enum", "fixed"):
            return self.named(w, r)
        if kind == "array":
            return self.array(w["items"], r["items"] if isinstance(r, dict) else None)
        if kind == "map":
            return self.map(w["values"], r["values"] if isinstance(r, dict) else None)
        if not isinstance(kind, str):
            return self.reader(kind, r)
        return self.primitive(w, kind, r)

    def primitive(self, w: Schema, kind: str, r: Schema | None) -> Read:
        if kind == "null":
            return lambda fo: None
        leaf: Read = self.leaves.long if kind == "int" else getattr(self.leaves, kind)
        if isinstance(w, dict) and w.get("logicalType") == "decimal":
            return decimal(leaf, int(w.get("scale", 0)))
        promote = _PROMOTIONS.get((kind, r if isinstance(r, str) or r is None else r["type"]))
        return leaf if promote is None else lambda fo: promote(leaf(fo))

    def fits(self, w: Schema, r: Schema) -> bool:
        """Whether something written as `w` can be read as `r`, as far as the outermost type tells."""
        if isinstance(r, list) or isinstance(w, list):
            return isinstance(w, list) or any(self.fits(w, branch) for branch in r)
        w_name, r_name = type_name(w), type_name(r)
        return w_name == r_name or (w_name, r_name) in _PROMOTIONS or {w_name, r_name} == {"int", "long"}

    def union(self, branches: Schema, r: Schema | None) -> Read:
        reads = [self.reader(branch, r) for branch in branches]
        long = self.leaves.long
        if len(reads) == 2 and "null" in branches and self.fits("null", "null" if r is None else r):
            null = branches.index("null")
            return optional(long, null, reads[1 - null])
        by_index = dict(enumerate(reads))  # a list would take index -1 for its last
        return lambda fo: by_index[long(fo)](fo)

    def array(self, items: Schema, r: Schema | None) -> Read:
        if not self.takes_bytes(items, frozenset()):
            raise SchemaUnreadable(
                f"an array of {type_name(items)} whose items take no bytes can't be read safely:"
                f" eight bytes could claim any number of items. Give the items a field."
            )
        return array(self.leaves.long, self.reader(items, r))

    def map(self, values: Schema, r: Schema | None) -> Read:
        read, leaves = self.reader(values, r), self.leaves

        def read_map(fo: BytesIO) -> dict[str, Any]:
            found = {}
            while count := leaves.long(fo):
                if count < 0:
                    count = -count
                    leaves.long(fo)
                for _ in range(count):
                    key = leaves.string(fo)
                    found[key] = read(fo)
            return found

        return read_map

    def takes_bytes(self, node: Schema, above: frozenset[str]) -> bool:
        """Whether every value of the type takes at least one byte."""
        node = self.written.get(node, node) if isinstance(node, str) else node
        if not isinstance(node, dict):
            return bool(node != "null")
        if not isinstance(node["type"], str):
            return self.takes_bytes(node["type"], above)
        if node["type"] in ("record", "error"):
            inside = above | {node["name"]}
            return node["name"] in above or any(self.takes_bytes(f["type"], inside) for f in node["fields"])
        return bool(node["type"] != "null" and (node["type"] != "fixed" or node["size"] > 0))

    def named(self, w: Schema, r: Schema | None) -> Read:
        if w["type"] == "fixed":
            size = int(w["size"])
            plain: Read = lambda fo: fo.read(size)  # noqa: E731 (one of two forms)
            if w.get("logicalType") == "decimal":
                return decimal(plain, int(w.get("scale", 0)))
            return read_uint64 if is_uint64(w) else plain
        if w["type"] == "enum":
            return self.enum(w, r)
        name = w["name"]
        if name not in self.done:
            # A record may hold itself: until it is done, its name stands for a call of what it will be.
            self.done[name] = lambda fo: self.done[name](fo)
            self.done[name] = self.record(w)
        return self.done[name]

    def enum(self, w: Schema, r: Schema | None) -> Read:
        known = self.known.get(w["name"])
        cls = known.cls if known else None
        ours = known.schema["symbols"] if known else w["symbols"]
        default = known.schema.get("default") if known else None
        values: dict[int, Any] = {}
        for index, symbol in enumerate(w["symbols"]):
            chosen = symbol if symbol in ours else default
            if chosen is not None:
                values[index] = enum_member(cls, chosen)
        long, symbols = self.leaves.long, w["symbols"]

        def read_enum(fo: BytesIO) -> Any:
            index = long(fo)
            if index not in values and 0 <= index < len(symbols):
                raise SchemaIncompatible(
                    f"the symbol {symbols[index]!r} of {w['name']} isn't known here, and the enum has no default."
                    f" It was written by a newer release: upgrade this process."
                )
            return values[index]

        return read_enum

    def record(self, w: Schema) -> Read:
        name, fields = w["name"], w["fields"]
        if not self.known:
            return _to_dict([f["name"] for f in fields], [self.reader(f["type"], None) for f in fields])
        known = self.known.get(name)
        version = version_of(w)
        if known is None or known.cls is None:
            return stop(NewerFormat, f"{name} version {version} isn't known to this release. Upgrade this process")
        if version > known.version and not known.follows_avro:
            return stop(
                NewerFormat,
                f"{name} was written at version {version}, and this release knows it up to {known.version}."
                f" Upgrade this process; nothing was skipped",
            )
        steps = []
        for v in range(version, known.version):
            step = self.upcasts.get((name.rpartition(".")[2], v))
            if step is None and not known.follows_avro:
                return stop(Undecodable, f"there is no upcast from {name} version {v} to {v + 1}. Restore its row")
            steps += [step] if step else []
        return self.builder(name, known, self.as_written(fields) if steps else self.matched(fields, known), steps)

    def as_written(self, fields: list[Schema]) -> list[tuple[str | None, Read]]:
        return [(field["name"], self.reader(field["type"], None)) for field in fields]

    def matched(self, fields: list[Schema], known: Known) -> list[tuple[str | None, Read]]:
        """For each written field the name of ours (None: read and dropped) and how to read it."""
        ours = {f["name"]: f for f in known.schema["fields"]}
        aliases = {alias: f for f in known.schema["fields"] for alias in f.get("aliases", ())}
        reads: list[tuple[str | None, Read]] = []
        for field in fields:
            mine = ours.get(field["name"]) or aliases.get(field["name"])
            if mine is not None:
                reads.append((mine["name"], self.reader(field["type"], mine["type"])))
            else:
                # What is dropped is read as plain values: it may hold records that nobody here knows.
                plain = _Compiler({}, {}, {}, self.leaves)
                plain.written = self.written
                reads.append((None, plain.reader(field["type"], None)))
        return reads

    def builder(self, name: str, known: Known, reads: list[tuple[str | None, Read]], steps: list[Any]) -> Read:
        cls = known.cls
        assert cls is not None
        names = [target for target, _ in reads]
        if not steps and names == positional_fields(cls):
            return into(cls, [read for _, read in reads])
        fills = {
            f["name"]: default_maker(f["type"], f["default"], self.known)
            for f in known.schema["fields"]
            if "default" in f and f["name"] not in names
        }
        missing = [n for n in required_fields(cls) if n not in names and n not in fills]
        if missing and not steps:
            return stop(
                SchemaIncompatible,
                f"{name} was written without {', '.join(map(repr, missing))}, which has no default here."
                f" Give the field a default in the schema",
            )
        return _through_dict(cls, reads, steps, fills)


def _to_dict(names: list[str], reads: list[Read]) -> Read:
    return lambda fo: dict(zip(names, [read(fo) for read in reads], strict=True))


def _through_dict(
    cls: type, reads: list[tuple[str | None, Read]], steps: list[Any], fills: dict[str, Callable[[], Any]]
) -> Read:
    def read_record(fo: BytesIO) -> Any:
        values = {}
        for target, read in reads:
            value = read(fo)
            if target is not None:
                values[target] = value
        for step in steps:
            values = step(values)
        for target, make in fills.items():
            if target not in values:
                values[target] = make()
        return cls(**values)

    return read_record


def into(cls: Callable[..., Any], reads: list[Read]) -> Read:
    """Reads each field in order and builds `cls` from them.

    Written out by number of fields: a loop costs a frame and a list, a sixth of a transition's time.
    """
    match reads:
        case []:
            return lambda fo: cls()
        case [a]:
            return lambda fo: cls(a(fo))
        case [a, b]:
            return lambda fo: cls(a(fo), b(fo))
        case [a, b, c]:
            return lambda fo: cls(a(fo), b(fo), c(fo))
        case [a, b, c, d]:
            return lambda fo: cls(a(fo), b(fo), c(fo), d(fo))
        case [a, b, c, d, e]:
            return lambda fo: cls(a(fo), b(fo), c(fo), d(fo), e(fo))
        case [a, b, c, d, e, f]:
            return lambda fo: cls(a(fo), b(fo), c(fo), d(fo), e(fo), f(fo))
        case [a, b, c, d, e, f, g]:
            return lambda fo: cls(a(fo), b(fo), c(fo), d(fo), e(fo), f(fo), g(fo))
    several = tuple(reads)
    return lambda fo: cls(*map(call, several, repeat(fo)))


def optional(long: Read, null: int, read: Read) -> Read:
    """A union of null and one other type."""
    other = 1 - null

    def read_optional(fo: BytesIO) -> Any:
        index = long(fo)
        if index == null:
            return None
        if index == other:
            return read(fo)
        raise ValueError(f"a union of two has no branch {index}")

    return read_optional


def array(long: Read, read: Read) -> Read:
    """Blocks of items; a negative count is followed by the block's size in bytes. A count of 0 ends it."""

    def read_array(fo: BytesIO) -> list[Any]:
        items: list[Any] = []
        while count := long(fo):
            if count == 1:
                items.append(read(fo))
                continue
            if count < 0:
                count = -count
                long(fo)
            items += [read(fo) for _ in range(count)]
        return items

    return read_array


def decimal(leaf: Read, scale: int) -> Read:
    return lambda fo: to_decimal(leaf(fo), scale)


def stop(error: type[Exception], text: str) -> Read:
    """A reader that stops: such a record can't be read, and must not be skipped."""

    def refuse(fo: BytesIO) -> NoReturn:
        raise error(f"{text}.")

    return refuse


def _same(value: Any) -> Any:
    return value


_PROMOTIONS: dict[tuple[str, Any], Callable[[Any], Any]] = {
    ("int", "float"): float,
    ("int", "double"): float,
    ("long", "float"): float,
    ("long", "double"): float,
    ("float", "double"): _same,
    ("string", "bytes"): str.encode,
    ("bytes", "string"): bytes.decode,
}


def positional_fields(cls: type) -> list[str] | None:
    """The fields of a struct or named tuple in the order of its constructor; None where it takes names only."""
    parameters = inspect.signature(cls).parameters.values()
    if any(p.kind not in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY) for p in parameters):
        return None
    return [p.name for p in parameters]


def required_fields(cls: type) -> list[str]:
    return [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
