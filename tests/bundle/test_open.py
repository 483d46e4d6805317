"""A bundle opens only when it is whole and reads nothing outside itself."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from ndp_rt.bundle import open_bundle, update_manifest
from ndp_rt.bundle.open import hash_file
from ndp_rt.errors import BundleError
from tests.tiny_bundle import make_tiny_bundle


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as one of before manifests had a hash."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    document.pop("sha256", None)
    change(document)
    path.write_text(json.dumps(document))


def register(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, as an attacker would."""
    entry = {"sha256": hash_file(folder / name), "bytes": (folder / name).stat().st_size}
    edit_manifest(folder, lambda document: document["files"].update({name: entry}))


def test_opens_a_whole_bundle(folder: Path) -> None:
    bundle = open_bundle(str(folder))
    assert bundle.path == folder
    assert bundle.stage_path("fused") == folder / "fused.onnx"
    assert bundle.threshold("fp32").value == 0.6
    assert bundle.threshold("bf16").source == "none"
    golden = bundle.golden()
    assert golden.image.shape == (2, 3, 64, 64) and golden.map.shape == (2, 1, 64, 64) and golden.score.shape == (2,)
    assert len(golden.raw) == len(golden.raw_expected) == 1
    assert {name: f.shape for name, f in bundle.read_asset("reference").items()} == {
        "f3": (1, 4, 16, 16),
        "f4": (1, 4, 8, 8),
        "f5": (1, 4, 4, 4),
    }


def test_an_unknown_stage_is_named(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"no stage 'eye'; it has encoder, .*fused"):
        open_bundle(folder).stage("eye")


def test_a_missing_bundle_and_a_file_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        open_bundle(tmp_path / "none.ndp")
    (tmp_path / "file.ndp").write_text("x")
    with pytest.raises(BundleError, match="expected a folder NAME.ndp, got a file"):
        open_bundle(tmp_path / "file.ndp")
    with pytest.raises(BundleError, match=r"got one without manifest\.json"):
        open_bundle(tmp_path)


def test_a_name_that_is_too_long_is_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        open_bundle(tmp_path / f"{'x' * 300}.ndp")


def test_another_family_of_models_is_refused_without_a_program(folder: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["format_version"] = 1
        document["model"]["family"] = "memnet"

    edit_manifest(folder, change)
    with pytest.raises(BundleError, match=r"expected the family 'ndpnet' in format version 1, got 'memnet'\. Update"):
        open_bundle(folder)


def test_names_that_are_no_utf8_survive_in_the_manifest(folder: Path) -> None:
    commands = ["ndp-rt train caf\udce9"]
    update_manifest(open_bundle(folder), lambda now: replace(now, provenance={"commands": commands}))
    assert open_bundle(folder).manifest.provenance["commands"] == ["ndp-rt train caf\udce9"]


def test_an_interrupted_replacement_says_where_the_old_bundle_lies(folder: Path) -> None:
    folder.rename(folder.with_name(".tiny.ndp.old-123"))
    with pytest.raises(BundleError, match=r"interrupted.*mv '.*\.tiny\.ndp\.old-123' '.*tiny\.ndp'"):
        open_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", pytest.param("[" * 100_000, id="deep"), '{"format": "x"}', "\x00\xff"])
def test_a_damaged_manifest_is_an_error(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        open_bundle(folder)


def test_a_newer_format_is_an_error(folder: Path) -> None:
    edit_manifest(folder, lambda document: document.update(format_version=99))
    with pytest.raises(BundleError, match="format_version up to 2, got 99"):
        open_bundle(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"expected weights\.bin, as its manifest says"):
        open_bundle(folder)


def test_extra_files_and_folders_are_named(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "run.pkl").write_text("x")
    with pytest.raises(BundleError, match=r"files of its manifest, got notes, run\.pkl"):
        open_bundle(folder)


def test_changed_files_are_found_by_their_hash(folder: Path) -> None:
    path = folder / "weights.bin"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.bin: expected SHA-256"):
        open_bundle(folder)
    open_bundle(folder, verify=False)


@pytest.mark.parametrize("verify", [True, False])
def test_files_cut_short_are_found_by_their_size(folder: Path, verify: bool) -> None:
    path = folder / "weights.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"expected \d+ bytes, as the manifest says, got \d+"):
        open_bundle(folder, verify=verify)


@pytest.mark.parametrize("name", ["/etc/passwd", "../weights.bin", "a/b", "..", "", "a\\b", ".hidden", "C:x", "a\0b"])
def test_paths_that_point_elsewhere_are_refused(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda document: document["files"].update({name: {"sha256": "0", "bytes": 0}}))
    with pytest.raises(BundleError, match="which points outside or is no plain name"):
        open_bundle(folder)


def test_a_stage_outside_the_bundle_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda document: document["stages"]["fused"].update(file="../fused.onnx"))
    with pytest.raises(BundleError, match="points outside"):
        open_bundle(folder)


def test_a_stage_that_no_hash_covers_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda document: document["stages"]["fused"].update(file="other.onnx"))
    with pytest.raises(BundleError, match=r"stage 'fused' names other\.onnx, which 'files' lacks"):
        open_bundle(folder)


def test_links_that_lead_outside_are_refused_and_links_within_pass(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "weights.bin"
    (folder / "weights.bin").rename(outside)
    (folder / "weights.bin").symlink_to(outside)
    with pytest.raises(BundleError, match=r"got a link to .*outside it"):
        open_bundle(folder)


def test_links_that_run_in_circles_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.ndp").symlink_to(tmp_path / "loop.ndp")
    with pytest.raises(BundleError, match="does not exist"):
        open_bundle(tmp_path / "loop.ndp")
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to("weights.bin")
    with pytest.raises(BundleError, match="got links that run in circles|expected a file"):
        open_bundle(folder)


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "reference.png").unlink()
    (folder / "reference.png").mkdir()
    with pytest.raises(BundleError, match="expected a file"):
        open_bundle(folder)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret", "other.bin"])
def test_weights_outside_the_bundle_are_refused_even_with_a_right_hash(folder: Path, location: str) -> None:
    model = onnx.load(str(folder / "fused.onnx"), load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(entry for entry in tensor.external_data if entry.key == "location").value = location
    (folder / "fused.onnx").write_bytes(model.SerializeToString())
    register(folder, "fused.onnx")
    with pytest.raises(BundleError, match="expected weights in files of the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize("data", [b"\x0f", b"\x0a\xff\xff", b"\xff" * 30])
def test_a_stage_that_is_no_onnx_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / "fused.onnx").write_bytes(data)
    register(folder, "fused.onnx")
    with pytest.raises(BundleError, match="expected an ONNX file"):
        open_bundle(folder)


@pytest.mark.parametrize("data", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_damaged_tensors_are_errors_and_pickles_are_not_run(folder: Path, data: bytes) -> None:
    (folder / "golden.safetensors").write_bytes(data)
    register(folder, "golden.safetensors")
    bundle = open_bundle(folder)
    with pytest.raises(BundleError, match="cannot be read as safetensors"):
        bundle.golden()


def test_the_fingerprint_follows_what_engines_depend_on(folder: Path, tmp_path: Path) -> None:
    bundle = open_bundle(folder)
    assert update_manifest(bundle, lambda now: replace(now, thresholds={})).fingerprint == bundle.fingerprint
    assert open_bundle(folder).fingerprint == bundle.fingerprint
    (folder / "reference.png").write_bytes(b"another picture")
    register(folder, "reference.png")
    assert open_bundle(folder).fingerprint == bundle.fingerprint
    other = make_tiny_bundle(tmp_path / "other.ndp", seed=1)
    assert other.fingerprint != bundle.fingerprint


GOLDENS: dict[str, Callable[[dict[str, Any]], object]] = {
    "none": lambda tensors: tensors.update({name: tensors[name][:0] for name in ("image", "map", "score")}),
    "maps of no size": lambda tensors: tensors.update(map=tensors["map"][:, :, :0]),
    "fewer maps": lambda tensors: tensors.update(map=tensors["map"][:1]),
    "another size": lambda tensors: tensors.update(image=tensors["image"][:, :, :32].copy()),
    "not finite": lambda tensors: tensors.update(map=tensors["map"] * np.float32(np.nan)),
    "scalars": lambda tensors: tensors.update({name: np.float32(0) for name in ("image", "map", "score")}),
    "no raw image": lambda tensors: (tensors.pop("raw_0"), tensors.pop("raw_0_expected")),
    "raw floats": lambda tensors: tensors.update(raw_0=tensors["raw_0"].astype(np.float32)),
    "raw of no size": lambda tensors: tensors.update(raw_0=tensors["raw_0"][:0]),
    "raw expected flat": lambda tensors: tensors.update(raw_0_expected=tensors["raw_0_expected"].ravel()),
}


@pytest.mark.parametrize("change", GOLDENS)
def test_golden_vectors_that_check_nothing_are_refused(folder: Path, change: str) -> None:
    tensors: dict[str, Any] = load_file(folder / "golden.safetensors")
    GOLDENS[change](tensors)
    save_file({name: np.ascontiguousarray(one) for name, one in tensors.items()}, folder / "golden.safetensors")
    register(folder, "golden.safetensors")
    with pytest.raises(BundleError, match=r"golden\.safetensors: expected"):
        open_bundle(folder).golden()


def test_golden_vectors_stored_as_integers_stand_for_0_to_1(folder: Path) -> None:
    exact = open_bundle(folder).golden()
    tensors = load_file(folder / "golden.safetensors")
    tensors["image"] = np.rint(exact.image * 255).astype(np.uint8)
    tensors["map"] = np.rint(exact.map * 65535).astype(np.uint16)
    save_file(tensors, folder / "golden.safetensors")
    register(folder, "golden.safetensors")
    golden = open_bundle(folder).golden()
    assert golden.image.dtype == golden.map.dtype == np.float32
    assert np.array_equal(golden.image, exact.image)
    assert np.abs(golden.map - exact.map).max() <= 0.5 / 65535 + 1e-7
