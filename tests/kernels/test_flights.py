"""The flights of January 2013: what is in the file, and that kernel and plain computation agree on them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.flights import data, plain
from millstream.events.flight import Flight
from millstream.kernels.day_figures import DayArrays, launch, reference

FOLDER = Path(data.__file__).parent


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    return list(data.read())


@pytest.fixture(scope="module")
def reports() -> dict[plain.CarrierDay, plain.Report]:
    return plain.reports()


def test_the_file_holds_every_flight_of_the_month_in_the_order_of_its_days(flights: list[Flight]) -> None:
    assert len(flights) == 27_004
    assert [data.day_of(f) for f in flights] == sorted(data.day_of(f) for f in flights)
    assert {(f.year, f.month) for f in flights} == {(2013, 1)}
    assert {f.origin for f in flights} == {"EWR", "JFK", "LGA"}


def test_the_rows_are_those_of_the_source() -> None:
    check = subprocess.run(
        [sys.executable, "-P", str(FOLDER / "make_data.py"), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr


def test_a_file_with_other_rows_is_told_apart(tmp_path: Path) -> None:
    other = tmp_path / "other.csv.gz"
    lines = gzip.decompress(data.JANUARY.read_bytes()).splitlines(keepends=True)
    other.write_bytes(gzip.compress(b"".join(lines[:-1])))
    check = subprocess.run(
        [sys.executable, "-P", str(FOLDER / "make_data.py"), "--check", "--file", str(other)],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 1
    assert "expected 27,004 rows" in check.stderr
    assert "found 27,003 rows" in check.stderr


def test_a_row_becomes_a_flight_and_what_is_not_known_becomes_none(flights: list[Flight]) -> None:
    assert flights[0] == Flight(
        year=2013,
        month=1,
        day=1,
        dep_time=517,
        sched_dep_time=515,
        dep_delay=2.0,
        arr_time=830,
        sched_arr_time=819,
        arr_delay=11.0,
        carrier="UA",
        flight=1545,
        tailnum="N14228",
        origin="EWR",
        dest="IAH",
        air_time=227.0,
        distance=1400.0,
    )
    never_left = next(f for f in flights if data.cancelled(f))
    assert (never_left.dep_delay, never_left.arr_time, never_left.arr_delay) == (None, None, None)


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(b"day,carrier\n1,9E\n"))
    with pytest.raises(ValueError, match=r"begins with the columns \['day', 'carrier'\]"):
        next(data.read(other))


def test_the_plain_reports_have_the_known_figures(reports: dict[plain.CarrierDay, plain.Report]) -> None:
    assert len(reports) == 460
    assert sum(r["flights"] for r in reports.values()) == 27_004
    assert sum(r["arrived"] for r in reports.values()) == 26_398
    assert sum(r["cancelled"] for r in reports.values()) == 521
    assert [key for key, r in reports.items() if not r["arrived"]] == [("YV", "2013-01-13")]
    late = [r for r in reports.values() if r["arrived"] >= 20 and (r["mean_arr_delay_min"] or 0.0) > 30]
    assert len(late) == 26


def test_the_worst_day_is_that_of_9e_on_the_16th(reports: dict[plain.CarrierDay, plain.Report]) -> None:
    ranked = plain.worst(reports)
    assert len(ranked) == 5
    key, report = ranked[0]
    assert key == ("9E", "2013-01-16")
    assert (report["mean_arr_delay_min"], report["arrived"], report["flights"]) == (101.3125, 32, 53)


def test_a_launch_over_all_days_equals_the_plain_reports_exactly(
    flights: list[Flight], reports: dict[plain.CarrierDay, plain.Report]
) -> None:
    days: dict[plain.CarrierDay, list[Flight]] = {}
    for flight in flights:
        days.setdefault((flight.carrier, data.day_of(flight)), []).append(flight)
    batch = [
        DayArrays(
            np.array([np.nan if f.arr_delay is None else f.arr_delay for f in day]),
            np.array([data.cancelled(f) for f in day]),
        )
        for day in days.values()
    ]
    figures = launch(batch)
    assert figures == [reference(one) for one in batch]
    assert {key: f._asdict() for key, f in zip(days, figures, strict=True)} == reports
