"""fuse_maps as a step of a program: shapes, and all forms against the definition."""

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.kernels.fuse_maps.definition import fuse_maps
from ndp_rt.kernels.op import SmoothingForm
from ndp_rt.kernels.registry import find_op
from ndp_rt.kernels.smooth.definition import smooth
from ndp_rt.kernels.smooth.launch import count_smooth_tiles
from ndp_rt.program.tensors import TensorSpec
from tests.kernels.conftest import Device
from tests.tolerances import assert_close

OP = find_op("fuse_maps")


def make_specs(h: int, w: int, n: int | None = None) -> list[TensorSpec]:
    return [TensorSpec(name=f"am{level + 1}", shape=(n, 1, h >> level, w >> level)) for level in range(3)]


def make_levels(rng: np.random.Generator, n: int, h: int, w: int) -> list[np.ndarray]:
    return [rng.random((n, 1, h >> level, w >> level), dtype=np.float32) for level in range(3)]


def test_it_writes_a_map_of_the_first_ones_size() -> None:
    assert OP.infer({}, make_specs(8, 12)) == [TensorSpec(name="map", shape=(None, 1, 8, 12))]


@pytest.mark.parametrize(
    ("params", "reads", "message"),
    [
        ({"weights": 1}, make_specs(8, 12), "no parameters, got .* and {'weights': 1}"),
        ({}, make_specs(8, 12)[:2], "expected three maps"),
        ({}, [], "got nothing and none"),
        ({}, make_specs(6, 12), "multiples of 4"),
        ({}, make_specs(8, 12)[::-1], r"am3 \['n', 1, 2, 3\]"),
        ({}, [TensorSpec(name="am1", shape=(8, 12)), *make_specs(8, 12)[1:]], r"am1 \[8, 12\]"),
    ],
)
def test_what_it_cannot_read_is_refused(params: dict[str, int], reads: list[TensorSpec], message: str) -> None:
    for ask in (OP.infer, OP.make_host):
        with pytest.raises(InputError, match=message):
            ask(params, reads)


@pytest.mark.parametrize("size", [(4, 4), (36, 44), (256, 256)])
@pytest.mark.parametrize("count", [1, 3])
def test_the_host_form_equals_the_definition(rng: np.random.Generator, count: int, size: tuple[int, int]) -> None:
    levels = make_levels(rng, count, *size)
    form, out = OP.make_host({}, make_specs(*size)), np.full_like(levels[0], np.nan)
    form.run(form.prepare([]), levels, [out])
    assert_close(out, OP.define({}, *levels)[0], "fuse_maps", "float32")
    with pytest.raises(InputError, match="am2: expected float32"):
        form.run(None, [levels[0], levels[0], levels[2]], [out])


def test_the_cuda_form_equals_the_definition(rng: np.random.Generator, device: Device) -> None:
    levels = make_levels(rng, 2, 20, 44)
    form, out = OP.make_cuda({}, make_specs(20, 44, 2), "float16"), device.make_empty(levels[0].shape, np.float32)
    assert not form.prepared and form.scratch_bytes == 0
    form.enqueue(device.kernels, [device.copy(one) for one in levels], {}, [out], None, stream=None)
    assert_close(out.get(), fuse_maps(levels), "fuse_maps", "float32")


def test_smoothing_may_take_its_work_over(rng: np.random.Generator, device: Device) -> None:
    levels = make_levels(rng, 2, 20, 44)
    form = OP.make_cuda({}, make_specs(20, 44, 2), "float32")
    assert isinstance(form, SmoothingForm)
    out = device.make_empty(levels[0].shape, np.float32)
    maxima = device.make_empty((2, count_smooth_tiles(20, 44)), np.float32)
    reads = [device.copy(one) for one in levels]
    form.with_smoothing(5).enqueue(device.kernels, reads, out, maxima, stream=None)
    assert_close(out.get(), smooth(fuse_maps(levels)), "smooth_levels", "float32")
    with pytest.raises(InputError, match="smooth size: expected 3 or 5 px, got 4"):
        form.with_smoothing(4)
