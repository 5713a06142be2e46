"""The flights of January 2013 as records, for the stream `flights`."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

from millstream.events.flight import Flight

JANUARY = Path(__file__).with_name("2013-01.csv.gz")

# Of the file's 19 columns the last three (hour, minute, time_hour) say again what sched_dep_time says.
_COLUMNS = list(Flight.__struct_fields__)


def read(path: Path | str = JANUARY) -> Iterator[Flight]:
    """Each row as a `Flight`, in the order of the file: by date, within a day as the source has them.

    Raises `ValueError` where the columns aren't those that the file should have.
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        columns = next(rows, [])
        if columns[: len(_COLUMNS)] != _COLUMNS:
            raise ValueError(
                f"{str(path)!r} begins with the columns {columns}, not with {_COLUMNS}. It is another file,"
                f" or damaged: make it again with make_data.py."
            )
        for row in rows:
            yield _flight(row)


def day_of(flight: Flight) -> str:
    """The day of departure as in a day book's id: '2013-01-16'."""
    return f"{flight.year:04}-{flight.month:02}-{flight.day:02}"


def cancelled(flight: Flight) -> bool:
    """It never departed. One that departed and has no arrival delay: neither this nor arrived."""
    return flight.dep_time is None


def _flight(row: list[str]) -> Flight:
    return Flight(
        year=int(row[0]),
        month=int(row[1]),
        day=int(row[2]),
        dep_time=_int(row[3]),
        sched_dep_time=int(row[4]),
        dep_delay=_float(row[5]),
        arr_time=_int(row[6]),
        sched_arr_time=int(row[7]),
        arr_delay=_float(row[8]),
        carrier=row[9],
        flight=int(row[10]),
        tailnum=None if row[11] == "NA" else row[11],
        origin=row[12],
        dest=row[13],
        air_time=_float(row[14]),
        distance=float(row[15]),
    )


def _int(text: str) -> int | None:
    return None if text == "NA" else int(text)


def _float(text: str) -> float | None:
    return None if text == "NA" else float(text)
