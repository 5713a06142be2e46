"""The kernel `day_figures` on the wire: from calls to arrays, from figures to commands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from millstream.events.daybook import Figures, RecordFigures
from millstream.events.envelope import Command
from millstream.events.errors import Undecodable
from millstream.events.kernel import Array, KernelCalled
from millstream.kernels.day_figures import DayArrays, launch


def _array(call: KernelCalled, name: str, dtype: str) -> Array:
    for array in call.arrays:
        if array.name == name:
            if array.dtype != dtype or len(array.shape) != 1:
                raise Undecodable(
                    f"array {name!r} is {array.dtype} {tuple(array.shape)}; day_figures takes {dtype} (n,)"
                )
            return array
    raise Undecodable(f"the call has no array {name!r}; day_figures takes 'cancelled' (|b1) and 'arr_delay_min' (<f8)")


def arrays_of(call: KernelCalled) -> DayArrays:
    """One day's arrays. Raises `Undecodable` naming the array that is missing or of another kind."""
    delays, cancelled = _array(call, "arr_delay_min", "<f8"), _array(call, "cancelled", "|b1")
    if len(delays.data) != 8 * delays.shape[0] or len(cancelled.data) != cancelled.shape[0]:
        raise Undecodable("an array's bytes don't fit its shape")
    if delays.shape != cancelled.shape:
        raise Undecodable(f"'arr_delay_min' has {delays.shape[0]} flights, 'cancelled' has {cancelled.shape[0]}")
    return DayArrays(arr_delay_min=np.frombuffer(delays.data, "<f8"), cancelled=np.frombuffer(cancelled.data, "|b1"))


def compute(calls: Sequence[KernelCalled]) -> list[Command]:
    """All calls in one launch; the answers in the order of the calls, each naming the request that it answers."""
    figures = launch([arrays_of(call) for call in calls])
    return [
        _answer(
            call,
            Figures(
                flights=f.flights,
                arrived=f.arrived,
                cancelled=f.cancelled,
                mean_arr_delay_min=f.mean_arr_delay_min,
                max_arr_delay_min=f.max_arr_delay_min,
                share_late=f.share_late,
            ),
            None,
        )
        for call, f in zip(calls, figures, strict=True)
    ]


def failed(call: KernelCalled, error: str) -> Command:
    """The answer to a call that can't be computed, alone or in company."""
    return _answer(call, None, error)


def _answer(call: KernelCalled, figures: Figures | None, error: str | None) -> Command:
    # The id is made of the request's: a second worker's answer to the same request is a copy, not another answer.
    return Command(f"{call.request_id}/answer", call.run_id, None, RecordFigures(call.request_id, figures, error))
