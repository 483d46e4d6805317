"""nearest_neighbour: the host and CUDA forms against the definition, and the definition against counting by hand."""

from typing import Any

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.checks import HELD_AS
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.nearest_neighbour.definition import nearest_neighbour
from ndp_rt.kernels.nearest_neighbour.launch import NearestNeighbourCuda
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.tensors import TensorSpec
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import make_empty
from tests.kernels.conftest import Device, InterpretedDevice
from tests.tolerances import assert_close

OP = find_op("nearest_neighbour")
# Features [n, c, h, w] and the number of patches: one of all, parts of tiles, several tiles both ways, several steps.
CASES = [((1, 1, 1, 1), 1), ((3, 5, 7, 3), 4), ((2, 16, 8, 8), 64), ((1, 33, 9, 11), 130), ((2, 40, 24, 24), 65)]
DTYPES = ("float32", "float16", "bfloat16")


def draw(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    features, patches = rng.normal(size=shape), rng.normal(size=(count, shape[1]))
    return features.astype(np.float32), patches.astype(np.float32)


def run_host(features: np.ndarray, patches: np.ndarray) -> np.ndarray:
    n, _, h, w = features.shape
    specs = [TensorSpec(name="s1", shape=(None, *features.shape[1:])), TensorSpec(name="m.s1", shape=patches.shape)]
    form, out = OP.make_host({}, specs), np.full((n, 1, h, w), np.nan, np.float32)
    form.run(form.prepare([patches]), [features], [out])
    return out


def run(device: Device, features: np.ndarray, patches: np.ndarray, dtype: str) -> np.ndarray:
    """Return the distances, as held; every byte of the outputs and of the scratch memory is NaN before."""
    n, _, h, w = features.shape
    specs = [TensorSpec(name="s1", shape=features.shape), TensorSpec(name="m.s1", shape=patches.shape)]
    form = OP.make_cuda({}, specs, dtype)
    prepared: dict[str, Any] = {
        name: device.make_empty(spec.with_batch(1), HELD_AS[dtype]) for name, spec in form.prepared.items()
    }
    form.prepare(device.kernels, [device.copy(patches)], prepared, stream=None)
    out, scratch = device.make_empty((n, 1, h, w), features.dtype), device.make_empty((form.scratch_bytes,), np.uint8)
    form.enqueue(device.kernels, [device.copy(features)], prepared, [out], scratch, stream=None)
    distances: np.ndarray = out.get()
    return distances


def test_the_definition_is_the_least_euclidean_distance() -> None:
    features = np.array([[[[0.0, 3.0]], [[0.0, 4.0]]]])  # positions (0, 0) and (3, 4)
    assert nearest_neighbour(features, np.array([[0.0, 2.0], [3.0, 4.5]])).tolist() == [[[[2.0, 0.5]]]]


@pytest.mark.parametrize(("shape", "count"), CASES)
def test_the_host_form_equals_the_definition(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> None:
    features, patches = draw(rng, shape, count)
    assert_close(run_host(features, patches), nearest_neighbour(features, patches), "nearest_neighbour", "float32")


@pytest.mark.parametrize("form", ["host", "cuda"])
def test_distances_near_a_patch_keep_their_digits(rng: np.random.Generator, kernels: KernelSet, form: str) -> None:
    patches = 100.0 + rng.normal(size=(70, 12)).astype(np.float32)
    features = np.ascontiguousarray(patches[rng.integers(0, 70, 66)].T.reshape(1, 12, 6, 11)) + np.float32(0.001)
    found = (
        run_host(features, patches) if form == "host" else run(InterpretedDevice(kernels), features, patches, "float32")
    )
    assert_close(found, nearest_neighbour(features, patches), "nearest_neighbour", "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "count"), CASES)
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, shape: tuple[int, ...], count: int, dtype: str
) -> None:
    features, patches = (narrow(array, dtype) for array in draw(rng, shape, count))
    found = widen(run(device, features, patches, dtype), dtype)
    assert_close(found, nearest_neighbour(widen(features, dtype), widen(patches, dtype)), "nearest_neighbour", dtype)


@pytest.mark.parametrize("form", ["host", "cuda"])
def test_a_position_that_is_no_number_stays_visible(rng: np.random.Generator, kernels: KernelSet, form: str) -> None:
    features, patches = draw(rng, (1, 5, 6, 7), 9)
    features[0, 2, 3, 4] = np.nan
    found = (
        run_host(features, patches) if form == "host" else run(InterpretedDevice(kernels), features, patches, "float32")
    )
    assert np.isnan(found[0, 0, 3, 4]) and np.isnan(found).sum() == 1


@on_every_architecture
def test_every_barrier_is_needed(rng: np.random.Generator, interpreter: Interpreter, kernels: KernelSet) -> None:
    device, (features, patches) = InterpretedDevice(kernels), draw(rng, (1, 40, 8, 8), 64)
    right = run(device, features, patches, "float32")
    assert_every_barrier_is_needed(
        interpreter, lambda: np.array_equal(run(device, features, patches, "float32"), right)
    )


@pytest.mark.parametrize(
    ("params", "reads", "message"),
    [
        ({"k": 1}, [(None, 2, 4, 4), (3, 2)], "no parameters"),
        ({}, [(None, 2, 4, 4)], "got read0"),
        ({}, [(None, 2, 4, 4), (3, 5)], r"memory.read1 \[3, 5\]"),
        ({}, [(None, 2, 4, 4), (3, 2, 4, 4)], r"memory.read1 \[3, 2, 4, 4\]"),
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
    specs = [TensorSpec(name="s1", shape=(None, 2, 4, 4)), TensorSpec(name="m.s1", shape=(3, 2))]
    host, array = OP.make_host({}, specs), np.zeros((1, 3, 4, 4), np.float32)
    with pytest.raises(InputError, match=r"features: .*got float32 \[1, 3, 4, 4\]"):
        host.run(host.prepare([np.zeros((3, 2), np.float32)]), [array], [array])
    with pytest.raises(InputError, match="dtype.*float64"):
        NearestNeighbourCuda((1, 2, 4, 4), (3, 2), "float64")
    form = NearestNeighbourCuda((1, 2, 4, 4), (3, 2), "float32")
    features, patches, out = (make_empty(shape, np.float32) for shape in ((1, 2, 4, 4), (2, 64), (1, 1, 4, 4)))
    with pytest.raises(InputError, match=r"scratch: expected 64 bytes, got 4\."):
        form.enqueue(kernels, [features], {"patches": patches}, [out], make_empty((4,), np.uint8), stream=None)
