"""Which library computes, and that a kernel leaves everything to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest

from millstream.kernels import day_figures, device
from tests.kernels.days import INF, NAN, bits, day, random_day
from tests.kernels.foreign_arrays import Foreign, cupy

Use = Callable[[str | None, ModuleType | None], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """use(setting, module): MILLSTREAM_DEVICE is this, and `import cupy` gives that, None: it fails."""

    def install(setting: str | None, module: ModuleType | None) -> None:
        device._picked.cache_clear()
        monkeypatch.setitem(sys.modules, "cupy", module)
        if setting is None:
            monkeypatch.delenv(device.SETTING, raising=False)
        else:
            monkeypatch.setenv(device.SETTING, setting)

    yield install
    device._picked.cache_clear()


@pytest.mark.parametrize("setting", [None, "", "auto", "cpu"])
def test_without_a_gpu_numpy_computes(use: Use, setting: str | None) -> None:
    use(setting, None)
    assert device.xp() is np
    assert device.name().startswith("cpu (NumPy ")


def test_the_name_says_why_there_is_no_gpu(use: Use) -> None:
    use("auto", cupy(devices=0))
    assert device.name().endswith("no GPU: the driver shows no device)")


@pytest.mark.parametrize("setting", [None, "auto", "gpu"])
def test_with_a_gpu_that_works_cupy_computes(use: Use, setting: str | None) -> None:
    module = cupy()
    use(setting, module)
    assert device.xp() is module
    assert device.name() == "gpu (Stand-in, CuPy 0)"


def test_a_gpu_is_left_alone_where_the_setting_says_cpu(use: Use) -> None:
    use("cpu", cupy(broken="nobody should have asked"))
    assert device.xp() is np


def test_a_driver_that_fails_is_no_gpu(use: Use) -> None:
    use("auto", cupy(broken="cudaErrorInsufficientDriver"))
    assert device.xp() is np
    assert "a trial launch failed (RuntimeError: cudaErrorInsufficientDriver)" in device.name()


def test_a_gpu_that_computes_wrongly_is_not_used(use: Use) -> None:
    module = cupy()
    module.arange = lambda n: Foreign(np.zeros(n))  # type: ignore[attr-defined]
    use("auto", module)
    assert device.xp() is np


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        (cupy(devices=0), "the driver shows no device"),
        (cupy(broken="no driver"), r"a trial launch failed \(RuntimeError: no driver\)"),
    ],
)
def test_asking_for_a_gpu_that_does_not_work_says_what_is_missing(use: Use, module: ModuleType, missing: str) -> None:
    use("gpu", module)
    with pytest.raises(device.NoGpu, match=f"MILLSTREAM_DEVICE=gpu, but no GPU can be used: {missing}.*=cpu"):
        device.xp()


def test_asking_for_a_gpu_without_cupy_names_the_extra(use: Use) -> None:
    use("gpu", None)
    with pytest.raises(device.NoGpu, match=r"CuPy is not installed.*millstream\[gpu\]"):
        device.name()


@pytest.mark.parametrize("setting", ["cuda", "GPU", " cpu", "0"])
def test_a_setting_that_is_no_device_is_refused_with_the_ones_that_are(use: Use, setting: str) -> None:
    use(setting, cupy())
    with pytest.raises(device.WrongDevice, match=f"MILLSTREAM_DEVICE='{setting}' .* one of auto, cpu, gpu"):
        device.xp()


def test_an_array_of_either_library_comes_back_as_numpys(use: Use) -> None:
    use("gpu", cupy())
    array = device.to_host(device.xp().arange(3))
    assert isinstance(array, np.ndarray)
    assert device.to_host(array) is array


def test_the_day_figures_have_the_same_bits_on_a_library_that_adds_in_any_order(use: Use) -> None:
    use("gpu", cupy())
    rng = np.random.default_rng(seed=5)
    batch = [random_day(rng, int(n)) for n in rng.integers(0, 200, 60)]
    batch += [day([]), day([NAN]), day([INF, 1.0]), day([-INF, INF]), day([1.7e308, 1.7e308, 5e-324])]
    assert [bits(f) for f in day_figures.launch(batch)] == [bits(day_figures.reference(d)) for d in batch]


def test_days_without_a_single_flight_need_no_launch(use: Use) -> None:
    use("gpu", cupy())
    assert day_figures.launch([]) == []
    assert [f.flights for f in day_figures.launch([day([]), day([])])] == [0, 0]
