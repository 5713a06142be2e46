"""The kernel `day_figures`: right, and the same to the bit wherever a day stands in a batch."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.kernels.day_figures import (
    ROWS_A_DAY_MAX,
    DayArrays,
    DayFigures,
    WrongArray,
    check,
    launch,
    reference,
)
from tests.kernels.days import INF, NAN, bits, day, days, random_day

POISON = [
    day([NAN]),
    day([INF]),
    day([-INF]),
    day([INF, -INF, NAN]),
    day([1.7e308, 1.7e308]),
    day([]),
    day([5e-324]),
]


def alone(one: DayArrays) -> DayFigures:
    [figures] = launch([one])
    return figures


def test_a_day_is_counted_and_its_arrivals_are_averaged() -> None:
    figures = alone(day([31.0, -10.0, NAN, 30.0, NAN], [False, False, True, False, False]))
    assert figures == DayFigures(
        flights=5,
        arrived=3,
        cancelled=1,
        mean_arr_delay_min=17.0,
        max_arr_delay_min=31.0,
        share_late=1 / 3,
    )


def test_thirty_minutes_are_not_late_and_anything_over_is() -> None:
    assert alone(day([30.0, math.nextafter(30.0, 31.0)])).share_late == 0.5


def test_no_days_give_no_figures() -> None:
    assert launch([]) == []


def test_a_day_without_flights_has_counts_of_zero_and_no_delays() -> None:
    nothing = DayFigures(0, 0, 0, None, None, None)
    assert launch([day([])]) == [nothing]
    assert launch([day([]), day([]), day([7.0]), day([])])[::3] == [nothing, nothing]


def test_a_day_on_which_nothing_arrived_has_no_delays_rather_than_nan() -> None:
    assert alone(day([NAN, NAN], [True, False])) == DayFigures(2, 0, 1, None, None, None)


def test_an_infinite_delay_makes_the_mean_infinite_and_both_signs_make_it_nan() -> None:
    assert alone(day([INF, 1.0])).mean_arr_delay_min == INF
    assert alone(day([-INF, 1.0])) == DayFigures(2, 2, 0, -INF, 1.0, 0.0)
    both = alone(day([INF, -INF, 1.0]))
    assert math.isnan(both.mean_arr_delay_min or 0.0)
    assert both.max_arr_delay_min == INF


def test_a_sum_beyond_float64_makes_the_mean_infinite_and_one_that_comes_back_does_not() -> None:
    assert alone(day([1.7e308, 1.7e308])).mean_arr_delay_min == INF
    assert alone(day([-1.7e308, -1.7e308])).mean_arr_delay_min == -INF
    assert alone(day([1.7e308, 1.7e308, -1.7e308])).mean_arr_delay_min == 1.7e308 / 3


def test_the_largest_of_two_zeros_is_the_positive_one_in_either_order() -> None:
    assert bits(alone(day([0.0, -0.0]))) == bits(alone(day([-0.0, 0.0])))
    assert math.copysign(1.0, alone(day([-0.0])).max_arr_delay_min or 0.0) == 1.0


def test_large_and_tiny_delays_add_up_without_losing_the_tiny_ones() -> None:
    delays = [1e8, 1e-8] * 500 + [-1e8] * 500
    assert alone(day(delays)).mean_arr_delay_min == math.fsum(delays) / len(delays)
    assert sum(delays) != math.fsum(delays), "the case is too easy: adding in order is right as well"


@given(st.lists(days(), max_size=8))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_a_launch_gives_the_bits_of_the_reference(batch: list[DayArrays]) -> None:
    assert [bits(f) for f in launch(batch)] == [bits(reference(one)) for one in batch]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=60))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_the_mean_is_that_of_fsum(delays: list[float]) -> None:
    assert alone(day(delays)).mean_arr_delay_min == math.fsum(delays) / len(delays)


@given(days(), st.lists(days(), max_size=6), st.lists(days(), max_size=6))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_neighbours_never_leak(one: DayArrays, before: list[DayArrays], after: list[DayArrays]) -> None:
    assert bits(launch([*before, one, *after])[len(before)]) == bits(alone(one))


@pytest.mark.parametrize("size", [2, 7, 256])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_day_has_the_same_bits_alone_and_in_any_batch(size: int, place: str) -> None:
    rng = np.random.default_rng(seed=102)
    one = random_day(rng, 157)
    neighbours = [random_day(rng, int(n)) for n in rng.integers(0, 200, size - 1)]
    at = {"first": 0, "middle": (size - 1) // 2, "last": size - 1}[place]
    batch = [*neighbours[:at], one, *neighbours[at:]]
    assert bits(launch(batch)[at]) == bits(alone(one)) == bits(reference(one))


@pytest.mark.parametrize("size", [2, 7, 256])
def test_a_day_has_the_same_bits_beside_nan_and_infinite_rows(size: int) -> None:
    one = random_day(np.random.default_rng(seed=7), 64)
    poison = (POISON * size)[: size - 1]
    for batch, at in (([one, *poison], 0), ([*poison, one], size - 1)):
        assert bits(launch(batch)[at]) == bits(alone(one))


def test_the_order_of_the_flights_changes_no_bit() -> None:
    rng = np.random.default_rng(seed=3)
    one = random_day(rng, 500)
    order = rng.permutation(500)
    assert bits(alone(DayArrays(one.arr_delay_min[order], one.cancelled[order]))) == bits(alone(one))


def test_the_largest_day_that_is_taken_is_still_exact() -> None:
    # The worst case: all bits set at the top of a group of eight powers, and odd ones at the bottom of a group.
    # The last value cancels what float64 can hold of the sum: what is left shows any bit that was lost.
    delays = [2.0**15 - 2.0**-38] * (ROWS_A_DAY_MAX - 3) + [2.0**7 + 2.0**-45, 0.5 + 2.0**-53]
    delays.append(-math.fsum(delays))
    assert len(delays) == ROWS_A_DAY_MAX
    assert alone(day(delays)).mean_arr_delay_min == math.fsum(delays) / len(delays) != 0.0


def test_a_larger_day_is_refused_with_its_size_and_the_limit() -> None:
    rows = ROWS_A_DAY_MAX + 1
    large = DayArrays(np.broadcast_to(0.0, rows), np.broadcast_to(np.False_, rows))
    with pytest.raises(WrongArray, match=r"day 1 of the batch: 524,289 flights are over the limit of 524,288"):
        launch([day([1.0]), large])


def plain_twin() -> DayArrays:
    return random_day(np.random.default_rng(seed=104), 99)


def test_strided_arrays_give_the_figures_of_their_plain_twins() -> None:
    twin = plain_twin()
    wide = np.empty((99, 5))
    wide[:, 3] = twin.arr_delay_min
    reverse = DayArrays(twin.arr_delay_min[::-1].copy()[::-1], twin.cancelled[::-1].copy()[::-1])
    column = DayArrays(wide[:, 3], twin.cancelled)
    assert not column.arr_delay_min.flags.c_contiguous
    assert [bits(f) for f in launch([reverse, twin, column])] == [bits(alone(twin))] * 3
    halved = DayArrays(twin.arr_delay_min[::-2], twin.cancelled[::-2])
    assert bits(alone(halved)) == bits(alone(DayArrays(halved[0].copy(), halved[1].copy())))


def test_big_endian_arrays_give_the_figures_of_their_plain_twins() -> None:
    twin = plain_twin()
    swapped = DayArrays(twin.arr_delay_min.astype(">f8"), twin.cancelled)
    assert [bits(f) for f in launch([swapped, twin])] == [bits(alone(twin))] * 2
    assert bits(alone(swapped)) == bits(reference(swapped)) == bits(alone(twin))


def test_read_only_and_mapped_arrays_are_read_and_left_alone(tmp_path: Path) -> None:
    twin = plain_twin()
    np.save(tmp_path / "delays.npy", twin.arr_delay_min)
    mapped = np.load(tmp_path / "delays.npy", mmap_mode="r")
    flags = twin.cancelled.copy()
    flags.flags.writeable = False
    assert bits(alone(DayArrays(mapped, flags))) == bits(alone(twin))


def test_a_launch_changes_none_of_its_arrays() -> None:
    one = plain_twin()
    before = one.arr_delay_min.tobytes(), one.cancelled.tobytes()
    launch([one, one])
    assert (one.arr_delay_min.tobytes(), one.cancelled.tobytes()) == before


@pytest.mark.parametrize("dtype", ["f2", "f4", "i8", "?", "c8", "c16", "O", "M8[m]", "U4", "V8"])
def test_delays_of_another_type_are_refused_by_name(dtype: str) -> None:
    delays = np.zeros(2, dtype=dtype)
    one = DayArrays(delays, np.zeros(2, np.bool_))
    with pytest.raises(WrongArray, match=r"day 1 of the batch, arr_delay_min: expected float64") as refused:
        launch([day([1.0]), one])
    assert f"got {delays.dtype} of shape (2,)" in str(refused.value)
    with pytest.raises(WrongArray):
        reference(one)


@pytest.mark.parametrize("dtype", ["u1", "i8", "f8", "O"])
def test_flags_of_another_type_are_refused_by_name(dtype: str) -> None:
    with pytest.raises(WrongArray, match=r"day 0 of the batch, cancelled: expected bool"):
        launch([DayArrays(np.zeros(2), np.zeros(2, dtype=dtype))])


@pytest.mark.parametrize("shape", [(), (2, 1), (0, 64)])
def test_arrays_that_are_not_one_value_a_flight_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(WrongArray, match=r"arr_delay_min: expected float64 of shape \(flights,\)"):
        launch([DayArrays(np.zeros(shape), np.zeros(shape, np.bool_))])


def test_arrays_of_unequal_length_are_refused_with_both_lengths() -> None:
    with pytest.raises(WrongArray, match="arr_delay_min has 3 values and cancelled 2"):
        check(DayArrays(np.zeros(3), np.zeros(2, np.bool_)))


def test_a_masked_array_is_refused_since_its_mask_would_be_lost() -> None:
    masked = np.ma.masked_array([1.0, 2.0], mask=[True, False])
    with pytest.raises(WrongArray, match=r"got MaskedArray.*a mask is not looked at"):
        launch([DayArrays(masked, np.zeros(2, np.bool_))])


def test_a_list_is_refused() -> None:
    with pytest.raises(WrongArray, match="expected a NumPy array of float64, got list"):
        launch([DayArrays([1.0], np.zeros(1, np.bool_))])  # type: ignore[arg-type]
