"""A stand-in for CuPy on machines without a GPU: as strict about arrays, and adding up in any order.

It has the functions that our kernels use and no other, refuses NumPy arrays where CuPy does, never becomes
one by itself, and adds up in a shuffled order as a GPU's atomic additions do.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class Foreign:
    """An array elsewhere: only `get` brings it here."""

    __array_ufunc__ = None

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self) -> int:
        return len(self._values)

    def __int__(self) -> int:
        return int(self._values)

    def get(self) -> np.ndarray:
        return self._values.copy()

    def astype(self, dtype: Any) -> Foreign:
        return Foreign(self._values.astype(dtype))

    def min(self) -> Foreign:
        return Foreign(np.asarray(self._values.min()))

    def max(self) -> Foreign:
        return Foreign(np.asarray(self._values.max()))

    def sum(self) -> Foreign:
        return Foreign(np.asarray(self._values.sum()))


def _values(thing: object) -> Any:
    """What is inside, of what CuPy would take: its own arrays and Python's numbers."""
    if isinstance(thing, Foreign):
        return thing._values
    if isinstance(thing, bool | int | float):
        return thing
    raise TypeError(f"Unsupported type {type(thing)}")


def _lifted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        result = function(*map(_values, arguments))
        return tuple(map(Foreign, result)) if isinstance(result, tuple) else Foreign(np.asarray(result))

    return call


for _name in ("add", "sub", "mul", "rshift", "and_", "lt", "gt", "eq", "invert"):
    _method = f"__{_name.rstrip('_')}__"
    setattr(Foreign, _method, (lambda f: lambda *a: _lifted(f)(*a))(getattr(operator, _name)))


def cupy(*, devices: int = 1, broken: str | None = None) -> ModuleType:
    """A module to be put in the place of `cupy`. broken: what its driver answers to everything."""
    stand_in = ModuleType("cupy")
    module: Any = stand_in
    shuffled = np.random.default_rng(seed=16)

    def device_count() -> int:
        if broken:
            raise RuntimeError(broken)
        return devices

    def bincount(x: Foreign, weights: Foreign, minlength: int) -> Foreign:
        order = shuffled.permutation(len(x))
        return Foreign(np.bincount(_values(x)[order], _values(weights)[order], minlength))

    def maximum_at(array: Foreign, at: Foreign, values: Foreign) -> None:
        order = shuffled.permutation(len(at))
        np.maximum.at(array._values, _values(at)[order], _values(values)[order])

    runtime = SimpleNamespace(
        getDeviceCount=device_count, getDevice=lambda: 0, getDeviceProperties=lambda _: {"name": b"Stand-in"}
    )
    module.__version__ = "0"
    module.cuda = SimpleNamespace(runtime=runtime)
    module.float64 = np.float64
    module.asarray = lambda values: Foreign(np.array(values))
    module.arange = lambda n: Foreign(np.arange(n))
    module.full = lambda n, value: Foreign(np.full(n, value))
    module.bincount = bincount
    module.maximum = SimpleNamespace(at=maximum_at)
    for name in ("frexp", "ldexp", "trunc", "isnan", "isfinite", "where"):
        setattr(module, name, _lifted(getattr(np, name)))
    return stand_in
