"""score: the CUDA form against the definition."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.score import definition, launch
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import make_empty
from tests.kernels.conftest import Device, InterpretedDevice


def run(device: Device, values: np.ndarray) -> np.ndarray:
    scores = device.make_empty((len(values),), np.float32)
    launch.score(device.kernels, device.copy(values), scores, stream=None)
    return np.asarray(scores.get())


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("length", [1, 5, 128, 255, 256, 257, 1000])
@pytest.mark.parametrize("offset", [0.5, -2.0])
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, count: int, length: int, offset: float
) -> None:
    values = rng.random((count, length), dtype=np.float32) + np.float32(offset)
    assert np.array_equal(run(device, values), definition.score(values))


@pytest.mark.parametrize("place", [0, 31, 100, 511])
def test_the_largest_value_is_found_wherever_it_lies(device: Device, place: int) -> None:
    values = np.full((2, 512), -3, np.float32)
    values[1, place] = -1
    assert run(device, values).tolist() == [-3, -1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 40, 299])
def test_a_value_that_is_not_finite_makes_the_score_nan(device: Device, value: float, place: int) -> None:
    values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(2, 300)
    values[0, place] = value
    assert np.isnan(definition.score(values)[0])
    scores = run(device, values)
    assert np.isnan(scores[0]) and scores[1] == 1


@on_every_architecture
def test_every_barrier_is_needed(interpreter: Interpreter, kernels: KernelSet) -> None:
    values, device = np.arange(512, dtype=np.float32).reshape(2, 256), InterpretedDevice(kernels)
    assert_every_barrier_is_needed(interpreter, lambda: run(device, values).tolist() == [255, 511])


def test_the_definition_is_the_largest_value_of_each_map() -> None:
    maps = np.zeros((2, 1, 3, 3))
    maps[0, 0, 1, 2], maps[1, 0, 0, 0] = 0.5, 0.25
    assert definition.score(maps).tolist() == [0.5, 0.25]


def test_arrays_of_another_kind_are_refused(kernels: KernelSet) -> None:
    with pytest.raises(InputError, match=r"values: .*got float32 \[2, 1, 3\], dense"):
        launch.score(kernels, make_empty((2, 1, 3), np.float32), make_empty((2,), np.float32), stream=None)
    with pytest.raises(InputError, match=r"scores: .*got float32 \[3\]"):
        launch.score(kernels, make_empty((2, 3), np.float32), make_empty((3,), np.float32), stream=None)
