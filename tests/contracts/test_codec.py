"""Records become bytes that any Avro reader reads, and come back as they were."""

from __future__ import annotations

import io
import math
from typing import Any

import fastavro
import fastavro.schema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.events.avro_read import PYTHON_LEAVES
from millstream.events.avro_write import write_long
from millstream.events.codec import Codec, compiled_leaves, parse
from millstream.events.daybook import CloseDay, Figures, FlightEntered
from millstream.events.envelope import Command, Event, Fence, Origin, OwnershipClaimed, Sent, Transition
from millstream.events.errors import SchemaUnreadable, Undecodable, Unencodable, UnknownSchema
from millstream.events.kernel import Array, KernelCalled
from millstream.events.schema_files import EVENTS, TOP_LEVEL, compose
from tests.support.records import FLIGHT, TRANSITION, WITH_SENT, of, records


class Tree(msgspec.Struct):
    name: str
    below: list[Tree]


CODEC = Codec()
PLAIN = Codec(leaves=PYTHON_LEAVES)


@given(records())
@settings(max_examples=300, deadline=None)
def test_every_record_comes_back_as_it_was(record: msgspec.Struct) -> None:
    assert CODEC.decode(CODEC.encode(record)) == record


@given(records())
@settings(max_examples=100, deadline=None)
def test_our_own_readers_of_primitives_read_what_the_compiled_ones_read(record: msgspec.Struct) -> None:
    assert PLAIN.decode(CODEC.encode(record)) == record


@given(records())
@settings(max_examples=150, deadline=None)
def test_a_generic_avro_writer_makes_the_same_bytes(record: msgspec.Struct) -> None:
    data = CODEC.encode(record)
    schema = fastavro.parse_schema(compose(type(record).__name__))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, as_plain(record))
    assert data[10:] == out.getvalue()


def as_plain(value: Any) -> Any:
    """The value as fastavro takes it: dicts, and (name, dict) for a record that could be one of several."""
    if isinstance(value, msgspec.Struct | Sent):
        names = value.__struct_fields__ if isinstance(value, msgspec.Struct) else value._fields
        fields = {name: as_plain(getattr(value, name)) for name in names}
        if "claim_id" in fields:
            fields["claim_id"] = fields["claim_id"].to_bytes(8, "big")
        return (f"millstream.{type(value).__name__}", fields) if is_branch(value) else fields
    return [as_plain(item) for item in value] if isinstance(value, list) else value


def is_branch(value: Any) -> bool:
    return not isinstance(value, TOP_LEVEL) and not isinstance(value, Sent | Figures | Origin | Array)


def test_a_record_begins_with_the_mark_and_the_fingerprint_of_single_object_encoding() -> None:
    data = CODEC.encode(TRANSITION)
    canonical = fastavro.schema.to_parsing_canonical_form(compose("Transition"))
    assert data[:2] == b"\xc3\x01"
    assert data[2:10].hex() == fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")
    assert CODEC.fingerprint_of(data) == int.from_bytes(data[2:10], "little")


def test_fingerprints_are_those_of_the_avro_specification() -> None:
    # The value that Apache Avro's test suite has for the empty fingerprint's first step: "null", "int".
    assert rabin('"null"') == 0x63DD24E7CC258F8A
    assert rabin('"int"') == 0x7275D51A3F395C8F


def rabin(canonical: str) -> int:
    return int.from_bytes(bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO")), "little")


def test_the_compiled_leaves_are_used_where_fastavro_has_them() -> None:
    assert compiled_leaves() is not PYTHON_LEAVES


@pytest.mark.parametrize("claim_id", [0, 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_claim_id_has_all_64_bits_without_sign(claim_id: int) -> None:
    claim = OwnershipClaimed("a", "b", claim_id, 4, 1, 0)
    assert CODEC.decode(CODEC.encode(claim)) == claim


@pytest.mark.parametrize("claim_id", [-1, 1 << 64])
def test_a_claim_id_over_64_bits_is_refused(claim_id: int) -> None:
    with pytest.raises(Unencodable, match=r"OwnershipClaimed\.claim_id = "):
        CODEC.encode(OwnershipClaimed("a", "b", claim_id, 4, 1, 0))


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308, 0.1])
def test_floats_come_back_to_the_bit(value: float) -> None:
    back = CODEC.decode(CODEC.encode(msgspec.structs.replace(TRANSITION, events=[shifted(value)])))
    assert math.copysign(1, back.events[0].arr_delay_min) == math.copysign(1, value)
    assert back.events[0].arr_delay_min == value


def test_nan_comes_back_as_nan() -> None:
    back = CODEC.decode(CODEC.encode(msgspec.structs.replace(TRANSITION, events=[shifted(math.nan)])))
    assert math.isnan(back.events[0].arr_delay_min)


def shifted(value: float) -> FlightEntered:
    return msgspec.structs.replace(FLIGHT, arr_delay_min=value)


def test_a_whole_number_in_a_float_field_comes_back_as_a_float() -> None:
    back = CODEC.decode(CODEC.encode(msgspec.structs.replace(TRANSITION, events=[shifted(3)])))
    assert type(back.events[0].arr_delay_min) is float


@pytest.mark.parametrize(
    "n", [0, -1, 63, 64, -64, -65, 8191, 8192, 1 << 20, 1 << 27, 1 << 28, 1 << 41, 1 << 42, 1 << 62]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_around_each_length_come_back(n: int, sign: int) -> None:
    for value in (sign * n - 1, sign * n, sign * n + 1):
        record = msgspec.structs.replace(TRANSITION, at=value)
        assert CODEC.decode(CODEC.encode(record)).at == value
        assert PLAIN.decode(CODEC.encode(record)).at == value


@pytest.mark.parametrize("length", [0, 1, 63, 64, 4095, 4096, 8191, 8192, 70_000])
def test_texts_and_bytes_of_any_length_come_back(length: int) -> None:
    record = msgspec.structs.replace(TRANSITION, run_id="x" * length, reply=b"\xff" * length)
    assert CODEC.decode(CODEC.encode(record)) == record


def test_arrays_of_megabytes_come_back() -> None:
    call = KernelCalled("r", "k", "run", 0, [Array("a", "<f8", [100_000], b"\x01" * 800_000)])
    assert CODEC.decode(CODEC.encode(call)) == call


def test_an_array_in_several_blocks_and_with_sizes_is_read() -> None:
    # Other writers may cut an array into blocks, and give a block's size after a negative count.
    before_events = CODEC.encode(msgspec.structs.replace(TRANSITION, events=[]))[:-1]
    event = CODEC.encode(TRANSITION)[len(before_events) + 1 : -1]
    in_blocks = before_events + b"\x02" + event + b"\x03" + write_long(len(event) * 2) + event * 2 + b"\x00"
    assert CODEC.decode(in_blocks).events == [FLIGHT] * 3
    assert PLAIN.decode(in_blocks).events == [FLIGHT] * 3


@given(st.tuples(*[of(cls) for cls in EVENTS]))
@settings(max_examples=20, deadline=None)
def test_all_types_of_event_fit_in_one_transition(events: tuple[Event, ...]) -> None:
    record = msgspec.structs.replace(WITH_SENT, events=list(events))
    assert CODEC.decode(CODEC.encode(record)) == record


def test_a_command_without_fields_is_a_command() -> None:
    command = Command("id", "9E-2013-01-16", Origin("x", 3), CloseDay())
    assert CODEC.decode(CODEC.encode(command)) == command


def test_a_fence_holds_its_watermark() -> None:
    fence = Fence(9, 5, 1 << 63, 3, 40, Sent(5, 1 << 63, 2, 1))
    assert CODEC.decode(CODEC.encode(fence)) == fence


def test_what_is_no_record_of_its_own_is_refused() -> None:
    with pytest.raises(Unencodable, match="FlightEntered isn't a record of its own"):
        CODEC.encode(FLIGHT)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"at": 1.5}, r"Transition\.at = 1\.5 can't be written"),
        ({"at": 1 << 63}, r"Transition\.at = 9223372036854775808 can't be written: .* doesn't fit in 64 bits"),
        ({"run_id": b"x"}, r"Transition\.run_id = b'x' can't be written"),
        ({"run_id": "\ud800"}, r"Transition\.run_id = '\\ud800' can't be written: .*surrogates not allowed"),
        ({"reply": "text"}, r"Transition\.reply = 'text' can't be written"),
        ({"events": [CloseDay()]}, r"Transition\.events = .* can't be written: a CloseDay is none of "),
        ({"events": [shifted("late")]}, r"FlightEntered\.arr_delay_min = 'late' can't be written"),
        (
            {"events": [msgspec.structs.replace(FLIGHT, cancelled=None)]},
            r"FlightEntered\.cancelled = None can't be written",
        ),
    ],
)
def test_a_value_of_another_type_is_refused_by_record_and_field(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(Unencodable, match=text):
        CODEC.encode(msgspec.structs.replace(TRANSITION, **changes))


def test_an_unknown_fingerprint_says_so_and_is_known_after_learning() -> None:
    stranger = {"type": "record", "name": "test.Stranger", "fields": [{"name": "n", "type": "long"}]}
    fingerprint = parse(msgspec.json.encode(stranger).decode()).fingerprint
    data = b"\xc3\x01" + fingerprint.to_bytes(8, "little") + b"\x02"
    codec = Codec()
    with pytest.raises(UnknownSchema, match=f"no schema with fingerprint {fingerprint:016x} is known") as caught:
        codec.decode(data)
    assert caught.value.fingerprint == fingerprint
    assert codec.learn(msgspec.json.encode(stranger).decode()) == fingerprint
    assert codec.decode_plain(data) == ("test.Stranger", {"n": 1})


def test_learning_a_schema_twice_is_once() -> None:
    codec = Codec()
    text = codec.schema_json(next(iter(codec.fingerprints)))
    before = codec.fingerprints
    assert codec.learn(text) in before
    assert codec.fingerprints == before


def test_the_text_of_a_schema_that_isnt_known_cant_be_had() -> None:
    with pytest.raises(UnknownSchema):
        CODEC.schema_json(1)


@pytest.mark.parametrize(
    "data", [b"", b"\xc3", b"\xc3\x01", b"\xc3\x01\0\0\0\0\0\0\0", b'{"at": 1}', b"\xc3\x02" + bytes(40)]
)
def test_what_isnt_single_object_encoded_is_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable, match="must begin with C3 01"):
        CODEC.decode(data)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not an Avro schema"),
        ("{", "not an Avro schema"),
        ("[]", "a schema must be of a record"),
        ('"long"', "a schema must be of a record"),
        ('{"type": "record", "name": "A"', "not an Avro schema"),
        ('{"type": "record", "name": "A", "fields": [{"name": "b", "type": "Missing"}]}', "UnknownType: Missing"),
        ('{"type": "record", "name": "A", "version": "one", "fields": []}', "the version of A is 'one'"),
        (
            '{"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "array", "items": "null"}}]}',
            "an array of null whose items take no bytes",
        ),
        (
            '{"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "array", "items":'
            ' {"type": "record", "name": "B", "fields": []}}}]}',
            "an array of B whose items take no bytes",
        ),
    ],
)
def test_a_schema_that_cant_be_used_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(SchemaUnreadable, match=why):
        Codec().learn(text)


def test_a_record_that_holds_itself_is_read() -> None:
    codec = Codec()
    below = {"type": "array", "items": "millstream.Tree"}
    fields = [{"name": "name", "type": "string"}, {"name": "below", "type": below}]
    codec.register(Tree, {"type": "record", "name": "millstream.Tree", "fields": fields})
    tree = Tree("a", [Tree("b", []), Tree("c", [Tree("d", [])])])
    assert codec.decode(codec.encode(tree)) == tree


def test_a_transition_is_frozen_and_plain_after_decoding() -> None:
    back = CODEC.decode(CODEC.encode(WITH_SENT))
    assert isinstance(back, Transition)
    assert isinstance(back.sent, Sent)
