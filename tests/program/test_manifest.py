"""The manifest's types: what they refuse, and that JSON brings back what it was given."""

import json
from dataclasses import replace
from typing import Any

import pytest

from ndp_rt.errors import BundleError, InputError
from ndp_rt.program.manifest import (
    FORMAT_VERSION,
    BundleManifest,
    FileSpec,
    InputContract,
    ModelSpec,
    StageSpec,
    ThresholdSpec,
)
from ndp_rt.program.program import DecisionRules, Step
from ndp_rt.program.tensors import TensorSpec


def make_manifest() -> BundleManifest:
    image = TensorSpec(name="image", shape=(None, 3, 64, 64))
    return BundleManifest(
        name="tiles",
        model=ModelSpec(family="ndpnet", preset="edge", width=16, rewrites=("fold_upsampling",), weights="fp16"),
        input=InputContract(height_px=64, width_px=128, white_level_16bit=4095),
        stages={"fused": StageSpec(file="fused.onnx", inputs={"image": image}, outputs={})},
        thresholds={"fp32": ThresholdSpec(value=0.5, source="calibrated", good_image_count=59, confidence=0.95)},
        reference={"path": "good/001.png"},
        provenance={"seed": 7, "commands": ["ndp-rt train"]},
        files={"fused.onnx": FileSpec(sha256="ab", size_bytes=12)},
    )


def test_json_brings_back_the_same_manifest() -> None:
    manifest = make_manifest()
    assert BundleManifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


@pytest.mark.parametrize("value", [0.0, -1.0, 7.0])
def test_a_threshold_of_the_map_is_written_whatever_it_is(value: float) -> None:
    threshold = ThresholdSpec(value=1.0, source="manual", map_value=value)
    assert ThresholdSpec.from_json(json.loads(json.dumps(threshold.to_json()))) == threshold


def test_what_is_empty_is_left_out() -> None:
    assert set(StageSpec(file="a", inputs={}, outputs={}).to_json()) == {"file", "inputs", "outputs"}
    assert set(Step(engine="fused").to_json()) == {"engine"}
    assert "map_value" not in ThresholdSpec().to_json()


def test_a_threshold_of_the_map_goes_with_a_score_of_the_models_own() -> None:
    threshold = ThresholdSpec(value=1.0, source="manual", map_value=7.0)
    own = replace(make_manifest(), decision=DecisionRules(smooth="none", score="output"))
    assert replace(own, thresholds={"fp32": threshold}).thresholds["fp32"].map_value == 7.0
    document = make_manifest().to_json() | {"thresholds": {"fp32": threshold.to_json()}}
    with pytest.raises(BundleError, match=r"fp32\.map_value: expected none with the score rule 'max', got 7\.0"):
        BundleManifest.from_json(document)


def test_a_newer_format_is_refused() -> None:
    document = {**make_manifest().to_json(), "format_version": FORMAT_VERSION + 1}
    with pytest.raises(BundleError, match=r"expected format_version up to 2, got 3\. Update ndp-rt"):
        BundleManifest.from_json(document)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format", "zip", "no bundle of ndp-rt"),
        ("name", None, "manifest.name: expected str, got NoneType None"),
        ("format_version", True, "format_version: expected int, got bool"),
        ("model", {"family": "ndpnet"}, "expected 'preset' in model"),
        ("input", {"height_px": "64"}, "input.height_px: expected int, got str '64'"),
        ("stages", {"fused": {"file": "a", "inputs": {"x": ["m", 3]}, "outputs": {}}}, "dims"),
        ("stages", [], "list"),
        ("thresholds", {"fp32": {"value": "high"}}, "a threshold.value"),
        ("files", {"a": {"sha256": 1, "bytes": 2}}, "a file.sha256"),
    ],
)
def test_entries_of_another_type_are_named(key: str, value: Any, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        BundleManifest.from_json({**make_manifest().to_json(), key: value})


@pytest.mark.parametrize("document", [None, [], "manifest", 3])
def test_documents_that_are_no_object_are_refused(document: object) -> None:
    with pytest.raises(BundleError, match="expected 'format' in the manifest"):
        BundleManifest.from_json(document)


def test_values_out_of_range_in_a_manifest_are_bundle_errors() -> None:
    document = make_manifest().to_json()
    document["input"]["height_px"] = 0
    with pytest.raises(BundleError, match="height_px: expected 1 to 16384, got 0"):
        BundleManifest.from_json(document)
    document = make_manifest().to_json()
    document["input"]["resize"] = "cubic-v9"
    with pytest.raises(BundleError, match=r"cubic-v9.*Update ndp-rt"):
        BundleManifest.from_json(document)


@pytest.mark.parametrize(
    "settings",
    [
        {"value": None, "source": "manual"},
        {"value": 0.5, "source": "none"},
        {"value": float("nan"), "source": "manual"},
        {"value": 0.5, "source": "guessed"},
    ],
)
def test_thresholds_that_contradict_themselves_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="threshold"):
        ThresholdSpec(**settings)


def test_a_tensor_takes_the_batch_that_is_asked_for() -> None:
    spec = TensorSpec.from_dims("f1", ["n", 16, 64, 64])
    assert spec.with_batch(8) == (8, 16, 64, 64)
    assert spec.to_dims() == ["n", 16, 64, 64]
