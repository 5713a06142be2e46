"""`millstream history`: what happened to a run, and what people get who mistype its id."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import BOOK
from tests.support.commands import millstream


def test_every_event_is_shown_with_its_cause_and_refusals_too(shop: Path) -> None:
    shown = millstream("history", BOOK, cwd=shop).stdout
    for text in ("DayOpened", "FlightEntered position=2", f"{BOOK}/close", "FiguresRecorded", "DayClosed", "again"):
        assert text in shown
    assert "CommandRefused code=exists" in shown
    assert shown.index("DayOpened") < shown.index("FlightEntered") < shown.index("DayClosing")


def test_json_has_a_line_for_each_transition_in_order(shop: Path) -> None:
    lines = [msgspec.json.decode(line) for line in millstream("history", BOOK, "--json", cwd=shop).stdout.splitlines()]
    assert [line["offset"] for line in lines] == sorted(line["offset"] for line in lines)
    assert {line["run_id"] for line in lines} == {BOOK}
    events = [event["type"] for line in lines for event in line["events"]]
    assert events[:4] == ["DayOpened", "FlightEntered", "FlightEntered", "FlightEntered"]
    assert events[-1] == "DayClosed"
    assert lines[-1]["events"][0]["figures"]["mean_arr_delay_min"] == 4.5


def test_the_middle_can_be_left_out(shop: Path) -> None:
    shown = millstream("history", BOOK, "--ends", "2", cwd=shop).stdout
    assert "transitions left out" in shown
    assert "DayOpened" in shown
    assert "DayClosed" in shown
    assert "position=2" not in shown


def test_a_unique_beginning_and_the_newest_run_are_enough(shop: Path) -> None:
    assert f"{BOOK} " in millstream("history", "9E-2013-01-16", cwd=shop).stdout
    assert "9E-2013-01-17 " in millstream("history", "9E-2013-01-17", cwd=shop).stdout
    several = millstream("history", "9E-2013-01-1", cwd=shop, code=2).stderr
    assert "the beginning of 2 runs: 9E-2013-01-16, 9E-2013-01-17" in several
    assert "9E-2013-01 " in millstream("history", "@last", cwd=shop).stdout


def test_an_id_that_never_was_ends_with_3_and_ids_that_are_near(shop: Path) -> None:
    missed = millstream("history", "9E-2013-01-61", cwd=shop, code=3).stderr
    assert "nothing ever happened to a run '9E-2013-01-61'" in missed
    assert BOOK in missed


@pytest.mark.parametrize("run_id", ["a\nb", "../x", "", "x" * 300, "a b", "\x1b[2J", "é", "a//b"])
def test_a_bad_id_ends_with_2_and_the_allowed_set(tmp_path: Path, shop: Path, run_id: str) -> None:
    refused = millstream("history", "--", run_id, cwd=shop, code=2)
    assert "A run id is 1 to 255 characters of A-Z a-z 0-9 _ . : @ = + / -" in refused.stderr
    assert refused.stderr.replace("\n", "").isprintable()


def test_an_id_with_a_leading_dash_is_refused_too(shop: Path) -> None:
    assert "beginning with a letter" in millstream("history", "--", "-x", cwd=shop, code=2).stderr
