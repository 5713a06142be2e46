"""Refuse changes of schemas that the log can't bear. Run by `make check`; exit status 1 where something is refused.

    python -m millstream.events.schema_check            look
    python -m millstream.events.schema_check --accept   look, and enter new schemas as released

A released schema stands in the ledger `schemas/released.json` with its fingerprint (SHA-256 of
the schema without its texts). Records written with it lie on logs that we will never see, so
it is never edited again: a change is a new file with the next version, a row in `upcast`, and
nothing that old readers or old data can't bear.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from millstream.events.avro_types import collect_names
from millstream.events.compatibility import check_evolution
from millstream.events.errors import SchemaUnreadable
from millstream.events.record_types import struct_differences
from millstream.events.schema_files import CLASSES, FOLLOWS_AVRO, NAMESPACE, PRIMITIVES, Schema, read_files
from millstream.events.upcast import UPCASTS, Upcasts

Schemas = Mapping[tuple[str, int], Schema]
Ledger = dict[str, dict[str, str]]
"""Record name -> version, as text -> fingerprint."""

FOLDER = Path(__file__).parent / "schemas"
LEDGER = "released.json"


def fingerprint(schema: Schema) -> str:
    """64 hex digits over all of the schema but its texts: unlike Avro's, a changed default or version counts too."""
    return hashlib.sha256(json.dumps(_without_docs(schema), sort_keys=True).encode()).hexdigest()


def _without_docs(node: Schema) -> Schema:
    if isinstance(node, list):
        return [_without_docs(item) for item in node]
    if isinstance(node, dict):
        return {key: _without_docs(value) for key, value in node.items() if key != "doc"}
    return node


def problems(schemas: Schemas, ledger: Ledger, classes: Mapping[str, type], upcasts: Upcasts) -> list[str]:
    """Everything that is refused, a text each: file, field, rule. An empty list: all is well."""
    found: list[str] = []
    for check in (released_schemas_stand, references_resolve, versions_follow):
        found += check(schemas, ledger)
    found += upcasts_are_there(schemas, upcasts)
    found += changes_are_bearable(schemas)
    found += structs_agree(schemas, classes)
    return found


def _file(name: str, version: int) -> str:
    return f"{name}.v{version}.avsc"


def released_schemas_stand(schemas: Schemas, ledger: Ledger) -> Iterator[str]:
    """A released schema is as it was; a new one is in the ledger."""
    for name, versions in ledger.items():
        for version, released in versions.items():
            schema = schemas.get((name, int(version)))
            if schema is None:
                yield (
                    f"{_file(name, int(version))}: a released schema was removed:"
                    f" records written with it are on logs; restore it"
                )
            elif fingerprint(schema) != released:
                yield (
                    f"{_file(name, int(version))}: a released schema was edited in place; restore it,"
                    f" and make the change in {_file(name, int(version) + 1)}"
                )
    for name, number in schemas:
        if str(number) not in ledger.get(name, {}):
            yield f"{_file(name, number)}: not in {LEDGER} yet; run `python -m millstream.events.schema_check --accept`"


def references_resolve(schemas: Schemas, ledger: Ledger) -> Iterator[str]:
    """A name in a field's type is a file's, and each field says what it holds."""
    for (name, version), schema in schemas.items():
        for field in schema.get("fields", ()):
            where = f"{_file(name, version)}: field {field.get('name')!r}"
            if not field.get("doc"):
                yield f"{where}: has no doc; say what it holds, with its unit"
            defined: dict[str, Schema] = {}
            collect_names(schema, defined)
            for reference in _references(field.get("type")):
                short = reference.removeprefix(f"{NAMESPACE}.")
                if reference not in defined and (short, 1) not in schemas:
                    yield f"{where}: names {reference!r}, and there is no {_file(short, 1)}"


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for branch in node:
            yield from _references(branch)
    elif isinstance(node, dict):
        for key in ("type", "items", "values"):
            yield from _references(node.get(key)) if node.get("type") not in ("record", "enum", "fixed") else ()
    elif isinstance(node, str) and node not in PRIMITIVES | {"array", "map"}:
        yield node


def versions_follow(schemas: Schemas, ledger: Ledger) -> Iterator[str]:
    """Versions count up from 1 without a gap."""
    for name, version in schemas:
        if version > 1 and (name, version - 1) not in schemas:
            yield f"{_file(name, version)}: there is no {_file(name, version - 1)} before it"


def upcasts_are_there(schemas: Schemas, upcasts: Upcasts) -> Iterator[str]:
    """Each new version has a row that makes it of the one before."""
    for name, version in schemas:
        if version > 1 and schemas[name, version]["type"] == "record" and (name, version - 1) not in upcasts:
            yield (
                f"{_file(name, version)}: a new version without an upcast: add the row ({name!r}, {version - 1})"
                f" to UPCASTS"
            )


def changes_are_bearable(schemas: Schemas) -> Iterator[str]:
    """From each version to the next nothing changes that old data or old readers can't bear, and something does."""
    for (name, version), new in schemas.items():
        old = schemas.get((name, version - 1))
        if old is None:
            continue
        # Owners and projections stop at a newer version (rule 4 of the journal); readers of streams go on.
        widening = f"{NAMESPACE}.{name}" not in FOLLOWS_AVRO
        for problem in check_evolution(old, new, widening=widening):
            yield f"{_file(name, version)}: {problem}"
        if _canonical(old) == _canonical(new):
            yield (
                f"{_file(name, version)}: writes the same bytes as version {version - 1}: Avro gives both one"
                f" fingerprint, and readers couldn't tell them apart; add or change a field"
            )


def _canonical(node: Schema) -> Schema:
    """What Avro's parsing canonical form keeps."""
    if isinstance(node, list):
        return [_canonical(item) for item in node]
    if isinstance(node, dict):
        kept = ("name", "type", "fields", "symbols", "items", "values", "size", "union_of")
        return {key: _canonical(value) for key, value in node.items() if key in kept}
    return node


def structs_agree(schemas: Schemas, classes: Mapping[str, type]) -> Iterator[str]:
    """Each struct has a file, and the newest version's fields are the struct's, in its order and of its types."""
    named = {schema["name"]: schema for (name, version), schema in sorted(schemas.items())}
    for full_name, cls in classes.items():
        short = full_name.removeprefix(f"{NAMESPACE}.")
        version = max((v for n, v in schemas if n == short), default=0)
        if not version:
            yield f"{_file(short, 1)}: missing: the struct {cls.__name__} has no schema"
            continue
        for difference in struct_differences(cls, schemas[short, version], named):
            yield f"{_file(short, version)}: {difference}"
    for name, version in schemas:
        if schemas[name, version]["type"] == "record" and f"{NAMESPACE}.{name}" not in classes:
            yield f"{_file(name, version)}: no struct is called {name}; old schemas need theirs to be read into"


def accept(schemas: Schemas, ledger: Ledger) -> tuple[Ledger, int]:
    """The ledger with a row for each schema that it lacks, and how many. Rows that are there stay as they are."""
    grown = {name: dict(versions) for name, versions in ledger.items()}
    added = 0
    for (name, version), schema in sorted(schemas.items()):
        row = grown.setdefault(name, {})
        if str(version) not in row:
            row[str(version)] = fingerprint(schema)
            added += 1
    return {name: grown[name] for name in sorted(grown)}, added


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print what is refused, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m millstream.events.schema_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--accept", action="store_true", help="enter schemas that aren't in the ledger yet as released")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="where the schema files are (default: the package's)"
    )
    options = parser.parse_args(arguments)
    path: Path = options.folder / LEDGER
    try:
        schemas = read_files(options.folder)
        ledger: Ledger = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except (SchemaUnreadable, ValueError) as error:
        print(f"schema check: {error}", file=sys.stderr)
        return 1
    added = 0
    if options.accept:
        grown, added = accept(schemas, ledger)
    refused = problems(schemas, grown if options.accept else ledger, CLASSES, UPCASTS)
    for text in refused:
        print(f"schema check: {text}.", file=sys.stderr)
    if refused:
        return 1
    if added:
        path.write_text(json.dumps(grown, indent=2) + "\n", "utf-8")
    print(
        f"schema check: {len(schemas)} schemas are as they should be" + (f", {added} newly released" if added else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
