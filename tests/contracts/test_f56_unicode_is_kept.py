"""Texts are kept as given: equal-looking ones stay apart, nothing in them is lost or normalised (field case F56)."""

from __future__ import annotations

import unicodedata

import msgspec
import pytest

from millstream.events.codec import Codec
from millstream.events.daybook import OpenDay
from millstream.events.envelope import Command
from tests.support.records import TRANSITION

CODEC = Codec()
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def through(text: str) -> str:
    """The text after it has been a run id, and a field of a command's body."""
    as_run = CODEC.decode(CODEC.encode(msgspec.structs.replace(TRANSITION, run_id=text))).run_id
    as_field = CODEC.decode(CODEC.encode(Command("id", "run", None, OpenDay(text, "2013-01-16", None)))).body.carrier
    assert as_run == as_field
    assert isinstance(as_run, str)
    return as_run


def test_two_normal_forms_of_one_text_stay_two_texts() -> None:
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED
    assert through(COMPOSED) == COMPOSED
    assert through(DECOMPOSED) == DECOMPOSED
    assert through(COMPOSED) != through(DECOMPOSED)


@pytest.mark.parametrize(
    "text",
    [
        "a\x00b",
        "\x00",
        "\x1b[2J\x1b]0;x\x07",
        "\r\n\t\x7f\x80\x9f",
        "\ufeffbom",
        "\u202eright to left",
        "\U0001f600",
        "\ufb33",
        "\u20ac",
        "\U0010ffff",
        "\ufffe\uffff",
        "1\u2028 2\u2029",
        "",
    ],
)
def test_control_codes_and_rare_characters_survive(text: str) -> None:
    assert through(text) == text


def test_texts_that_look_equal_have_different_bytes() -> None:
    first = CODEC.encode(msgspec.structs.replace(TRANSITION, run_id=COMPOSED))
    second = CODEC.encode(msgspec.structs.replace(TRANSITION, run_id=DECOMPOSED))
    assert first != second
