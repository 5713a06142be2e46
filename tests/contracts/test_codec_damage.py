"""Damaged bytes end in one error of ours: at once, and without taking more memory than they are long."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.events.avro_read import PYTHON_LEAVES
from millstream.events.avro_write import write_long
from millstream.events.codec import HEADER_BYTES, Codec
from millstream.events.errors import Undecodable
from millstream.events.kernel import Array, KernelCalled
from tests.support.records import TRANSITION, WITH_SENT, records

CODECS = [Codec(), Codec(leaves=PYTHON_LEAVES)]
HUGE = [write_long(n) for n in (1 << 31, 1 << 40, (1 << 62) - 1, (1 << 63) - 1, -1, -(1 << 40), -(1 << 63))]
SAMPLES = [
    CODECS[0].encode(record)
    for record in (TRANSITION, WITH_SENT, KernelCalled("r", "k", "x", 0, [Array("a", "<f8", [2], bytes(16))]))
]


def decode_or_say_so(data: bytes) -> None:
    """With both kinds of leaves there is a record, or an error of ours that says which record it isn't."""
    for codec in CODECS:
        said = refusal(codec, data)
        assert said is None or "can't be read as millstream." in said


def refusal(codec: Codec, data: bytes) -> str | None:
    try:
        assert repr(codec.decode(data))
    except Undecodable as error:
        return str(error)
    return None


@given(records(), st.data())
@settings(max_examples=300, deadline=None)
def test_a_record_cut_anywhere_is_undecodable(record: msgspec.Struct, data: st.DataObject) -> None:
    encoded = CODECS[0].encode(record)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    for codec in CODECS:
        with pytest.raises(Undecodable):
            codec.decode(encoded[:cut])


@given(records(), st.binary(min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_bytes_after_the_record_are_refused(record: msgspec.Struct, more: bytes) -> None:
    for codec in CODECS:
        with pytest.raises(Undecodable, match=f"{len(more)} bytes are left over"):
            codec.decode(codec.encode(record) + more)


@given(records(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=500, deadline=None)
def test_changed_bytes_are_read_or_refused(record: msgspec.Struct, changes: list[tuple[int, int]]) -> None:
    encoded = bytearray(CODECS[0].encode(record))
    for place, byte in changes:
        if len(encoded) > HEADER_BYTES:
            encoded[HEADER_BYTES + place % (len(encoded) - HEADER_BYTES)] = byte
    decode_or_say_so(bytes(encoded))


@given(st.sampled_from(SAMPLES), st.integers(0, 200), st.sampled_from(HUGE), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_huge_and_negative_numbers_anywhere_are_read_or_refused(
    data: bytes, place: int, number: bytes, over: int
) -> None:
    at = HEADER_BYTES + place % (len(data) - HEADER_BYTES)
    decode_or_say_so(data[:at] + number + data[at + over :])


@given(st.sampled_from(SAMPLES), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_noise_under_a_known_fingerprint_is_read_or_refused(data: bytes, noise: bytes) -> None:
    decode_or_say_so(data[:HEADER_BYTES] + noise)


@pytest.mark.parametrize("number", HUGE)
@pytest.mark.parametrize("place", ["text", "bytes", "array"])
def test_a_length_that_lies_takes_no_memory(place: str, number: bytes) -> None:
    head = SAMPLES[0][:HEADER_BYTES] + b"\x00"  # at: 0
    body = {
        "text": number + b"x" * 50,
        "bytes": b"\x00\x00\x00\x00\x02" + number + b"x" * 50,
        "array": b"\x00\x00\x00\x00\x00" + number + b"x" * 50,
    }[place]
    for codec in CODECS:
        tracemalloc.start()
        with pytest.raises(Undecodable, match=r"can't be read as millstream\.Transition: "):
            codec.decode(head + body)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000


def test_a_string_that_isnt_utf8_is_undecodable() -> None:
    data = SAMPLES[0].replace(b"9E-2013-01-16", b"9E-2013-01-\xff\xfe")
    with pytest.raises(Undecodable, match="UnicodeDecodeError"):
        CODECS[0].decode(data)


def test_a_branch_that_the_union_doesnt_have_is_undecodable() -> None:
    before_events = CODECS[0].encode(msgspec.structs.replace(TRANSITION, events=[]))[:-1]
    for index in (-1, 99, 1 << 40):
        decode_or_say_so(before_events + b"\x02" + write_long(index) + b"\x00")
        with pytest.raises(Undecodable):
            CODECS[0].decode(before_events + b"\x02" + write_long(index) + b"\x00")
