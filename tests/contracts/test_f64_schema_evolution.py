"""A stream's record gets new fields, and both releases read what the other wrote, or the change is refused by
field and rule (field case F64)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pytest

from millstream.events.codec import Codec
from millstream.events.errors import SchemaIncompatible, SchemaUnreadable
from millstream.events.schema_files import Schema


class Colour(Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class NewColour(Enum):
    RED = "red"
    DARK_BLUE = "dark blue"
    GREEN = "green"


NewColour.__name__ = "Colour"


class Part(msgspec.Struct):
    name: str


class Parcel1(msgspec.Struct):
    id: str
    colour: Colour
    weight: int | str | None


class Parcel2(msgspec.Struct):
    id: str
    colour: NewColour
    weight: int | str | None
    mark: bytes = b"\xff"
    price: Decimal = Decimal(0)
    note: str | None = None
    parts: list[Part] = []
    best: Part = msgspec.field(default_factory=lambda: Part("none"))
    by_name: dict[str, list[int]] = {}
    ratio: float = 0.5


PART = {"type": "record", "name": "test.Part", "fields": [{"name": "name", "type": "string"}]}
COLOUR = {"type": "enum", "name": "test.Colour", "symbols": ["RED", "DARK_BLUE"], "default": "RED"}
NEW_COLOUR = COLOUR | {"symbols": ["RED", "DARK_BLUE", "GREEN"]}
V1: Schema = {
    "type": "record",
    "name": "test.Parcel",
    "version": 1,
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "colour", "type": COLOUR},
        {"name": "weight", "type": ["null", "long", "string"], "default": None},
    ],
}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
V2: Schema = {
    "type": "record",
    "name": "test.Parcel",
    "version": 2,
    "fields": [
        V1["fields"][0],
        {"name": "colour", "type": NEW_COLOUR},
        V1["fields"][2],
        {"name": "mark", "type": "bytes", "default": "\u00ff"},
        {"name": "price", "type": PRICE, "default": "\u0000"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "parts", "type": {"type": "array", "items": PART}, "default": []},
        {"name": "best", "type": "test.Part", "default": {"name": "none"}},
        {
            "name": "by_name",
            "type": {"type": "map", "values": {"type": "array", "items": "long"}},
            "default": {"a": [1]},
        },
        {"name": "ratio", "type": "double", "default": 1},
    ],
}


def release(cls: type[msgspec.Struct], schema: Schema, *learnt: Schema) -> Codec:
    codec = Codec()
    for other in learnt:
        codec.learn(json.dumps(other))
    codec.register(cls, schema)
    return codec


OLD, NEW = release(Parcel1, V1, V2), release(Parcel2, V2, V1)
FULL = Parcel2(
    "p1",
    NewColour.DARK_BLUE,
    7,
    b"\x00\xff",
    Decimal("-12345678.90"),
    "n",
    [Part("a"), Part("b")],
    Part("c"),
    {"x": [1, 2]},
    2.5,
)


@pytest.mark.parametrize("weight", [7, "heavy", None])
def test_each_release_reads_its_own(weight: int | str | None) -> None:
    first = Parcel1("p1", Colour.DARK_BLUE, weight)
    assert OLD.decode(OLD.encode(first)) == first
    second = msgspec.structs.replace(FULL, weight=weight)
    assert NEW.decode(NEW.encode(second)) == second


def test_the_new_release_reads_the_old_with_every_kind_of_default() -> None:
    back = NEW.decode(OLD.encode(Parcel1("p1", Colour.DARK_BLUE, 7)))
    assert back == Parcel2(
        "p1", NewColour.DARK_BLUE, 7, b"\xff", Decimal("0.00"), None, [], Part("none"), {"a": [1]}, 1.0
    )
    assert type(back.ratio) is float
    assert isinstance(back.price, Decimal)


def test_the_old_release_reads_the_new() -> None:
    assert OLD.decode(NEW.encode(FULL)) == Parcel1("p1", Colour.DARK_BLUE, 7)


def test_a_symbol_that_the_old_release_doesnt_know_becomes_the_enums_default() -> None:
    assert OLD.decode(NEW.encode(msgspec.structs.replace(FULL, colour=NewColour.GREEN))).colour is Colour.RED


def test_a_symbol_without_a_default_to_fall_to_is_refused_when_it_comes() -> None:
    first, second = copy.deepcopy(V1), copy.deepcopy(V2)
    del first["fields"][1]["type"]["default"]
    old, new = release(Parcel1, first), release(Parcel2, second)
    old.learn(json.dumps(second))
    assert old.decode(new.encode(FULL)).colour is Colour.DARK_BLUE
    with pytest.raises(
        SchemaIncompatible, match=r"the symbol 'GREEN' of test\.Colour isn't known here, and the enum has no default"
    ):
        old.decode(new.encode(msgspec.structs.replace(FULL, colour=NewColour.GREEN)))


def test_defaults_are_fresh_for_each_record() -> None:
    data = OLD.encode(Parcel1("p1", Colour.RED, None))
    first = NEW.decode(data)
    first.parts.append(Part("mine"))
    first.by_name["a"].append(2)
    first.best.name = "mine"
    second = NEW.decode(data)
    assert (second.parts, second.by_name, second.best) == ([], {"a": [1]}, Part("none"))


@pytest.mark.parametrize("price", ["0", "0.01", "-0.01", "1.28", "-1.28", "9999999999.99", "1E+3", "327.67", "327.68"])
def test_decimals_come_back_exactly(price: str) -> None:
    back = NEW.decode(NEW.encode(msgspec.structs.replace(FULL, price=Decimal(price))))
    assert back.price == Decimal(price)


def test_the_order_of_learning_and_registering_doesnt_matter() -> None:
    data = OLD.encode(Parcel1("p1", Colour.RED, None))
    codec = Codec()
    codec.register(Parcel2, V2)
    codec.learn(json.dumps(V1))
    assert codec.decode(data) == NEW.decode(data)


def renamed(schema: Schema) -> None:
    schema["fields"][0]["name"] = "key"


def reordered(schema: Schema) -> None:
    schema["fields"][2]["type"] = ["null", "string", "long"]


def branch_removed(schema: Schema) -> None:
    schema["fields"][2]["type"] = ["null", "long"]


def branch_added(schema: Schema) -> None:
    schema["fields"][2]["type"] = ["null", "long", "string", "boolean"]


def no_default(schema: Schema) -> None:
    del schema["fields"][3]["default"]


def wrong_default(schema: Schema) -> None:
    schema["fields"][5]["type"] = ["string", "null"]


def symbol_removed(schema: Schema) -> None:
    schema["fields"][1]["type"]["symbols"] = ["RED", "GREEN"]


def changed_type(schema: Schema) -> None:
    schema["fields"][0]["type"] = "long"


def made_optional(schema: Schema) -> None:
    schema["fields"][0]["type"] = ["null", "string"]


REFUSED: list[tuple[Callable[[Schema], None], str]] = [
    (renamed, r"Parcel\.id: field renamed to 'key'"),
    (reordered, r"Parcel\.weight: union reordered from null, long, string to null, string, long"),
    (branch_removed, r"Parcel\.weight: union branch string removed"),
    (branch_added, r"Parcel\.weight: union branch boolean added"),
    (no_default, r"Parcel\.mark: field added without default"),
    (
        wrong_default,
        r"Parcel\.note: the default None isn't of the field's type; a union's default must be of its first branch, string",
    ),
    (symbol_removed, r"Parcel\.colour: enum symbol 'DARK_BLUE' removed"),
    (changed_type, r"Parcel\.id: type changed from string to long"),
    (made_optional, r"Parcel\.id: type changed from string to union"),
]


@pytest.mark.parametrize(("change", "text"), REFUSED, ids=[change.__name__ for change, _ in REFUSED])
def test_a_change_that_cant_be_read_both_ways_is_refused_by_field_and_rule(
    change: Callable[[Schema], None], text: str
) -> None:
    codec = Codec()
    codec.learn(json.dumps(V1))
    schema = copy.deepcopy(V2)
    change(schema)
    before = codec.fingerprints
    with pytest.raises(SchemaIncompatible, match=text):
        codec.register(Parcel2, schema)
    assert codec.fingerprints == before


def test_a_struct_that_isnt_its_schema_is_refused_by_field() -> None:
    class Parcel(msgspec.Struct):
        id: int
        colour: str

    with pytest.raises(SchemaUnreadable) as caught:
        Codec().register(Parcel, V1)
    assert "field 'weight' is in the schema only" in str(caught.value)
    assert "field 'id' is int in the struct and string in the schema" in str(caught.value)


def test_a_union_whose_branches_python_cant_tell_apart_is_refused() -> None:
    class Odd(msgspec.Struct):
        n: int | float | None

    fields: list[dict[str, Any]] = [{"name": "n", "type": ["int", "long", "double"]}]
    with pytest.raises(SchemaUnreadable):
        Codec().register(Odd, {"type": "record", "name": "test.Odd", "fields": fields})
