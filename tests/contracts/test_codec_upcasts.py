"""Records of older versions become records of today; what is newer stops the reader and says so."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

import fastavro
import msgspec
import pytest

from millstream.events.codec import Codec, parse
from millstream.events.daybook import DayOpened, Figures, FiguresRecorded, FlightEntered
from millstream.events.envelope import Transition
from millstream.events.errors import NewerFormat, SchemaIncompatible, Undecodable
from millstream.events.flight import DayReport
from millstream.events.schema_files import Schema, compose
from millstream.events.upcast import UPCASTS, Fields, Upcasts, adds, in_turn, renames


def old_release(changes: dict[str, dict[str, Any]], top: str = "Transition") -> Schema:
    """Our schema of `top` as another release had it: records by short name -> properties that were different there."""

    def changed(node: Any) -> Any:
        if isinstance(node, list):
            return [changed(item) for item in node]
        if not isinstance(node, dict):
            return node
        short = str(node.get("name", "")).rpartition(".")[2]
        other = changes.get(short, {}) if node.get("type") == "record" else {}
        return {key: changed(value) for key, value in (node | other).items()}

    return changed(copy.deepcopy(compose(top)))


def written(schema: Schema, fields: dict[str, Any]) -> bytes:
    """What a process of the other release would have written."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), fields)
    return b"\xc3\x01" + parse(json.dumps(schema)).fingerprint.to_bytes(8, "little") + out.getvalue()


def transition(*events: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "at": 7,
        "run_id": "9E-2013-01-16",
        "command_id": None,
        "command_offset": -1,
        "sent": None,
        "reply": None,
        "events": [(f"millstream.{name}", fields) for name, fields in events],
    }


def read(schema: Schema, data: bytes, upcasts: Upcasts = UPCASTS) -> Any:
    codec = Codec(upcasts=upcasts)
    codec.learn(json.dumps(schema))
    return codec.decode(data)


def long(name: str) -> dict[str, str]:
    return {"name": name, "type": "long"}


def text(name: str) -> dict[str, str]:
    return {"name": name, "type": "string"}


# A DayOpened before the first release: the airline was called so, and the day stood in three numbers.
OPENED_BEFORE = {"DayOpened": {"version": 0, "fields": [text("airline"), long("year"), long("month"), long("day")]}}


def join_day(fields: Fields) -> Fields:
    return {"carrier": fields["carrier"], "day": f"{fields['year']}-{fields['month']:02}-{fields['day']:02}"}


def test_an_event_of_an_older_version_goes_through_its_row() -> None:
    schema = old_release(OPENED_BEFORE)
    event = {"airline": "9E", "year": 2013, "month": 1, "day": 16}
    rows = {("DayOpened", 0): in_turn(renames("airline", "carrier"), join_day)}
    back = read(schema, written(schema, transition(("DayOpened", event))), rows)
    assert back == Transition(7, "9E-2013-01-16", None, -1, None, None, [DayOpened("9E", "2013-01-16")])


def test_an_event_of_an_older_version_without_a_row_stops_the_reader() -> None:
    schema = old_release(OPENED_BEFORE)
    event = {"airline": "9E", "year": 2013, "month": 1, "day": 16}
    with pytest.raises(Undecodable, match=r"no upcast from millstream\.DayOpened version 0 to 1"):
        read(schema, written(schema, transition(("DayOpened", event))))


def test_other_events_of_an_older_release_are_read_without_rows() -> None:
    schema = old_release(OPENED_BEFORE)
    event = {"position": 0, "flight": "1", "origin": "JFK", "dest": "BOS", "cancelled": True, "arr_delay_min": None}
    back = read(schema, written(schema, transition(("FlightEntered", event))))
    assert back.events == [FlightEntered(0, "1", "JFK", "BOS", True, None)]


def test_a_record_inside_an_event_goes_through_its_own_rows_first() -> None:
    schema = old_release({"Figures": {"version": 0, "fields": [long("flights"), long("arrived"), long("cancelled")]}})
    rows = {
        ("Figures", 0): in_turn(
            *(adds(n, lambda: None) for n in ("mean_arr_delay_min", "max_arr_delay_min", "share_late"))
        )
    }
    event = {"figures": {"flights": 3, "arrived": 2, "cancelled": 1}}
    back = read(schema, written(schema, transition(("FiguresRecorded", event))), rows)
    assert back.events == [FiguresRecorded(Figures(3, 2, 1, None, None, None))]


class Visit(msgspec.Struct):
    place: str
    tags: list[str]
    minutes: float


def visit(version: int, *fields: dict[str, Any]) -> Schema:
    return {"type": "record", "name": "millstream.Visit", "version": version, "fields": list(fields)}


TAGS = {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []}
MINUTES = {"name": "minutes", "type": "double", "default": 0.0}
VISIT_1 = visit(1, text("place"))
VISIT_2 = visit(2, text("place"), TAGS)
VISIT_3 = visit(3, text("place"), TAGS, MINUTES)


def reader_of_visits(rows: Upcasts) -> Codec:
    codec = Codec(upcasts=rows)
    for older in (VISIT_1, VISIT_2):
        codec.learn(json.dumps(older))
    codec.register(Visit, VISIT_3)
    return codec


def test_all_steps_up_to_the_current_version_are_applied_in_order() -> None:
    rows = {
        ("Visit", 1): adds("tags", lambda: ["old"]),
        ("Visit", 2): lambda f: {**f, "minutes": 60.0 * len(f["tags"])},
    }
    codec = reader_of_visits(rows)
    assert codec.decode(written(VISIT_1, {"place": "JFK"})) == Visit("JFK", ["old"], 60.0)
    assert codec.decode(written(VISIT_2, {"place": "JFK", "tags": ["a", "b"]})) == Visit("JFK", ["a", "b"], 120.0)
    assert codec.decode(codec.encode(Visit("JFK", [], 5.0))) == Visit("JFK", [], 5.0)


def test_added_values_are_fresh_for_each_record() -> None:
    codec = reader_of_visits({("Visit", 1): adds("tags", list), ("Visit", 2): adds("minutes", float)})
    data = written(VISIT_1, {"place": "JFK"})
    first, second = codec.decode(data), codec.decode(data)
    first.tags.append("mine")
    assert second.tags == []
    assert codec.decode(data).tags == []


def test_an_event_type_of_a_newer_release_stops_the_reader_when_it_comes() -> None:
    schema = old_release({"CloseFailed": {"name": "millstream.DayStamped"}})
    known = written(schema, transition(("DayOpened", {"carrier": "9E", "day": "2013-01-16"})))
    assert read(schema, known).events == [DayOpened("9E", "2013-01-16")]
    with pytest.raises(NewerFormat, match=r"millstream\.DayStamped version 1 isn't known to this release\. Upgrade"):
        read(schema, written(schema, transition(("DayStamped", {"reason": "x"}))))


def test_an_event_of_a_newer_version_stops_the_reader_when_it_comes() -> None:
    newer = {"DayOpened": {"version": 2, "fields": [text("carrier"), text("day"), text("by") | {"default": ""}]}}
    schema = old_release(newer)
    with pytest.raises(
        NewerFormat, match=r"millstream\.DayOpened was written at version 2, and this release knows it up to 1"
    ):
        read(schema, written(schema, transition(("DayOpened", {"carrier": "9E", "day": "2013-01-16", "by": "x"}))))
    event = {"reason": "x"}
    assert read(schema, written(schema, transition(("CloseFailed", event)))).events[0].reason == "x"


def test_a_newer_envelope_stops_the_reader() -> None:
    schema = old_release({"Transition": {"version": 2}})
    schema["fields"].append(text("why") | {"default": ""})
    with pytest.raises(NewerFormat, match=r"millstream\.Transition was written at version 2"):
        read(schema, written(schema, transition() | {"why": ""}))


def test_a_record_that_nobody_registered_stops_the_reader() -> None:
    with pytest.raises(NewerFormat, match=r"millstream\.Visit version 3 isn't known to this release"):
        read(VISIT_3, written(VISIT_3, {"place": "JFK", "tags": [], "minutes": 1.0}))


def test_a_streams_record_of_a_newer_version_is_read_by_avros_rules() -> None:
    schema = old_release({"DayReport": {"version": 2}}, "DayReport")
    inner = {"type": "record", "name": "millstream.Weather", "fields": [text("sky")]}
    schema["fields"].insert(3, {"name": "weather", "type": ["null", inner], "default": None})
    report = DayReport("id", "9E", "2013-01-16", 3, 2, 1, 1.5, 2.5, 0.0, 4)
    fields = msgspec.structs.asdict(report) | {"weather": {"sky": "grey"}}
    assert read(schema, written(schema, fields)) == report


def test_a_streams_record_without_a_field_that_has_no_default_is_refused() -> None:
    schema = old_release({}, "DayReport")
    schema["fields"] = schema["fields"][:-1]
    fields = msgspec.structs.asdict(DayReport("id", "9E", "2013-01-16", 3, 2, 1, 1.5, 2.5, 0.0, 4))
    del fields["month_days"]
    with pytest.raises(
        SchemaIncompatible, match=r"DayReport was written without 'month_days', which has no default here"
    ):
        read(schema, written(schema, fields))
