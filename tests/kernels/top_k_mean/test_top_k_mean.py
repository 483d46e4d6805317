"""top_k_mean: the host and CUDA forms against the definition."""

from collections.abc import Callable

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.top_k_mean import definition, host, launch
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import make_empty
from tests.kernels.conftest import ARCHITECTURES, Device, InterpretedDevice, make_device
from tests.tolerances import assert_close

Form = Callable[[np.ndarray, int], np.ndarray]
LENGTHS = [1, 2, 7, 255, 512, 513, 4097]


def run(device: Device, values: np.ndarray, k: int) -> np.ndarray:
    means = device.make_empty((len(values),), np.float32)
    launch.top_k_mean(device.kernels, device.copy(values), k, means, stream=None)
    return np.asarray(means.get())


def run_host(values: np.ndarray, k: int) -> np.ndarray:
    out, scratch = np.full(len(values), -1, np.float32), np.empty(values.shape[1], np.float32)
    host.top_k_mean(values, k, out, scratch)
    return out


@pytest.fixture(params=["host", *ARCHITECTURES, pytest.param("gpu", marks=pytest.mark.gpu)])
def form(request: pytest.FixtureRequest) -> Form:
    """One of the forms: float32 [n, m] and k in, float32 [n] out."""
    if request.param == "host":
        return run_host
    device = make_device(request)
    return lambda values, k: run(device, values, k)


def test_the_definition_is_the_mean_of_the_largest_values() -> None:
    values = np.array([[1, 5, 3, 4], [-1, -2, -2, -8]], np.float32)
    assert definition.top_k_mean(values, 1).tolist() == [5, -1]
    assert definition.top_k_mean(values, 3).tolist() == [4, (-1 - 2 - 2) / 3]
    assert definition.top_k_mean(values.reshape(2, 1, 2, 2), 4).tolist() == [13 / 4, -13 / 4]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_form_equals_the_definition(rng: np.random.Generator, form: Form, count: int, length: int) -> None:
    values = rng.normal(size=(count, length)).astype(np.float32)
    for k in sorted({1, 2, min(50, length), (length + 1) // 2, length} & set(range(1, length + 1))):
        assert_close(form(values, k), definition.top_k_mean(values, k), "top_k_mean", "float32")


@pytest.mark.parametrize("kind", ["all equal", "few different", "a map", "tiny and huge", "signed zeros"])
def test_ties_and_exponents_of_every_kind(rng: np.random.Generator, form: Form, kind: str) -> None:
    values = {
        "all equal": np.full((2, 600), 0.3),
        "few different": rng.integers(-2, 3, (2, 600)) / 7,
        "a map": 1 / (1 + np.exp(-rng.normal(size=(2, 600)) - 4)),
        "tiny and huge": np.ldexp(rng.normal(size=(2, 600)), rng.integers(-120, 120, (2, 600))),
        "signed zeros": rng.choice([0.0, -0.0], (2, 600)),
    }[kind].astype(np.float32)
    for k in (1, 3, 299, 600):
        assert_close(form(values, k), definition.top_k_mean(values, k), "top_k_mean", "float32")


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 31, 999])
def test_a_value_that_is_not_finite_makes_the_mean_nan(form: Form, value: float, place: int) -> None:
    values = np.linspace(-1, 1, 2000, dtype=np.float32).reshape(2, 1000)
    values[0, place] = value
    assert np.isnan(definition.top_k_mean(values, 10)[0])
    means = form(values, 10)
    assert np.isnan(means[0]) and not np.isnan(means[1])


def test_the_order_of_the_values_changes_no_bit(rng: np.random.Generator, form: Form) -> None:
    values = np.ldexp(rng.normal(size=3000), rng.integers(-40, 40, 3000)).astype(np.float32)
    for k in (7, 1500, 3000):
        shuffled = np.stack([values, np.sort(values), np.sort(values)[::-1], *(rng.permuted(values) for _ in range(5))])
        assert len(set(form(shuffled, k).tobytes()[i : i + 4] for i in range(0, 32, 4))) == 1


def test_every_schedule_gives_the_same_bits(rng: np.random.Generator, interpreter: Interpreter) -> None:
    device, values = (
        InterpretedDevice(KernelSet(interpreter.make_module)),
        rng.normal(size=(2, 1500)).astype(np.float32),
    )
    first = run(device, values, 100)
    for seed in (0, 1, 2, 3):
        interpreter.seed = seed
        assert np.array_equal(run(device, values, 100), first)


@on_every_architecture
def test_every_barrier_is_needed(rng: np.random.Generator, interpreter: Interpreter, kernels: KernelSet) -> None:
    device, values = InterpretedDevice(kernels), rng.normal(size=(1, 1500)).astype(np.float32)
    right = run(device, values, 700)
    assert_close(right, definition.top_k_mean(values, 700), "top_k_mean", "float32")
    assert_every_barrier_is_needed(interpreter, lambda: np.array_equal(run(device, values, 700), right))


@pytest.mark.parametrize("k", [0, -1, 10])
def test_a_k_that_the_values_do_not_have_is_refused(kernels: KernelSet, k: int) -> None:
    with pytest.raises(InputError, match=rf"k: expected 1 to 9, the number of values, got {k}\."):
        run_host(np.zeros((1, 9), np.float32), k)
    with pytest.raises(InputError, match=rf"k: expected 1 to 9, the number of values, got {k}\."):
        run(InterpretedDevice(kernels), np.zeros((1, 9), np.float32), k)


def test_arrays_of_another_kind_are_refused(kernels: KernelSet) -> None:
    with pytest.raises(InputError, match=r"values.*float32 \[2, 1, 3\]"):
        launch.top_k_mean(kernels, make_empty((2, 1, 3), np.float32), 1, make_empty((2,), np.float32), stream=None)
    with pytest.raises(InputError, match=r"means.*float32 \[3\]"):
        launch.top_k_mean(kernels, make_empty((2, 3), np.float32), 1, make_empty((3,), np.float32), stream=None)
    with pytest.raises(InputError, match=r"values.*float32 \[3\]"):
        host.top_k_mean(np.zeros(3, np.float32), 1, np.zeros(1, np.float32), np.zeros(3, np.float32))
    with pytest.raises(InputError, match=r"scratch.*float32 \[2\]"):
        host.top_k_mean(np.zeros((1, 3), np.float32), 1, np.zeros(1, np.float32), np.zeros(2, np.float32))
