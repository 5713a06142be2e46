"""The day reports of the flights, computed plainly: what Millstream's must equal.

Standard library only, nothing of ours, so that it can't share a mistake with what it checks.

    python examples/flights/plain.py            prints the five worst days
"""

from __future__ import annotations

import csv
import gzip
import sys
from math import fsum
from pathlib import Path
from typing import TypedDict

JANUARY = Path(__file__).with_name("2013-01.csv.gz")
LATE_OVER_MIN = 30.0

CarrierDay = tuple[str, str]
"""Carrier and day, such as ('9E', '2013-01-16')."""


class Report(TypedDict):
    """Delays in minutes, None where nothing arrived. share_late: of arrivals later than 30 minutes."""

    flights: int
    arrived: int
    cancelled: int
    mean_arr_delay_min: float | None
    max_arr_delay_min: float | None
    share_late: float | None


def reports(path: Path | str = JANUARY) -> dict[CarrierDay, Report]:
    """The report of each carrier and day, in the order in which they first occur in the file."""
    days: dict[CarrierDay, list[dict[str, str]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            day = f"{row['year']}-{int(row['month']):02}-{int(row['day']):02}"
            days.setdefault((row["carrier"], day), []).append(row)
    return {key: _report(rows) for key, rows in days.items()}


def worst(reports: dict[CarrierDay, Report], n: int = 5, min_arrivals: int = 20) -> list[tuple[CarrierDay, Report]]:
    """The `n` days with the highest mean arrival delay, worst first. Days with fewer arrivals don't count."""
    ranked = sorted(
        (-mean, key)
        for key, report in reports.items()
        if report["arrived"] >= min_arrivals and (mean := report["mean_arr_delay_min"]) is not None
    )
    return [(key, reports[key]) for _, key in ranked[:n]]


def _report(rows: list[dict[str, str]]) -> Report:
    """Arrived: the arrival delay is known. Cancelled: it never departed. A diverted flight is neither."""
    delays = [float(row["arr_delay"]) for row in rows if row["arr_delay"] != "NA"]
    return Report(
        flights=len(rows),
        arrived=len(delays),
        cancelled=sum(row["dep_time"] == "NA" for row in rows),
        mean_arr_delay_min=fsum(delays) / len(delays) if delays else None,
        max_arr_delay_min=max(delays, default=None),
        share_late=sum(delay > LATE_OVER_MIN for delay in delays) / len(delays) if delays else None,
    )


def main() -> None:
    for (carrier, day), report in worst(reports(sys.argv[1] if len(sys.argv) > 1 else JANUARY)):
        print(
            f"{carrier} {day}: {report['arrived']} of {report['flights']} arrived,"
            f" {report['mean_arr_delay_min']:.2f} min late on average, {report['share_late']:.0%} over 30 min"
        )


if __name__ == "__main__":
    main()
