"""Pick the arrays' library: CuPy where a GPU works, NumPy everywhere else.

The only file that imports CuPy, and only when a kernel first asks: a process that launches nothing neither
waits for it nor holds memory on a GPU. MILLSTREAM_DEVICE decides: `cpu`, `gpu`, or `auto` (also when unset).
"""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SETTING = "MILLSTREAM_DEVICE"
CHOICES = ("auto", "cpu", "gpu")


class WrongDevice(ValueError):
    """MILLSTREAM_DEVICE has a value that isn't a device. The text names the ones that are."""


class NoGpu(RuntimeError):
    """A GPU was asked for and there is none that works. The text says what is missing."""


class _Device(NamedTuple):
    xp: ModuleType
    name: str


class _Gpu(NamedTuple):
    """cupy: None where no GPU can be used; then `note` says why, else it names the card."""

    cupy: ModuleType | None
    note: str


def xp() -> ModuleType:
    """The library that kernels compute with: `numpy` or `cupy`. Raises `WrongDevice`, `NoGpu`."""
    return _device().xp


def name() -> str:
    """Where kernels run, for people: begins with 'cpu' or 'gpu', then why. Raises as `xp` does."""
    return _device().name


def to_host(array: Any) -> NDArray[Any]:
    """An array of `xp()` as a NumPy array; waits for the GPU to have computed it."""
    if isinstance(array, np.ndarray):
        return array
    host: NDArray[Any] = array.get()
    return host


def _device() -> _Device:
    setting = os.environ.get(SETTING, "") or "auto"
    if setting not in CHOICES:
        raise WrongDevice(
            f"{SETTING}={setting!r} is not a device. Set it to one of {', '.join(CHOICES)}, or unset it, which is auto."
        )
    return _picked(setting)


@lru_cache(maxsize=len(CHOICES))
def _picked(setting: str) -> _Device:
    """Once a setting and process: trying a GPU takes about a second, and cards don't come and go."""
    if setting == "cpu":
        return _Device(np, f"cpu (NumPy {np.__version__}, as {SETTING} says)")
    gpu = _find_gpu()
    if gpu.cupy is not None:
        return _Device(gpu.cupy, f"gpu ({gpu.note})")
    if setting == "gpu":
        raise NoGpu(
            f"{SETTING}=gpu, but no GPU can be used: {gpu.note}. Mend that, or set {SETTING}=cpu"
            f" (or unset it) to compute with NumPy."
        )
    return _Device(np, f"cpu (NumPy {np.__version__}; no GPU: {gpu.note})")


def _find_gpu() -> _Gpu:
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            return _Gpu(None, f"CuPy can't be imported ({error})")
        return _Gpu(None, "CuPy is not installed (it comes with the extra `gpu`: millstream[gpu])")
    except (ImportError, OSError) as error:
        return _Gpu(None, f"CuPy can't be imported ({error})")
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
        if count == 0:
            return _Gpu(None, "the driver shows no device")
        # Only a launch tells: driver, compiler or headers can be missing, and each fails at first use.
        if int((cupy.arange(3) + 1).sum()) != 6:
            return _Gpu(None, "a trial launch gave a wrong sum")
        card = cupy.cuda.runtime.getDeviceProperties(int(cupy.cuda.runtime.getDevice()))["name"]
    except Exception as error:  # noqa: BLE001 - driver, compiler and libraries raise types that share no other base
        return _Gpu(None, f"a trial launch failed ({type(error).__name__}: {error})")
    shown = card.decode(errors="replace") if isinstance(card, bytes) else str(card)
    return _Gpu(cupy, f"{shown}, CuPy {cupy.__version__}")
