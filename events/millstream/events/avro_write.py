"""Records to Avro binary: one function for each schema, put together once. Pure.

A struct's attributes are fetched in one call and each goes through the function
of its field; what they return is joined. Nothing is looked up by name when a
record is written. Bytes are the same as any Avro writer's: arrays as one block,
shortest numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import Any

from millstream.events.avro_types import Known, collect_names, is_uint64, type_name
from millstream.events.errors import SchemaUnreadable, Unencodable
from millstream.events.schema_files import Schema

Write = Callable[[Any], bytes]

# Two bytes at a time from tables: a time in ms is six bytes, and a loop over them takes twice as long.
_CONTINUED = [bytes((n & 127 | 128, n >> 7 | 128)) for n in range(1 << 14)]
_LAST = [bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(1 << 14)]
_UNSIGNED_MAX = (1 << 64) - 1
_F32 = struct.Struct("<f")
_F64 = struct.Struct("<d")
_U64 = struct.Struct(">Q")


def write_long(value: int) -> bytes:
    """Zig-zag, 7 bits a byte, lowest first. Raises `OverflowError` over 64 bits, `TypeError` for what is no integer."""
    n = value << 1 if value >= 0 else ~(value << 1)
    if n < 16_384:
        if n < 0:  # an array library's integer that overflowed in the shift
            raise OverflowError("it overflowed; give a Python int")
        return _LAST[n]
    if n < 268_435_456:
        return _CONTINUED[n & 16_383] + _LAST[n >> 14]
    if n < 4_398_046_511_104:
        return _CONTINUED[n & 16_383] + _CONTINUED[n >> 14 & 16_383] + _LAST[n >> 28]
    if n > _UNSIGNED_MAX:
        raise OverflowError(f"{value} doesn't fit in 64 bits with sign")
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def write_int(value: int) -> bytes:
    if not -(1 << 31) <= value < 1 << 31:
        raise OverflowError(f"{value} doesn't fit in 32 bits with sign")
    return write_long(value)


def write_string(value: str) -> bytes:
    data = value.encode()
    n = len(data)
    return (_LAST[n + n] if n < 8192 else write_long(n)) + data


def write_bytes(value: bytes) -> bytes:
    n = len(value)
    return (_LAST[n + n] if n < 8192 else write_long(n)) + value


def write_boolean(value: bool) -> bytes:
    if value is True:
        return b"\x01"
    if value is False:
        return b"\x00"
    raise TypeError(f"{value!r} is neither True nor False")


_PRIMITIVES: dict[str, Write] = {
    "null": lambda value: b"",
    "boolean": write_boolean,
    "int": write_int,
    "long": write_long,
    "float": _F32.pack,
    "double": _F64.pack,
    "bytes": write_bytes,
    "string": write_string,
}


def compile_writer(schema: Schema, known: Mapping[str, Known]) -> Write:
    """A function from a record to its bytes. `schema` is whole: it defines what it names.

    Raises `SchemaUnreadable` for a union whose branches can't be told apart, and for names of no class.
    The function raises `Unencodable`, naming record and field, for what the schema can't hold.
    """
    return _Compiler(schema, known).writer(schema)


class _Compiler:
    def __init__(self, schema: Schema, known: Mapping[str, Known]) -> None:
        self.known = known
        self.defined: dict[str, Schema] = {}
        self.done: dict[str, Write] = {}
        collect_names(schema, self.defined)

    def writer(self, node: Schema) -> Write:
        if isinstance(node, list):
            return self.union(node)
        if isinstance(node, str) and node in self.defined:
            return self.named(self.defined[node])
        kind = node if isinstance(node, str) else node["type"]
        if not isinstance(kind, str):
            return self.writer(kind)
        if kind in ("record", "error", "enum", "fixed"):
            return self.named(node)
        if kind == "array":
            return array(self.writer(node["items"]))
        if kind == "map":
            return mapping(self.writer(node["values"]))
        if isinstance(node, dict) and node.get("logicalType") == "decimal":
            return decimal(int(node.get("scale", 0)), None)
        return _PRIMITIVES[kind]

    def named(self, node: Schema) -> Write:
        name = node["name"]
        if node["type"] == "fixed":
            return self.fixed(node)
        if node["type"] == "enum":
            return enum(node["symbols"])
        if name not in self.done:
            # A record may hold itself: until it is done, its name stands for a call of what it will be.
            self.done[name] = lambda value: self.done[name](value)
            self.done[name] = self.record(node)
        return self.done[name]

    def fixed(self, node: Schema) -> Write:
        if is_uint64(node):
            return _U64.pack
        if node.get("logicalType") == "decimal":
            return decimal(int(node.get("scale", 0)), int(node["size"]))
        return fixed(node)

    def record(self, node: Schema) -> Write:
        known = self.known.get(node["name"])
        if known is None or known.cls is None:
            raise SchemaUnreadable(f"no class is known for the record {node['name']}. Register it first.")
        names = [field["name"] for field in node["fields"]]
        absent = [name for name in names if not hasattr(known.cls, name)]
        if absent:
            raise SchemaUnreadable(
                f"{known.cls.__name__} has no field {', '.join(map(repr, absent))}, which its schema {node['name']} has."
                f" Mend one of the two."
            )
        return record(known.cls.__name__, names, [self.writer(field["type"]) for field in node["fields"]])

    def union(self, branches: list[Schema]) -> Write:
        writes = [self.writer(branch) for branch in branches]
        if len(branches) == 2 and "null" in branches:
            null = branches.index("null")
            return optional(_LAST[2 * null], _LAST[2 * (1 - null)], writes[1 - null])
        by_type: dict[type, tuple[bytes, Write]] = {}
        for i, branch in enumerate(branches):
            for cls in self.classes(branch):
                if cls in by_type:
                    raise SchemaUnreadable(
                        f"the union of {', '.join(map(type_name, branches))} has two branches for a Python {cls.__name__}:"
                        f" a value could be either. Leave one out."
                    )
                by_type[cls] = (write_long(i), writes[i])
        return union(by_type, ", ".join(map(type_name, branches)))

    def classes(self, branch: Schema) -> tuple[type, ...]:
        """The Python types whose values belong to this branch of a union."""
        full = self.defined.get(branch, branch) if isinstance(branch, str) else branch
        kind = full if isinstance(full, str) else full["type"]
        known = self.known.get(type_name(full))
        if known and known.cls:
            return (known.cls,)
        if isinstance(full, dict) and full.get("logicalType") == "decimal":
            return (Decimal,)
        return (int,) if is_uint64(full) else _PYTHON_TYPES[kind]


_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (float,),
    "double": (float,),
    "bytes": (bytes,),
    "fixed": (bytes,),
    "string": (str,),
    "enum": (str,),
    "array": (list, tuple),
    "map": (dict,),
    "record": (),
}


def record(cls_name: str, names: list[str], writes: list[Write]) -> Write:
    if not names:
        return lambda value: b""
    fetch = attrgetter(*names) if len(names) > 1 else None
    if fetch is None:
        get, (write,) = attrgetter(names[0]), writes
        plain: Write = lambda value: write(get(value))  # noqa: E731 (one of several forms)
    else:
        plain = joined(fetch, writes)

    def write_record(value: Any) -> bytes:
        try:
            return plain(value)
        except _MISFITS as error:
            raise _blamed(cls_name, names, writes, value, error) from error

    return write_record


def joined(fetch: Callable[[Any], tuple[Any, ...]], writes: list[Write]) -> Write:
    """Writes what `fetch` returns, field by field. The usual numbers of fields are written out: a loop costs a frame."""
    join = b"".join
    if len(writes) == 4:
        a, b, c, d = writes

        def write_four(value: Any) -> bytes:
            w, x, y, z = fetch(value)
            return join((a(w), b(x), c(y), d(z)))

        return write_four
    if len(writes) == 6:
        a, b, c, d, e, f = writes

        def write_six(value: Any) -> bytes:
            u, v, w, x, y, z = fetch(value)
            return join((a(u), b(v), c(w), d(x), e(y), f(z)))

        return write_six
    if len(writes) == 7:
        a, b, c, d, e, f, g = writes

        def write_seven(value: Any) -> bytes:
            t, u, v, w, x, y, z = fetch(value)
            return join((a(t), b(u), c(v), d(w), e(x), f(y), g(z)))

        return write_seven
    return lambda value: join([write(field) for write, field in zip(writes, fetch(value), strict=True)])


_MISFITS = (TypeError, ValueError, AttributeError, KeyError, OverflowError, struct.error, RecursionError)


def _blamed(cls_name: str, names: list[str], writes: list[Write], value: Any, error: Exception) -> Unencodable:
    """Find the field that can't be written, on the slow path only."""
    for name, write in zip(names, writes, strict=True):
        try:
            write(getattr(value, name))
        except Unencodable as inner:
            return inner
        except _MISFITS as inner:
            shown = repr(getattr(value, name, "(missing)"))
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            return Unencodable(
                f"{cls_name}.{name} = {shown} can't be written: {inner}. Nothing was written; give it a value of its type."
            )
    return Unencodable(f"{type(value).__name__} can't be written as {cls_name}: {error}. Nothing was written.")


def optional(null: bytes, other: bytes, write: Write) -> Write:
    return lambda value: null if value is None else other + write(value)


def union(by_type: dict[type, tuple[bytes, Write]], names: str) -> Write:
    def write_union(value: Any) -> bytes:
        found = by_type.get(type(value))
        if found is None:
            found = next((entry for cls, entry in by_type.items() if isinstance(value, cls)), None)
        if found is None and isinstance(value, int) and float in by_type:
            found = by_type[float]
        if found is None:
            raise TypeError(f"a {type(value).__name__} is none of {names}")
        return found[0] + found[1](value)

    return write_union


def array(write: Write) -> Write:
    def write_array(values: Sequence[Any]) -> bytes:
        if len(values) == 1:
            return b"\x02" + write(values[0]) + b"\x00"
        if not len(values):
            return b"\x00"
        return b"".join([write_long(len(values)), *[write(value) for value in values], b"\x00"])

    return write_array


def mapping(write: Write) -> Write:
    def write_map(values: Mapping[str, Any]) -> bytes:
        if not values:
            return b"\x00"
        items = [write_string(key) + write(value) for key, value in values.items()]
        return b"".join([write_long(len(values)), *items, b"\x00"])

    return write_map


def enum(symbols: list[str]) -> Write:
    by_symbol = {symbol: write_long(i) for i, symbol in enumerate(symbols)}
    return lambda value: by_symbol[value.name if isinstance(value, Enum) else value]


def fixed(node: Schema) -> Write:
    size = node["size"]

    def write_fixed(value: bytes) -> bytes:
        if len(value) != size:
            raise ValueError(f"it has {len(value)} bytes, and {node['name']} has {size}")
        return bytes(value)

    return write_fixed


def decimal(scale: int, size: int | None) -> Write:
    """Two's complement of the value times 10 to the power of `scale`, in `size` bytes, or (None) as many as it takes.

    Raises `ValueError` for digits beyond the scale, `OverflowError` for too few bytes.
    """

    def write_decimal(value: Decimal) -> bytes:
        sign, digits, exponent = Decimal(value).as_tuple()
        if not isinstance(exponent, int) or exponent < -scale:
            raise ValueError(f"it isn't a number of at most {scale} digits after the point")
        unscaled = int("".join(map(str, digits)) or "0") * int(10 ** (exponent + scale))
        unscaled = -unscaled if sign else unscaled
        if size is not None:
            return unscaled.to_bytes(size, "big", signed=True)
        return write_bytes(unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True))

    return write_decimal
