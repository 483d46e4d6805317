"""rbfrm as a step of a program: shapes, and all forms against the definition."""

from typing import Any

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.checks import HELD_AS
from ndp_rt.kernels.registry import find_op
from ndp_rt.program.tensors import TensorSpec
from tests.kernels.conftest import Device
from tests.kernels.rbfrm.devices import on_every_device
from tests.tolerances import assert_close

FEATURES = TensorSpec(name="f3", shape=(None, 6, 8, 12))
REFERENCE = TensorSpec(name="reference.f3", shape=(1, 6, 16, 4))
PARAMS = {"patch_size": 2}
OP = find_op("rbfrm")


def test_it_writes_what_its_features_are() -> None:
    (written,) = OP.infer(PARAMS, [FEATURES, REFERENCE])
    assert (written.shape, written.dtype) == (FEATURES.shape, FEATURES.dtype)


@pytest.mark.parametrize(
    ("params", "reads", "message"),
    [
        ({}, [FEATURES, REFERENCE], r"expected the parameter 'patch_size', a whole number from 1, got \{\}"),
        ({"patch_size": 2.0}, [FEATURES, REFERENCE], "whole number"),
        ({"patch_size": True}, [FEATURES, REFERENCE], "whole number"),
        ({"patch_size": 0}, [FEATURES, REFERENCE], "whole number"),
        ({"patch_size": 2, "stride": 1}, [FEATURES, REFERENCE], "stride"),
        (PARAMS, [FEATURES], r"expected features \[n, c, h, w\] and a part of an asset.*got f3 \['n', 6, 8, 12\]"),
        (PARAMS, [], "got nothing"),
        (PARAMS, [FEATURES, FEATURES], "a part of an asset"),
        ({"patch_size": 3}, [FEATURES, REFERENCE], "multiples of patch_size 3"),
        (PARAMS, [FEATURES, TensorSpec(name="reference.f4", shape=(1, 5, 16, 4))], r"reference.f4 \[1, 5, 16, 4\]"),
        (PARAMS, [FEATURES, TensorSpec(name="reference.f4", shape=(2, 6, 16, 4))], r"reference.f4 \[2, 6, 16, 4\]"),
        (PARAMS, [TensorSpec(name="f3", shape=(None, 6)), REFERENCE], r"f3 \['n', 6\]"),
    ],
)
def test_what_it_cannot_read_is_refused(params: dict[str, Any], reads: list[TensorSpec], message: str) -> None:
    for ask in (OP.infer, OP.make_host):
        with pytest.raises(InputError, match=message):
            ask(params, reads)
    with pytest.raises(InputError, match=message):
        OP.make_cuda(params, reads, "float32")


def test_the_host_form_equals_the_definition(rng: np.random.Generator) -> None:
    features, reference = (rng.normal(size=s).astype(np.float32) for s in ((3, 6, 8, 12), (1, 6, 16, 4)))
    form, out = OP.make_host(PARAMS, [FEATURES, REFERENCE]), np.empty_like(features)
    form.run(form.prepare([reference]), [features], [out])
    assert_close(out, OP.define(PARAMS, features, reference)[0], "rbfrm", "float32")


@on_every_device("float32", "float16", "bfloat16")
def test_the_cuda_form_equals_the_definition(rng: np.random.Generator, device: Device, dtype: str) -> None:
    features, reference = (narrow(rng.normal(size=s).astype(np.float32), dtype) for s in ((3, 6, 8, 12), (1, 6, 16, 4)))
    spec = TensorSpec(name="f3", shape=features.shape, dtype=dtype)
    form = OP.make_cuda(PARAMS, [spec, REFERENCE], dtype)
    prepared = {name: device.make_empty(one.with_batch(1), HELD_AS[one.dtype]) for name, one in form.prepared.items()}
    form.prepare(device.kernels, [device.copy(reference)], prepared, stream=None)
    out, scratch = device.make_empty(features.shape, features.dtype), device.make_empty((form.scratch_bytes,), np.uint8)
    form.enqueue(device.kernels, [device.copy(features)], prepared, [out], scratch, stream=None)
    expected = OP.define(PARAMS, widen(features, dtype), widen(reference, dtype))[0]
    assert_close(widen(out.get(), dtype), expected, "rbfrm_cuda", dtype)


def test_the_memory_that_is_prepared_is_the_same_for_every_batch_size() -> None:
    forms = [OP.make_cuda(PARAMS, [TensorSpec(name="f3", shape=(n, 6, 8, 12)), REFERENCE], "float16") for n in (1, 32)]
    assert forms[0].prepared == forms[1].prepared and set(forms[0].prepared) == {"raw", "unit"}
    assert forms[0].scratch_bytes < forms[1].scratch_bytes


@pytest.mark.parametrize(("params", "dtype"), [({"patch_size": 1}, "float32"), (PARAMS, "float64")])
def test_what_no_kernel_is_compiled_for_is_refused(params: dict[str, Any], dtype: str) -> None:
    spec = TensorSpec(name="f3", shape=(1, 6, 8, 12))
    with pytest.raises(InputError, match=r"patch size K: .*got 1|dtype: .*got 'float64'"):
        OP.make_cuda(params, [spec, REFERENCE], dtype)
