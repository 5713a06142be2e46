"""Days of flights for tests, and the comparison to the bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from millstream.kernels.day_figures import DayArrays, DayFigures

NAN, INF = math.nan, math.inf


def day(delays: Sequence[float], cancelled: Sequence[bool] | None = None) -> DayArrays:
    flags = np.isnan(delays) if cancelled is None else cancelled
    return DayArrays(np.array(delays, dtype=np.float64), np.array(flags, dtype=np.bool_))


def bits(figures: DayFigures) -> tuple[object, ...]:
    """The figures such that == compares to the bit: NaN is equal to NaN, and 0.0 isn't -0.0."""
    return tuple(struct.pack(">d", v) if isinstance(v, float) else v for v in figures)


def random_day(rng: np.random.Generator, flights: int) -> DayArrays:
    """Delays over 40 powers of two and both signs, such that any other order of adding rounds otherwise."""
    delays = rng.standard_normal(flights) * 2.0 ** rng.integers(-20, 20, flights)
    delays[rng.random(flights) < 0.1] = NAN
    return DayArrays(delays, rng.random(flights) < 0.05)


minutes = st.one_of(
    st.integers(-90, 1500).map(float),
    st.floats(),  # also NaN, infinite, subnormal, and near the end of the range
    st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 30.0, math.nextafter(30.0, 31.0), 1e8, 1e-8, 5e-324, 1.7e308]),
)


@st.composite
def days(draw: st.DrawFn) -> DayArrays:
    rows = draw(st.lists(st.tuples(minutes, st.booleans()), max_size=40))
    return day([delay for delay, _ in rows], [cancelled for _, cancelled in rows])
