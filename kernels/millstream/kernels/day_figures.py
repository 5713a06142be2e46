"""Figures of days of flights, many days in one launch.

`launch` computes on whatever `device` picked; `reference` says in plain Python what is right, and the two
give the same bits. What a day gets doesn't depend on its place in a batch nor on its neighbours, because
nothing that is rounded is ever added up: see `_exact_sums`. Every other figure is a count, a quotient of
two counts, or one of the day's own values.

NaN means that a flight didn't arrive. An infinite delay is a value like any other: it arrived, it is late (or
early), and the mean follows IEEE 754: infinite, or NaN where a day has both signs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from millstream.kernels import device

NAME = "day_figures"
LATE_OVER_MIN = 30.0

ROWS_A_DAY_MAX = 2**19
"""What `_exact_sums` can add up without rounding; four times what fits into a record."""

_LOW_BITS = 27
_HIGH_BITS = 26
_GROUP_LOG2 = 3
_GROUP = 1 << _GROUP_LOG2


class DayArrays(NamedTuple):
    """One day's flights, one value a flight: both (n,), in minutes and as bool. NaN: didn't arrive."""

    arr_delay_min: NDArray[np.float64]
    cancelled: NDArray[np.bool_]


class DayFigures(NamedTuple):
    """Delays in minutes; None where nothing arrived. share_late: of arrivals later than 30 minutes."""

    flights: int
    arrived: int
    cancelled: int
    mean_arr_delay_min: float | None
    max_arr_delay_min: float | None
    share_late: float | None


class WrongArray(ValueError):
    """Not what the kernel takes; nothing was computed. The text names day, array, expected and found."""


def check(day: DayArrays, place: int = 0) -> None:
    """Raise `WrongArray` where `launch` would refuse this day. place: in the batch, for the text.

    Whoever fills a batch checks each call first, so that one bad call isn't refused with its neighbours.
    Strided, read-only and big-endian arrays are fine: they are copied, by value, before anything is computed.
    """
    delays, cancelled = day
    _check_array(delays, "arr_delay_min", np.float64, place)
    _check_array(cancelled, "cancelled", np.bool_, place)
    if len(delays) != len(cancelled):
        raise WrongArray(
            f"{NAME}, day {place} of the batch: arr_delay_min has {len(delays)} values and cancelled"
            f" {len(cancelled)}. Send one value a flight in each."
        )
    if len(delays) > ROWS_A_DAY_MAX:
        raise WrongArray(
            f"{NAME}, day {place} of the batch: {len(delays):,} flights are over the limit of"
            f" {ROWS_A_DAY_MAX:,} a day, up to which sums are exact. Split the day."
        )


def launch(batch: Sequence[DayArrays]) -> list[DayFigures]:
    """The figures of each day, in the order of the batch; days may have any lengths, also 0.

    Raises `WrongArray` (nothing is computed for any day then), and what `device.xp` raises.
    """
    for place, day in enumerate(batch):
        check(day, place)
    lengths = [len(day.cancelled) for day in batch]
    if not any(lengths):
        return [_NO_FLIGHTS] * len(batch)
    xp, days = device.xp(), len(batch)
    day_of = xp.asarray(np.repeat(np.arange(days), lengths))
    delays = xp.asarray(np.concatenate([day.arr_delay_min for day in batch], dtype=np.float64))
    cancelled = xp.asarray(np.concatenate([day.cancelled for day in batch]))

    def count(flag: Any) -> list[float]:
        counts = xp.bincount(day_of, weights=flag.astype(xp.float64), minlength=days)
        values: list[float] = device.to_host(counts).tolist()
        return values

    arrived = ~xp.isnan(delays)
    latest = xp.full(days, -math.inf)
    xp.maximum.at(latest, day_of, xp.where(arrived, delays, -math.inf))
    sums = _exact_sums(xp, day_of, xp.where(xp.isfinite(delays), delays, 0.0), days)
    columns = zip(
        lengths,
        count(arrived),
        count(cancelled),
        count(delays > LATE_OVER_MIN),
        count(delays == math.inf),
        count(delays == -math.inf),
        sums,
        device.to_host(latest).tolist(),
        strict=True,
    )
    return [_figures(*column) for column in columns]


def reference(day: DayArrays) -> DayFigures:
    """The figures of one day in plain Python: what `launch` must give, bit by bit. Raises `WrongArray`."""
    check(day)
    arrivals = [delay for delay in day.arr_delay_min.tolist() if not math.isnan(delay)]
    finite = [delay for delay in arrivals if math.isfinite(delay)]
    exact = sum(map(Fraction, finite), Fraction(0))
    return _figures(
        flights=len(day.cancelled),
        arrived=len(arrivals),
        cancelled=sum(day.cancelled.tolist()),
        late=sum(delay > LATE_OVER_MIN for delay in arrivals),
        plus_infinite=arrivals.count(math.inf),
        minus_infinite=arrivals.count(-math.inf),
        finite_sum=_quotient(exact.numerator, exact.denominator),
        latest=max(arrivals, default=-math.inf),
    )


def _check_array(array: object, field: str, kind: type[np.generic], place: int) -> None:
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise WrongArray(
            f"{NAME}, day {place} of the batch, {field}: expected a NumPy array of {kind(0).dtype}, got"
            f" {type(array).__name__}. Make it one; a mask is not looked at: write NaN where a flight didn't arrive."
        )
    # The scalar type, not the dtype: float64 of the other byte order is float64.
    if array.dtype.type is not kind or array.ndim != 1:
        raise WrongArray(
            f"{NAME}, day {place} of the batch, {field}: expected {kind(0).dtype} of shape (flights,), got"
            f" {array.dtype} of shape {array.shape}. Convert it where it is made."
        )


def _exact_sums(xp: ModuleType, day_of: Any, values: Any, days: int) -> list[float]:
    """The sum of each day's values, exact and then rounded once, as `math.fsum` does it. values: finite.

    A running sum in float64 depends on its order, and with it on how the rows are cut: pairwise sums go by
    length and alignment, a GPU's atomic additions by chance. So each value is split into two whole numbers
    of at most 27 bits and a power of two. Whole numbers below 2**53 add up in float64 without rounding, in
    any order. A cell is one day and one group of 8 neighbouring powers: 27 + 7 bits a value leave 19 bits
    for rows. The cells of a day are put together as Python integers.
    """
    mantissa, exponent = xp.frexp(values)
    scaled = mantissa * 2.0**_HIGH_BITS
    high = xp.trunc(scaled)
    low = (scaled - high) * 2.0**_LOW_BITS
    group, shift = exponent >> _GROUP_LOG2, exponent & (_GROUP - 1)
    first = int(group.min())
    width = int(group.max()) - first + 1
    cell = day_of * width + (group - first)

    def add_up(part: Any) -> list[list[float]]:
        sums = xp.bincount(cell, weights=xp.ldexp(part, shift), minlength=days * width)
        rows: list[list[float]] = device.to_host(sums).reshape(days, width).tolist()
        return rows

    unit = first * _GROUP - _HIGH_BITS - _LOW_BITS
    return [_joined(highs, lows, unit) for highs, lows in zip(add_up(high), add_up(low), strict=True)]


def _joined(highs: list[float], lows: list[float], unit: int) -> float:
    """The value of one day's cells, rounded once. The cell at place p counts in 2**(unit + 8 * p)."""
    total = 0
    for place, (high, low) in enumerate(zip(highs, lows, strict=True)):
        if high or low:
            total += ((int(high) << _LOW_BITS) + int(low)) << (_GROUP * place)
    return _quotient(total << unit, 1) if unit >= 0 else _quotient(total, 1 << -unit)


def _quotient(numerator: int, denominator: int) -> float:
    """The nearest float64, infinite where there is none: one absurd day must not stop a batch."""
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def _figures(
    flights: int,
    arrived: float,
    cancelled: float,
    late: float,
    plus_infinite: float,
    minus_infinite: float,
    finite_sum: float,
    latest: float,
) -> DayFigures:
    """Counts come as float64 from a launch: they are whole and below 2**53."""
    if not arrived:
        return DayFigures(flights, 0, int(cancelled), None, None, None)
    total = finite_sum
    if plus_infinite or minus_infinite:
        total = math.nan if plus_infinite and minus_infinite else math.inf if plus_infinite else -math.inf
    # Plus 0.0 makes -0.0 to 0.0: which of the two zeros is the larger one depends on the order.
    return DayFigures(flights, int(arrived), int(cancelled), total / arrived, latest + 0.0, late / arrived)


_NO_FLIGHTS = DayFigures(0, 0, 0, None, None, None)
