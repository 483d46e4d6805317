"""nearest_sample: the host and CUDA forms against the definition, and the definition against counting by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.checks import HELD_AS
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.nearest_sample.definition import nearest_sample
from ndp_rt.kernels.nearest_sample.launch import NearestSampleCuda, find_width
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.tensors import TensorSpec
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import make_empty
from tests.kernels.conftest import Device, InterpretedDevice
from tests.tolerances import assert_close

OP = find_op("nearest_sample")
# Features [n, c, h, w] and the number of samples: one value, odd lengths, whole vectors, several chunks, more samples
# than warps.
CASES = [
    ((1, 1, 1, 1), 1),
    ((3, 5, 7, 3), 4),
    ((2, 8, 4, 4), 30),
    ((1, 3, 37, 41), 3),
    ((2, 24, 24, 16), 9),
]
DTYPES = ("float32", "float16", "bfloat16")


def draw(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features, and samples that lie at distances of their own from them."""
    features = rng.normal(size=shape).astype(np.float32)
    samples = rng.normal(size=(count, *shape[1:])) * rng.uniform(0.2, 2.0, (count, 1, 1, 1))
    return features, samples.astype(np.float32)


def run_host(features: np.ndarray, samples: np.ndarray) -> np.ndarray:
    specs = [TensorSpec(name="s1", shape=(None, *features.shape[1:])), TensorSpec(name="m.s1", shape=samples.shape)]
    form, out = OP.make_host({}, specs), np.full_like(features, np.nan)
    form.run(form.prepare([samples]), [features], [out])
    return out


def run(device: Device, features: np.ndarray, samples: np.ndarray, dtype: str) -> np.ndarray:
    """Return the differences, as held; every byte of the outputs and of the scratch memory is NaN before."""
    specs = [TensorSpec(name="s1", shape=features.shape), TensorSpec(name="m.s1", shape=samples.shape)]
    form = OP.make_cuda({}, specs, dtype)
    prepared: dict[str, Any] = {
        name: device.make_empty(spec.with_batch(1), HELD_AS[dtype]) for name, spec in form.prepared.items()
    }
    form.prepare(device.kernels, [device.copy(samples)], prepared, stream=None)
    out, scratch = device.make_empty(features.shape, features.dtype), device.make_empty((form.scratch_bytes,), np.uint8)
    form.enqueue(device.kernels, [device.copy(features)], prepared, [out], scratch, stream=None)
    difference: np.ndarray = out.get()
    return difference


def test_the_definition_takes_the_sample_with_the_least_sum() -> None:
    features = np.array([[[[1.0, 2.0]]], [[[8.0, 9.0]]]])  # [2, 1, 1, 2]
    samples = np.array([[[[1.0, 5.0]]], [[[2.0, 3.0]]], [[[9.0, 9.0]]]])  # sums 3, 2, 15 and 11, 12, 1
    assert nearest_sample(features, samples).tolist() == [[[[1.0, 1.0]]], [[[1.0, 0.0]]]]


@pytest.mark.parametrize(("shape", "count"), CASES)
def test_the_host_form_equals_the_definition(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> None:
    features, samples = draw(rng, shape, count)
    assert_close(run_host(features, samples), nearest_sample(features, samples), "nearest_sample", "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "count"), CASES)
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, shape: tuple[int, ...], count: int, dtype: str
) -> None:
    features, samples = (narrow(array, dtype) for array in draw(rng, shape, count))
    found = widen(run(device, features, samples, dtype), dtype)
    assert_close(found, nearest_sample(widen(features, dtype), widen(samples, dtype)), "nearest_sample", dtype)


@pytest.mark.parametrize("form", ["host", "cuda"])
def test_of_equally_near_samples_it_is_the_first(kernels: KernelSet, form: str) -> None:
    features = np.zeros((1, 2, 3, 4), np.float32)
    samples = np.ones((20, 2, 3, 4), np.float32)
    samples[7:, 0] *= -1  # equally far, and another one to see which
    samples[3:7] *= 2
    samples[:3] *= 3
    samples[7:, :, :, 0] *= 2
    samples[7:, :, :, 1] = 0
    found = (
        run_host(features, samples) if form == "host" else run(InterpretedDevice(kernels), features, samples, "float32")
    )
    assert np.array_equal(found, np.abs(samples[7:8]))


@pytest.mark.parametrize("form", ["host", "cuda"])
def test_a_value_that_is_no_number_stays_visible(rng: np.random.Generator, kernels: KernelSet, form: str) -> None:
    features, samples = draw(rng, (2, 3, 4, 4), 5)
    features[0, 1, 2, 3] = np.nan
    run_form: Callable[..., np.ndarray] = (
        run_host if form == "host" else (lambda *arrays: run(InterpretedDevice(kernels), *arrays, "float32"))
    )
    found = run_form(features, samples)
    assert np.isnan(found[0, 1, 2, 3]) and np.isnan(found).sum() == 1
    assert_close(found[1:], nearest_sample(features[1:], samples), "nearest_sample", "float32")


def test_every_schedule_gives_the_same_bits(
    rng: np.random.Generator, interpreter: Interpreter, kernels: KernelSet
) -> None:
    device, (features, samples) = InterpretedDevice(kernels), draw(rng, (3, 3, 37, 41), 9)
    first = run(device, features, samples, "float32")
    for seed in (0, 1, 2, 3):
        interpreter.seed = seed
        assert np.array_equal(run(device, features, samples, "float32"), first)


@on_every_architecture
def test_every_barrier_is_needed(rng: np.random.Generator, interpreter: Interpreter, kernels: KernelSet) -> None:
    device, (features, samples) = InterpretedDevice(kernels), draw(rng, (3, 8, 8, 8), 9)
    right = run(device, features, samples, "float32")
    assert_every_barrier_is_needed(
        interpreter, lambda: np.array_equal(run(device, features, samples, "float32"), right)
    )


@pytest.mark.parametrize(
    ("params", "reads", "message"),
    [
        ({"k": 1}, [(None, 2, 4, 4), (3, 2, 4, 4)], "no parameters"),
        ({}, [(None, 2, 4, 4)], "got read0"),
        ({}, [(None, 2, 4, 4), (3, 2, 4, 5)], r"memory.read1 \[3, 2, 4, 5\]"),
        ({}, [(None, 2, 4, 4), (3, 2)], r"memory.read1 \[3, 2\]"),
        ({}, [(None, 2, 4, 4), (None, 2, 4, 4)], r"memory.read1 \['n', 2, 4, 4\]"),
    ],
)
def test_what_it_cannot_read_is_refused(params: dict[str, Any], reads: list[tuple[int, ...]], message: str) -> None:
    specs = [
        TensorSpec(name=f"{'memory.' if number else ''}read{number}", shape=shape) for number, shape in enumerate(reads)
    ]
    for ask in (OP.infer, OP.make_host):
        with pytest.raises(InputError, match=message):
            ask(params, specs)
    with pytest.raises(InputError, match=message):
        OP.make_cuda(params, specs, "float32")


def test_arrays_of_another_kind_are_refused(kernels: KernelSet) -> None:
    with pytest.raises(InputError, match=r"features: .*got float32 \[1, 3, 4, 4\]"):
        specs = [TensorSpec(name="s1", shape=(None, 2, 4, 4)), TensorSpec(name="m.s1", shape=(3, 2, 4, 4))]
        form, array = OP.make_host({}, specs), np.zeros((1, 3, 4, 4), np.float32)
        form.run(form.prepare([np.zeros((3, 2, 4, 4), np.float32)]), [array], [array])
    with pytest.raises(InputError, match="dtype.*float64"):
        NearestSampleCuda((1, 2, 4, 4), (3, 2, 4, 4), "float64")
    form = NearestSampleCuda((1, 2, 4, 4), (3, 2, 4, 4), "float32")
    features, samples = make_empty((1, 2, 4, 4), np.float32), make_empty((3, 2, 4, 4), np.float32)
    scratch = make_empty((form.scratch_bytes,), np.uint8)
    with pytest.raises(InputError, match="difference and features share memory"):
        form.enqueue(kernels, [features], {"samples": samples}, [features], scratch, stream=None)
    with pytest.raises(InputError, match=r"scratch: expected 12 bytes, got 4\."):
        out = make_empty((1, 2, 4, 4), np.float32)
        form.enqueue(kernels, [features], {"samples": samples}, [out], make_empty((4,), np.uint8), stream=None)


def test_a_thread_reads_sixteen_bytes_where_the_length_allows() -> None:
    assert [find_width(24, dtype) for dtype in DTYPES] == [4, 8, 8]
    assert [find_width(28, dtype) for dtype in DTYPES] == [4, 1, 1]
    assert find_width(27, "float32") == 1
