"""Whose ceiling a row is held against."""

import pytest

from ndp_rt.bench.timed.probe import find_ceiling_backend
from ndp_rt.bench.timed.spec import OTHER_NETWORK, OURS, SAME_NETWORK, TimedSpec


@pytest.mark.parametrize(
    ("kind", "word", "device", "models_on", "expected"),
    [
        (SAME_NETWORK, "pytorch", "cpu", "pytorch", "openvino"),
        (SAME_NETWORK, "torch-compile", "cpu", "pytorch", "openvino"),
        (SAME_NETWORK, "torch-compile-autotuned", "cuda:0", "pytorch", "torch-cuda"),
        (SAME_NETWORK, "openvino-plain", "cpu", "pytorch", "openvino"),
        (SAME_NETWORK, "onnxruntime", "cpu", "pytorch", "onnxruntime"),
        (SAME_NETWORK, "tensorrt-fused", "cuda:0", "pytorch", "tensorrt"),
        (OTHER_NETWORK, "padim", "cpu", "pytorch", "openvino"),
        (OTHER_NETWORK, "padim", "cuda:0", "pytorch", "torch-cuda"),
        (OTHER_NETWORK, "padim", "cpu", "openvino", "openvino"),
        (OTHER_NETWORK, "another.onnx", "cpu", "pytorch", None),
    ],
)
def test_a_rival_is_held_against_a_backend(
    kind: str, word: str, device: str, models_on: str, expected: str | None
) -> None:
    spec = TimedSpec(
        name="x",
        word=word,
        kind=kind,
        bundle="x.ndp",
        precision="fp32",
        batches=(1,),
        device=device,
        models_on=models_on,
    )
    assert find_ceiling_backend(spec) == expected


def test_ours_is_held_against_its_own_backend() -> None:
    spec = TimedSpec(
        name="x", word=OURS, kind=OURS, bundle="x.ndp", precision="fp32", batches=(1,), backend="onnxruntime"
    )
    assert find_ceiling_backend(spec) == "onnxruntime"
