"""Programs that cannot run are refused, with the step that is wrong."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ndp_rt.bundle.programs import check_manifest, list_tensors
from ndp_rt.errors import BundleError
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.version1 import describe_ndpnet

Change = Callable[[dict[str, Any]], object]


def make_document() -> dict[str, Any]:
    """Return the manifest of a small NDP-Net as JSON."""

    def list_features(names: str, *levels: int) -> dict[str, list[Any]]:
        return {f"{names}{level}": ["n", 4, 64 >> (level - 1), 64 >> (level - 1)] for level in levels}

    features, image, anomaly = list_features("f", 1, 2, 3, 4, 5), ["n", 3, 64, 64], {"map": ["n", 1, 64, 64]}
    rebuilt = {f"r{level}k{size}": features[f"f{level}"] for level in (3, 4, 5) for size in (2, 4)}
    deep = {name: features[name] for name in ("f3", "f4", "f5")}
    heads = list_features("g", 1, 2, 3)
    compared = {**list_features("f", 1, 2, 3), **heads}
    stages = {
        "encoder": {"file": "encoder.onnx", "inputs": {"image": image}, "outputs": features},
        "decoder": {"file": "decoder.onnx", "inputs": {**deep, **rebuilt}, "outputs": {"reconstruction": image}},
        "head": {"file": "head.onnx", "inputs": {"reconstruction": image}, "outputs": heads},
        "segmentation": {"file": "segmentation.onnx", "inputs": compared, "outputs": anomaly},
        "fused": {"file": "fused.onnx", "inputs": {"image": image}, "outputs": {**anomaly, "reconstruction": image}},
    }
    names = [entry["file"] for entry in stages.values()] + ["reference.safetensors"]
    return {
        "format": "ndp-rt bundle",
        "format_version": 2,
        "name": "tiles",
        "model": {"family": "ndpnet", "preset": "edge", "rewrites": [], "weights": "fp32"},
        "input": {
            "height_px": 64,
            "width_px": 64,
            "colour": "rgb",
            "resize": "area-or-linear-v1",
            "white_level_16bit": 65535,
        },
        **copy.deepcopy(describe_ndpnet(stages)),
        "thresholds": {},
        "reference": {},
        "golden": {},
        "parity": {},
        "provenance": {},
        "files": {name: {"sha256": "00", "bytes": 1} for name in names},
    }


def find_steps(document: dict[str, Any], kind: str = "cpu", name: str = "staged") -> list[dict[str, Any]]:
    """Return the steps of one of the document's programs, to change."""
    return next(one["steps"] for one in document["programs"][kind] if one["name"] == name)


def test_the_programs_of_ndpnet_can_run() -> None:
    manifest = BundleManifest.from_json(make_document())
    check_manifest(manifest)
    tensors = list_tensors(manifest, manifest.programs["cuda"]["staged"].steps)
    assert tensors["r4k2"].shape == (None, 4, 8, 8)
    assert tensors["map"].shape == (None, 1, 64, 64)


def test_a_tensor_that_nothing_writes_is_named_with_its_step() -> None:
    document = make_document()
    find_steps(document)[1]["reads"][0] = "f9"
    with pytest.raises(
        BundleError, match=r"program 'staged' on cpu, step 2 \(op rbfrm -> r3k2\): reads 'f9', which nothing"
    ):
        check_manifest(BundleManifest.from_json(document))


def test_steps_that_wait_for_each_other_are_a_cycle() -> None:
    document = make_document()
    steps = find_steps(document)
    steps[0], steps[1] = steps[1], steps[0]
    with pytest.raises(BundleError, match=r"step 1 .*reads 'f3' before engine encoder writes it: a cycle"):
        check_manifest(BundleManifest.from_json(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: find_steps(d)[1].update(op="wavelet"),
            r"step 2 \(op wavelet -> r3k2\): op: expected one of .*rbfrm",
        ),
        (lambda d: find_steps(d)[1].update(params={"patch_size": 5}), r"op rbfrm.*multiples of patch_size 5"),
        (lambda d: find_steps(d)[1].update(params={}), r"step 2 .*'patch_size'"),
        (lambda d: find_steps(d)[1].update(reads=["f3", "memory.f3"]), "reads 'memory.f3', which no asset has"),
        (lambda d: find_steps(d)[1].update(reads=["f3", "reference.f1"]), "reads 'reference.f1', which no asset has"),
        (lambda d: find_steps(d)[1].update(writes=["r3k2", "more"]), "expected 1 names in 'writes', got 2"),
        (lambda d: find_steps(d)[1].update(writes=["f1"]), "writes 'f1', which an earlier step has written"),
        (lambda d: find_steps(d)[7].update(engine="coder"), r"expected a stage out of encoder.*got 'coder'"),
        (lambda d: d["stages"]["decoder"]["inputs"].update(f3=["n", 4, 8, 8]), r"expected 'f3' \['n', 4, 8, 8\], got"),
        (lambda d: d["stages"]["tail"].update(parts=["decoder", "neck"]), "its part 'neck' is no stage"),
        (lambda d: d["programs"]["cpu"][0]["outputs"].pop("map"), "expected an output 'map', got reconstruction"),
        (lambda d: d["programs"]["cpu"][0]["outputs"].update(map="heat"), "its output 'map' is 'heat', which nothing"),
        (lambda d: d["programs"]["cpu"][0]["outputs"].update(map="reconstruction"), r"expected the map as \['n', 1, h"),
        (lambda d: d["programs"].update(tpu=[]), "expected cpu or cuda, got 'tpu'"),
        (lambda d: d["files"].pop("reference.safetensors"), "asset 'reference': its file reference.safetensors is not"),
        (lambda d: d["assets"]["reference"]["made_by"]["tensors"].update(f3="f9"), "no step makes 'f9' for its tensor"),
    ],
)
def test_programs_that_cannot_run_are_refused(change: Change, words: str) -> None:
    document = make_document()
    change(document)
    with pytest.raises(BundleError, match=words):
        check_manifest(BundleManifest.from_json(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["decision"].update(smooth={"rule": "gaussian"}), "smooth rule: expected none or mean_median"),
        (lambda d: d["decision"].update(smooth={"rule": "mean_median", "size_px": 4}), "smooth size: expected 3 or 5"),
        (
            lambda d: d["decision"].update(score={"rule": "median"}),
            "score rule: expected max or top_k_mean or output, got 'median'",
        ),
        (lambda d: d["decision"].update(score={"rule": "top_k_mean", "k": 0}), "expected k from 1, got 0"),
        (lambda d: find_steps(d).append({"engine": "head", "reads": ["x"]}), None),
        (lambda d: find_steps(d).append({}), "expected either 'engine' or 'op'"),
        (lambda d: d["programs"].update(cpu={}), "expected a list for each kind of device"),
        (lambda d: d["stages"]["tail"].update(parts=[]), "expected either a file or parts"),
    ],
)
def test_entries_that_say_nothing_known_are_refused(change: Change, words: str | None) -> None:
    document = make_document()
    change(document)
    if words is None:  # more than is known of a step is no reason to refuse it: the stage lists its tensors
        assert BundleManifest.from_json(document).programs["cpu"]["staged"].steps[-1].engine == "head"
        return
    with pytest.raises(BundleError, match=words):
        BundleManifest.from_json(document)
