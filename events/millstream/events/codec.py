"""Records to bytes and back: Avro single-object encoding. The only file that imports fastavro.

    C3 01 | fingerprint, 8 bytes, little-endian | Avro binary

The fingerprint is CRC-64-AVRO of the writer schema's parsing canonical form, as the
Avro specification (1.11, "Single-object encoding") has it, so any Avro tool reads our
topics with the schemas topic alone. fastavro parses schemas, makes that form and the
fingerprint, and reads the primitive types; what is between is put together per schema
in `avro_read` and `avro_write`, since its general loops take two to three times as long.

A codec knows the schemas that this release ships with and those it has learnt from the
schemas topic. It never guesses: what it can't read raises, and what it doesn't know stops.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any, NamedTuple, TypeVar

import fastavro
import fastavro.schema
import msgspec

from millstream.events.avro_read import PYTHON_LEAVES, Leaves, Read, compile_reader
from millstream.events.avro_types import Known, type_name
from millstream.events.avro_write import Write, compile_writer
from millstream.events.compatibility import check_evolution
from millstream.events.errors import (
    NewerFormat,
    SchemaError,
    SchemaIncompatible,
    SchemaUnreadable,
    Undecodable,
    Unencodable,
    UnknownSchema,
)
from millstream.events.record_types import find_types
from millstream.events.schema_files import (
    CLASSES,
    FOLLOWS_AVRO,
    NAMESPACE,
    Schema,
    current_version,
    expand_unions,
    files,
    shipped,
)
from millstream.events.upcast import UPCASTS, Upcasts

MAGIC = b"\xc3\x01"
HEADER_BYTES = 10
_GUARD = b"\x00"
"""One byte after the record's last: whoever reads too far takes it, and is found out by the position."""

T = TypeVar("T", bound=msgspec.Struct)


class KnownSchema(NamedTuple):
    """A writer schema: its JSON text as it came, its parsed form, its fingerprint."""

    text: str
    parsed: Schema
    fingerprint: int


class Codec:
    """Encodes and decodes records. Made once in a process and shared; `learn` and `register` add to it."""

    def __init__(self, *, upcasts: Upcasts = UPCASTS, leaves: Leaves | None = None) -> None:
        self._upcasts, self._leaves = upcasts, leaves or compiled_leaves()
        self._known: dict[str, Known] = _known_types()
        self._schemas: dict[int, KnownSchema] = {}
        self._readers: dict[bytes, Read] = {}
        self._plain_readers: dict[int, Read] = {}
        self._writers: dict[type, tuple[bytes, Write]] = {}
        for schema in _shipped():
            self._add(schema)
            cls = CLASSES[schema.parsed["name"]]
            self._writers[cls] = (_header(schema.fingerprint), compile_writer(schema.parsed, self._known))

    def encode(self, record: msgspec.Struct) -> bytes:
        """The record's bytes. Raises `Unencodable`, naming the field, for what the schema can't hold."""
        try:
            header, write = self._writers[type(record)]
        except KeyError:
            raise Unencodable(
                f"{type(record).__name__} isn't a record of its own: it has no schema here."
                f" Register it, or put it in one that has."
            ) from None
        return header + write(record)

    def decode(self, data: bytes) -> Any:
        """The record in `data`: an instance of its class, at its current version.

        Raises `UnknownSchema` (read the schemas topic to its end, then try again), `Undecodable`,
        `NewerFormat` where an event type or version isn't known to this release (never skipped),
        `SchemaIncompatible` where a stream's record can't be resolved.
        """
        fo = BytesIO(data + _GUARD)
        read = self._readers.get(fo.read(HEADER_BYTES))
        if read is None:
            raise self._no_reader(data)
        try:
            record = read(fo)
        except (SchemaError, NewerFormat):
            raise
        except Exception as error:
            raise self._undecodable(data, f"{type(error).__name__}: {error}") from error
        if fo.tell() != len(data):
            left = len(data) - fo.tell()
            raise self._undecodable(data, f"{left} bytes are left over" if left > 0 else "it ends too early")
        return record

    def decode_plain(self, data: bytes) -> tuple[str, Any]:
        """Full name and fields (a dict, as written) of any record whose schema is known, also without a class for it."""
        schema = self._schemas.get(self.fingerprint_of(data))
        if schema is None:
            raise self._no_reader(data)
        fo = BytesIO(data + _GUARD)
        fo.read(HEADER_BYTES)
        try:
            fields = self._plain_reader(schema)(fo)
        except Exception as error:
            raise self._undecodable(data, f"{type(error).__name__}: {error}") from error
        if fo.tell() != len(data):
            raise self._undecodable(data, "its length isn't that of its fields")
        return schema.parsed["name"], fields

    def learn(self, schema_json: str) -> int:
        """Know one more writer schema; returns its fingerprint. Raises `SchemaUnreadable`. Learning twice is once."""
        schema = parse(schema_json)
        if schema.fingerprint not in self._schemas:
            self._plain_reader(schema)  # so that what can't be read safely is refused now
            self._add(schema)
        return schema.fingerprint

    def register(self, cls: type[T], schema: Schema, *, namespace: str = NAMESPACE) -> int:
        """Make the struct `cls` a record of its own, written with `schema` (JSON text or object); its fingerprint.

        Structs and enums that `cls` holds are found by their annotations. Raises `SchemaUnreadable`, and
        `SchemaIncompatible`, by field and rule, where the schema can't live beside one of the same name that
        is known already: old data must stay readable, and old readers must be able to read new data.
        """
        written = parse(schema if isinstance(schema, str) else json.dumps(schema))
        for other in self._schemas.values():
            if other.parsed["name"] == written.parsed["name"] and other.fingerprint != written.fingerprint:
                _check_beside(written.parsed, other.parsed)
        before = dict(self._known)
        self._known.update(find_types(cls, written.parsed))
        try:
            self._writers[cls] = (_header(written.fingerprint), compile_writer(written.parsed, self._known))
            self._add(written)
        except SchemaError:
            self._known.clear()
            self._known.update(before)
            raise
        for other in self._schemas.values():
            if other.parsed["name"] == written.parsed["name"]:
                self._add(other)  # what was learnt before its class was known is now read into it
        return written.fingerprint

    @property
    def fingerprints(self) -> frozenset[int]:
        """Of every schema that is known."""
        return frozenset(self._schemas)

    def schema_json(self, fingerprint: int) -> str:
        """The text of a schema that is known. Raises `UnknownSchema`."""
        if fingerprint not in self._schemas:
            raise UnknownSchema(fingerprint)
        return self._schemas[fingerprint].text

    def fingerprint_of(self, data: bytes) -> int:
        """The fingerprint of the schema that `data` was written with. Raises `Undecodable` where it isn't ours."""
        if len(data) < HEADER_BYTES or data[:2] != MAGIC:
            raise Undecodable(
                f"{_shown(data)} isn't an Avro record: it must begin with C3 01 and an 8-byte fingerprint."
                f" Something else writes to this topic."
            )
        return int.from_bytes(data[2:HEADER_BYTES], "little")

    def _add(self, schema: KnownSchema) -> None:
        read = compile_reader(schema.parsed, self._known, self._upcasts, self._leaves)
        self._readers[_header(schema.fingerprint)] = read
        self._schemas[schema.fingerprint] = schema

    def _plain_reader(self, schema: KnownSchema) -> Read:
        read = self._plain_readers.get(schema.fingerprint)
        if read is None:
            read = self._plain_readers[schema.fingerprint] = compile_reader(schema.parsed, {}, {}, self._leaves)
        return read

    def _no_reader(self, data: bytes) -> SchemaError:
        try:
            return UnknownSchema(self.fingerprint_of(data))
        except Undecodable as error:
            return error

    def _undecodable(self, data: bytes, why: str) -> Undecodable:
        name = self._schemas[self.fingerprint_of(data)].parsed["name"]
        return Undecodable(
            f"{_shown(data)} can't be read as {name}: {why}. The record is damaged, or was not written by us."
        )


def parse(schema_json: str) -> KnownSchema:
    """Read a schema that defines a record. Raises `SchemaUnreadable` with what is wrong with it."""
    try:
        parsed = fastavro.parse_schema(json.loads(schema_json))
        canonical = fastavro.schema.to_parsing_canonical_form(parsed)
    except Exception as error:
        raise SchemaUnreadable(
            f"not an Avro schema: {type(error).__name__}: {error}. It begins {schema_json[:80]!r}."
        ) from error
    if not isinstance(parsed, dict) or parsed["type"] != "record":
        raise SchemaUnreadable(f"a schema must be of a record, and this one is of {type_name(parsed)}.")
    digest = fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    return KnownSchema(schema_json, parsed, int.from_bytes(bytes.fromhex(digest), "little"))


@cache
def _shipped() -> tuple[KnownSchema, ...]:
    return tuple(parse(json.dumps(schema, ensure_ascii=False)) for schema in shipped())


def _known_types() -> dict[str, Known]:
    known = {
        name: Known(cls, expand_unions(files()[cls.__name__, current_version(cls.__name__)]), name in FOLLOWS_AVRO)
        for name, cls in CLASSES.items()
    }
    for (short, version), schema in files().items():
        if schema["type"] == "fixed" and version == current_version(short):
            known[schema["name"]] = Known(None, schema, follows_avro=False)
    return known


def _check_beside(new: Schema, other: Schema) -> None:
    """Raise `SchemaIncompatible` where two versions of one stream record can't be read by each other's readers."""
    first, second = sorted((other, new), key=lambda s: int(s.get("version", 1)))
    problems = check_evolution(first, second, widening=False)
    if problems:
        raise SchemaIncompatible(
            f"{new['name']} can't be registered beside the one that is known already: " + "; ".join(problems) + "."
        )


@cache
def compiled_leaves() -> Leaves:
    """fastavro's own readers of primitive types, where they are there and read what they should; else ours.

    They are compiled but not a public name of fastavro, so they are tried once before they are trusted.
    """
    try:
        _read: Any = importlib.import_module("fastavro._read")
        leaves = Leaves(
            long=_read.read_long,
            string=_read.read_utf8,
            bytes=_read.read_bytes,
            boolean=_read.read_boolean,
            float=_read.read_float,
            double=_read.read_double,
        )
        return leaves if _agree(leaves) else PYTHON_LEAVES
    except (ImportError, AttributeError):
        return PYTHON_LEAVES


def _agree(leaves: Leaves) -> bool:
    """Whether these leaves read what ours read, to the same position, and fail where ours fail."""
    samples: list[tuple[str, bytes]] = [
        ("long", b"\x80\x90\xc7\xfe\xf9\x62+"),
        ("long", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01+"),
        ("long", b"\x03+"),
        ("string", b"\x06\xc3\xa9\x00+"),
        ("bytes", b"\x04\xff\x00+"),
        ("boolean", b"\x01+"),
        ("float", b"\x00\x00\xc0?+"),
        ("double", b"\x00\x00\x00\x00\x00\x00\xf8\xbf+"),
    ]
    try:
        agree = all(_tried(getattr(leaves, n), d) == _tried(getattr(PYTHON_LEAVES, n), d) for n, d in samples)
        return agree and all(_tried(leaf, b"") is None for leaf in leaves)
    except TypeError:
        return False


def _tried(leaf: Callable[[BytesIO], Any], data: bytes) -> tuple[Any, int] | None:
    fo = BytesIO(data)
    try:
        return leaf(fo), fo.tell()
    except TypeError:
        raise
    except Exception:  # noqa: BLE001 (each leaf has its own error for the end; which one doesn't matter)
        return None


def _header(fingerprint: int) -> bytes:
    return MAGIC + fingerprint.to_bytes(8, "little")


def _shown(data: bytes) -> str:
    return f"a record of {len(data):,} bytes that begins {data[:16].hex(' ')}"
