"""`schema_check` refuses what the log couldn't bear, and says which file, which field and which rule."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from millstream.events import schema_check
from millstream.events.envelope import Event
from millstream.events.schema_check import FOLDER, LEDGER, Ledger, accept, main, problems
from millstream.events.schema_files import CLASSES, EVENTS, Schema, compose, files
from millstream.events.upcast import UPCASTS, Upcasts, adds

Schemas = dict[tuple[str, int], Schema]


class Opened(msgspec.Struct):
    name: str
    at: int


class Opened2(msgspec.Struct):
    name: str
    at: int
    by: str


Opened2.__name__ = "Opened"
STREAM = "millstream.DayReport"


def opened(version: int, *more: dict[str, Any]) -> Schema:
    fields = [{"name": "name", "type": "string", "doc": "What."}, {"name": "at", "type": "long", "doc": "When, ms."}]
    return {
        "type": "record",
        "name": "millstream.Opened",
        "version": version,
        "doc": "It opened.",
        "fields": [*fields, *more],
    }


BY = {"name": "by", "type": "string", "default": "", "doc": "Who."}
ONE: Schemas = {("Opened", 1): opened(1)}
TWO: Schemas = ONE | {("Opened", 2): opened(2, BY)}
ROWS: Upcasts = {("Opened", 1): adds("by", str)}


def check(schemas: Schemas, ledger: Ledger | None = None, cls: type = Opened, rows: Upcasts = UPCASTS) -> list[str]:
    """The problems; without a ledger, that of these schemas."""
    return problems(schemas, accept(schemas, {})[0] if ledger is None else ledger, {"millstream.Opened": cls}, rows)


def test_the_schemas_of_this_release_are_as_they_should_be() -> None:
    assert main([]) == 0


def test_every_event_command_and_record_has_a_schema_file() -> None:
    assert {schema["name"] for schema in files().values() if schema["type"] == "record"} == set(CLASSES)


def test_an_event_enters_the_transition_by_its_class_alone() -> None:
    branches = compose("Transition")["fields"][-1]["type"]["items"]
    assert [b if isinstance(b, str) else b["name"] for b in branches] == [
        f"millstream.{cls.__name__}" for cls in EVENTS
    ]
    assert all(issubclass(cls, Event) for cls in EVENTS)
    assert "events" in json.dumps(files()["Transition", 1]["fields"][-1]["type"])


def test_a_good_change_passes() -> None:
    assert check(ONE) == []
    assert check(TWO, cls=Opened2, rows=ROWS) == []


def test_a_released_schema_that_was_edited_is_refused() -> None:
    edited = copy.deepcopy(ONE)
    edited["Opened", 1]["fields"][1]["type"] = "int"
    ledger, _ = accept(ONE, {})
    assert check(edited, ledger) == [
        "Opened.v1.avsc: a released schema was edited in place; restore it, and make the change in Opened.v2.avsc"
    ]


def test_a_changed_default_is_an_edit_and_a_better_text_is_none() -> None:
    ledger, _ = accept(TWO, {})
    texts, default = copy.deepcopy(TWO), copy.deepcopy(TWO)
    texts["Opened", 2]["fields"][2]["doc"] = "Who opened it."
    default["Opened", 2]["fields"][2]["default"] = "nobody"
    assert check(texts, ledger, Opened2, ROWS) == []
    assert "edited in place" in check(default, ledger, Opened2, ROWS)[0]


def test_a_released_schema_that_was_removed_is_refused() -> None:
    ledger, _ = accept(TWO, {})
    assert any(p.startswith("Opened.v2.avsc: a released schema was removed") for p in check(ONE, ledger))


def test_a_schema_that_isnt_in_the_ledger_is_refused_until_it_is_accepted() -> None:
    assert check(ONE, {}) == [
        "Opened.v1.avsc: not in released.json yet; run `python -m millstream.events.schema_check --accept`"
    ]


def test_accepting_adds_rows_and_changes_none() -> None:
    ledger, added = accept(ONE, {})
    edited = copy.deepcopy(TWO)
    edited["Opened", 1]["fields"][1]["type"] = "int"
    grown, more = accept(edited, ledger)
    assert (added, more) == (1, 1)
    assert grown["Opened"]["1"] == ledger["Opened"]["1"]


def test_a_new_version_without_an_upcast_is_refused() -> None:
    assert check(TWO, cls=Opened2) == [
        "Opened.v2.avsc: a new version without an upcast: add the row ('Opened', 1) to UPCASTS"
    ]


def test_a_gap_in_the_versions_is_refused() -> None:
    assert "Opened.v3.avsc: there is no Opened.v2.avsc before it" in check(
        ONE | {("Opened", 3): opened(3, BY)}, cls=Opened2
    )


def test_a_new_version_that_writes_the_same_bytes_is_refused() -> None:
    same = ONE | {("Opened", 2): opened(2)}
    assert any("writes the same bytes as version 1" in p for p in check(same, rows=ROWS))


def test_a_field_without_a_text_is_refused() -> None:
    silent = copy.deepcopy(ONE)
    del silent["Opened", 1]["fields"][1]["doc"]
    assert check(silent) == ["Opened.v1.avsc: field 'at': has no doc; say what it holds, with its unit"]


def test_a_name_that_no_file_has_is_refused() -> None:
    odd = copy.deepcopy(ONE)
    odd["Opened", 1]["fields"].append({"name": "by", "type": ["null", "millstream.Person"], "doc": "Who."})
    assert any("field 'by': names 'millstream.Person', and there is no Person.v1.avsc" in p for p in check(odd))


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (msgspec.defstruct("Opened", [("name", str)]), "field 'at' is in the schema only"),
        (msgspec.defstruct("Opened", [("name", str), ("at", int), ("by", str)]), "field 'by' is in the struct only"),
        (msgspec.defstruct("Opened", [("at", int), ("name", str)]), "the order of fields is at, name in the struct"),
        (
            msgspec.defstruct("Opened", [("name", str), ("at", float)]),
            "field 'at' is float in the struct and long in the schema",
        ),
        (msgspec.defstruct("Opened", [("name", str | None), ("at", int)]), "field 'name' is str | None in the struct"),
    ],
)
def test_a_struct_that_differs_from_its_schema_is_refused(cls: type, text: str) -> None:
    assert any(p.startswith(f"Opened.v1.avsc: {text}") for p in check(ONE, cls=cls))


def test_a_struct_without_a_file_and_a_file_without_a_struct_are_refused() -> None:
    assert problems({}, {}, {"millstream.Opened": Opened}, {}) == [
        "Opened.v1.avsc: missing: the struct Opened has no schema"
    ]
    assert "Opened.v1.avsc: no struct is called Opened; old schemas need theirs to be read into" in problems(
        ONE, accept(ONE, {})[0], {}, {}
    )


def changed(change: Callable[[list[dict[str, Any]]], object], *, name: str = "Opened") -> list[str]:
    """The problems of a version 2 whose fields were changed so."""
    fields = [
        {"name": "n", "type": "int"},
        {"name": "x", "type": "float"},
        {"name": "t", "type": "string"},
        {"name": "b", "type": "bytes", "default": "\u00ff"},
        {"name": "u", "type": ["null", "long"], "default": None},
        {"name": "e", "type": {"type": "enum", "name": "millstream.E", "symbols": ["A", "B"]}},
        {"name": "f", "type": {"type": "fixed", "name": "millstream.F", "size": 4}},
        {"name": "a", "type": {"type": "array", "items": "int"}},
        {"name": "m", "type": {"type": "map", "values": "string"}},
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ]
    after = copy.deepcopy(fields)
    change(after)
    record = {"type": "record", "name": f"millstream.{name}"}
    pair = {(name, 1): {**record, "version": 1, "fields": fields}, (name, 2): {**record, "version": 2, "fields": after}}
    return list(schema_check.changes_are_bearable(pair))


def field(index: int, **new: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda fields: fields[index].update(new)


@pytest.mark.parametrize(
    "change",
    [
        field(0, type="long"),
        field(0, type="double"),
        field(1, type="double"),
        field(2, type="bytes"),
        field(3, type="string", default=""),
        field(7, type={"type": "array", "items": "long"}),
        field(8, type={"type": "map", "values": "bytes"}),
        lambda fields: fields.append({"name": "new", "type": "long", "default": 0}),
        lambda fields: fields.insert(0, {"name": "new", "type": "long", "default": 0}),
        lambda fields: fields.pop(3),
    ],
)
def test_what_avro_can_bear_passes(change: Callable[[list[dict[str, Any]]], object]) -> None:
    assert changed(change) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.append({"name": "new", "type": "long"}), "Opened.new: field added without default"),
        (
            lambda f: f.append({"name": "new", "type": "long", "default": "x"}),
            "Opened.new: the default 'x' isn't of the field's type",
        ),
        (
            lambda f: f.append({"name": "new", "type": "bytes", "default": "\u20ac"}),
            "Opened.new: the default '€' isn't of",
        ),
        (
            lambda f: f.append({"name": "new", "type": ["long", "null"], "default": None}),
            "must be of its first branch, long",
        ),
        (lambda f: f.pop(0), "Opened.n: field removed that has no default: old readers can't read new data"),
        (field(2, name="text"), "Opened.t: field renamed to 'text': readers find fields by name"),
        (field(2, name="text", aliases=["t"]), "Opened.t: field renamed to 'text': readers find fields by name"),
        (field(1, type="int"), "Opened.x: type narrowed from float to int: new readers can't read the old data"),
        (field(0, type="string"), "Opened.n: type changed from int to string"),
        (field(0, type=["null", "int"]), "Opened.n: type changed from int to union"),
        (field(4, type="long"), "Opened.u: type changed from union to long"),
        (field(4, type=["long", "null"]), "Opened.u: union reordered from null, long to long, null"),
        (field(4, type=["null"]), "Opened.u: union branch long removed"),
        (field(4, type=["null", "long", "string"]), "Opened.u: union branch string added"),
        (
            field(5, type={"type": "enum", "name": "millstream.E", "symbols": ["A"]}),
            "Opened.e: enum symbol 'B' removed",
        ),
        (
            field(5, type={"type": "enum", "name": "millstream.E", "symbols": ["A", "B", "C"]}),
            "Opened.e: enum symbol 'C' added to an enum without a default",
        ),
        (
            field(6, type={"type": "fixed", "name": "millstream.F", "size": 8}),
            "Opened.f: size of millstream.F changed from 4 to 8",
        ),
        (
            field(6, type={"type": "fixed", "name": "millstream.G", "size": 4}),
            "Opened.f: type renamed from millstream.F",
        ),
        (field(7, type={"type": "array", "items": "string"}), "Opened.a[]: type changed from int to string"),
        (field(8, type={"type": "map", "values": "long"}), "Opened.m{}: type changed from string to long"),
        (
            field(9, type={"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}),
            "Opened.d: logical type changed from decimal precision 9 scale 2 to decimal precision 9 scale 3",
        ),
    ],
)
def test_what_old_data_or_old_readers_cant_bear_is_refused(
    change: Callable[[list[dict[str, Any]]], object], text: str
) -> None:
    found = changed(change)
    assert any(text in problem for problem in found), found
    assert all(problem.startswith("Opened.v2.avsc: ") for problem in found)


def test_a_widened_type_is_refused_where_old_readers_go_on_reading() -> None:
    # Readers of the journal stop at a newer version; readers of a stream don't, and couldn't read it.
    found = changed(field(0, type="long"), name=STREAM.removeprefix("millstream."))
    assert found == [
        "DayReport.v2.avsc: DayReport.n: type widened from int to long: old readers can't read the new data"
    ]


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "schemas"
    shutil.copytree(FOLDER, folder)
    return folder


def test_the_command_exits_with_1_and_names_what_it_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path)
    path = folder / "DayOpened.v1.avsc"
    path.write_text(path.read_text("utf-8").replace('"carrier"', '"airline"'), "utf-8")
    assert main(["--folder", str(folder)]) == 1
    assert main(["--folder", str(folder), "--accept"]) == 1
    said = capsys.readouterr().err
    assert "DayOpened.v1.avsc: a released schema was edited in place" in said
    assert "DayOpened.v1.avsc: field 'carrier' is in the struct only" in said


def test_the_command_accepts_new_schemas_only_when_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(tmp_path)
    full = (folder / LEDGER).read_text("utf-8")
    ledger = json.loads(full)
    del ledger["DayOpened"]
    (folder / LEDGER).write_text(json.dumps(ledger), "utf-8")
    assert main(["--folder", str(folder)]) == 1
    assert "DayOpened.v1.avsc: not in released.json yet" in capsys.readouterr().err
    assert main(["--folder", str(folder), "--accept"]) == 0
    assert (folder / LEDGER).read_text("utf-8") == full


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("opened.avsc", "{}", "the name must be <Record>.v<version>.avsc"),
        ("Opened.v1.avsc", "{", "not JSON"),
        (
            "Opened.v1.avsc",
            '{"type": "record", "name": "millstream.Other", "version": 1}',
            "'name' must be 'millstream.Opened'",
        ),
        ("Opened.v1.avsc", '{"type": "record", "name": "millstream.Opened"}', "'version' must be 1"),
    ],
)
def test_a_file_that_isnt_a_schema_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, why: str
) -> None:
    folder = copied(tmp_path)
    (folder / name).write_text(text, "utf-8")
    assert main(["--folder", str(folder)]) == 1
    assert f"{name}: {why}" in capsys.readouterr().err
