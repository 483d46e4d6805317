"""The toy's own op: found by its entry point, and all forms against its definition."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.checks import HELD_AS
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.tensors import TensorSpec
from tests.kernels.conftest import Device, InterpretedDevice
from tests.tolerances import assert_close

FEATURES = TensorSpec(name="features", shape=(None, 8, 12, 10))
PATCHES = TensorSpec(name="memory.patches", shape=(24, 8))
READS = [FEATURES, PATCHES]


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    features, patches = rng.normal(size=(3, 8, 12, 10)), rng.normal(size=(24, 8))
    return features.astype(np.float32), patches.astype(np.float32)


def test_it_writes_one_distance_a_position() -> None:
    (written,) = find_op("nearest_patch").infer({}, READS)
    assert written.shape == (None, 1, 12, 10)
    with pytest.raises(InputError, match="expected features"):
        find_op("nearest_patch").infer({"k": 2}, READS)


def test_the_host_form_equals_the_definition(rng: np.random.Generator) -> None:
    op, (features, patches) = find_op("nearest_patch"), draw(rng)
    form, out = op.make_host({}, READS), np.empty((3, 1, 12, 10), np.float32)
    form.run(form.prepare([patches]), [features], [out])
    assert_close(out, op.define({}, features, patches)[0], "nearest", "float32")


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_cuda_form_equals_the_definition(rng: np.random.Generator, kernels: object, dtype: str) -> None:
    op, device = find_op("nearest_patch"), InterpretedDevice(kernels)  # type: ignore[arg-type]
    arrays = [narrow(array, dtype) for array in draw(rng)]
    check_cuda(op, device, arrays, dtype)


def check_cuda(op: object, device: Device, arrays: list[np.ndarray], dtype: str) -> None:
    specs = [TensorSpec(name="features", shape=arrays[0].shape), PATCHES]
    form = op.make_cuda({}, specs, dtype)  # type: ignore[attr-defined]
    held = HELD_AS[dtype]
    prepared = {name: device.make_empty(spec.shape, held) for name, spec in form.prepared.items()}
    features, patches = (device.copy(array) for array in arrays)
    out = device.make_empty((3, 1, 12, 10), held)
    form.prepare(device.kernels, [patches], prepared, stream=None)
    form.enqueue(device.kernels, [features], prepared, [out], None, stream=None)
    expected = op.define({}, *(widen(array, dtype) for array in arrays))[0]  # type: ignore[attr-defined]
    assert_close(widen(out.get(), dtype), expected, "nearest", dtype)
