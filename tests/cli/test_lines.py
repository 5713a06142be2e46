"""Lines become records, or stop everything with a number and a reason (a bad line, BOM, CRLF, no last line end)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from millstream.events.flight import Flight
from millstream.streams.cli.lines import BadLine, LineSplitter, Parsed, Parser

FLIGHT: dict[str, Any] = {
    "year": 2013, "month": 1, "day": 1, "dep_time": 517, "sched_dep_time": 515, "dep_delay": 2.0, "arr_time": 830,
    "sched_arr_time": 819, "arr_delay": 11.0, "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR",
    "dest": "IAH", "air_time": 227.0, "distance": 1400.0,
}  # fmt: skip
HEADER = ",".join(FLIGHT)
ROW = ",".join(str(value) for value in FLIGHT.values())


def json_line(**changes: Any) -> str:
    return json.dumps({**FLIGHT, **changes})


def parse(text: bytes, *, chunk: int = 7, **options: Any) -> list[Parsed[Flight]]:
    """All records of a file that comes in chunks of `chunk` bytes."""
    splitter, parser, found = LineSplitter(), Parser(Flight, **options), []
    for at in range(0, len(text), chunk):
        for number, line in splitter.feed(text[at : at + chunk]):
            found.append(parser.feed(number, line))
    for number, line in splitter.finish():
        found.append(parser.feed(number, line))
    parser.finish()
    return [parsed for parsed in found if parsed is not None]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_bom_line_ends_and_empty_lines_never_become_data(bom: bytes, end: str, last: bool, chunk: int) -> None:
    for lines in ([json_line(flight=1), "", json_line(flight=2)], [HEADER, ROW, "", ROW]):
        text = bom + end.join(lines).encode() + (end.encode() if last else b"")
        found = parse(text, chunk=chunk)
        assert [p.record.dest for p in found] == ["IAH", "IAH"]
        assert [p.first_line for p in found] == ([1, 3] if len(lines) == 3 else [2, 4])
        assert found[0].record.year == 2013


def test_json_and_csv_give_the_same_record() -> None:
    assert parse(json_line().encode())[0].record == parse(f"{HEADER}\n{ROW}".encode())[0].record


def test_a_csv_cell_without_a_value_is_none_only_where_the_field_may_be() -> None:
    row = ROW.replace("517", "NA").replace("N14228", "")
    record = parse(f"{HEADER}\n{row}".encode())[0].record
    assert record.dep_time is None
    assert record.tailnum is None
    with pytest.raises(BadLine, match=r"line 2: .*year"):
        parse(f"{HEADER}\n{ROW.replace('2013', 'NA')}".encode())


def test_columns_that_the_record_lacks_are_left_out_and_known_by_name() -> None:
    parser = Parser(Flight)
    parser.feed(1, f"{HEADER},hour")
    assert parser.feed(2, f"{ROW},5") is not None
    assert parser.ignored == ["hour"]


def test_a_quoted_cell_may_hold_commas_quotes_and_line_ends() -> None:
    row = ROW.replace("N14228", '"a,""b""\nc"')
    found = parse(f"{HEADER}\n{row}\n{ROW}".encode())
    assert found[0].record.tailnum == 'a,"b"\nc'
    assert [(p.first_line, p.last_line) for p in found] == [(2, 3), (4, 4)]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (f"{json_line()}\n{json_line()}\n{{\"year\": 2013,\n", 3, "no JSON"),
        (f"{json_line()}\n[1]\n", 2, "JSON object is expected"),
        (json_line(month="x"), 1, "Expected `int`, got `str` - at `$.month`"),
        (json_line(mnth=1), 1, "'mnth' not known"),
        (json_line(distance=None), 1, "distance"),
        ('{"year": 2013}', 1, "missing required field"),
        ("[" * 100_000, 1, "no JSON"),
        (json_line().replace("227.0", "1e999"), 1, ""),
        (f"{HEADER}\n{ROW},1\n", 2, "17 cells, the header has 16"),
        (f"{HEADER}\n{ROW.replace('227.0', 'nan')}\n", 2, "air_time is nan"),
        (HEADER + "\n" + ROW.replace("EWR", '"EWR') + "\n", 2, "a quote is opened here and never closed"),
        (f"{HEADER.replace('dest', 'Dest')}\n{ROW}\n", 1, "the header has no dest"),
        (f"{HEADER},dest\n", 1, "'dest' more than once"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_number_and_the_reason(text: str, line: int, reason: str) -> None:
    with pytest.raises(BadLine) as bad:
        parse(text.encode())
    assert bad.value.number == line
    assert reason in bad.value.reason


def test_bytes_that_are_no_utf8_are_named_with_their_place() -> None:
    with pytest.raises(BadLine, match=r"line 2: byte 1 is no UTF-8 \(ff\)"):
        parse(json_line().encode() + b"\n\xff\n")


def test_utf16_is_told_by_its_first_bytes() -> None:
    with pytest.raises(BadLine, match="line 1: the file is UTF-16"):
        parse(json_line().encode("utf-16") + b"\n")


def test_lines_before_the_first_wanted_are_passed_over_but_for_the_header() -> None:
    assert [p.first_line for p in parse(f"{HEADER}\n{ROW}\n{ROW}\n{ROW}".encode(), from_line=3)] == [3, 4]
    assert [p.first_line for p in parse(f"broken\n{json_line()}".encode(), from_line=2, format="json")] == [2]
