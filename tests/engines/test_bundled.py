"""Engines that a bundle brings along: built once, copied with it, found on machines whose cache has none."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.cli import main
from ndp_rt.devices import machine
from ndp_rt.devices.machine import Gpu
from ndp_rt.editing import set_reference
from ndp_rt.engines.build import find_engine
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import BundleError, EngineError
from ndp_rt.program.manifest import HASH_ENTRY
from tests.bricks import BRICK_IMAGES, BRICKS
from tests.fakes import toy_device

pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install tensorrt-rtx-cu13")
ADA = Gpu(name="RTX 4000 Ada", index=0, memory_bytes=2**34, compute_capability="8.9")


@pytest.fixture
def bundled(own_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle with engines for two generations, and a machine with a GPU of one of them and nothing in its cache."""
    toy_device.run_worker_here(monkeypatch)
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "built"))
    command = ["build-engine", str(own_bundle.path), "--backend", "tensorrt-rtx", "--for", "sm86,sm89"]
    assert main([*command, "--precision", "fp16", "--into-bundle"]) == 0
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "find_gpus", lambda: (ADA,))
    return open_bundle(own_bundle.path)


def make_spec(precision: str = "fp16") -> EngineSpec:
    return EngineSpec(device="cuda", backend="tensorrt-rtx", precision=precision)


def test_a_bundles_engines_are_found_where_they_fit(bundled: Bundle, bundle: Bundle, tmp_path: Path) -> None:
    assert bundled.fingerprint == bundle.fingerprint  # so that every other engine still fits
    found = find_engine(bundled, make_spec())
    assert found is not None and found.spec.plan == "staged"
    for entry in found.entries:
        assert entry.path.parent == tmp_path / "cache" / "engines"
        assert (entry.path / "model-sm86-sm89.plan").stat().st_size > 1000
    assert find_engine(bundled, make_spec()) is not None  # from the cache
    assert find_engine(bundled, make_spec("fp32")) is None
    assert "--into-bundle" in bundled.manifest.provenance["commands"][-1]


def change_engines(path: Path, change: Callable[[Any], object]) -> Bundle:
    """Change the engines in a manifest by hand, as one of before manifests had a hash, and open the bundle."""
    document = json.loads((path / "manifest.json").read_text())
    document.pop(HASH_ENTRY, None)
    change(document["engines"])
    (path / "manifest.json").write_text(json.dumps(document))
    return open_bundle(path)


def test_what_one_bundle_brings_is_no_other_bundles(bundled: Bundle, bundle: Bundle) -> None:
    assert bundled.fingerprint == bundle.fingerprint
    assert find_engine(bundled, make_spec()) is not None  # now in the cache
    assert find_engine(bundle, make_spec()) is None
    (plan, *_) = sorted(bundled.path.glob("*encoder*.plan"))
    plan.write_bytes(b"another")  # and another copy, whose engine is not the same
    document = json.loads((bundled.path / "manifest.json").read_text())
    del document[HASH_ENTRY]
    document["files"][plan.name] = {"sha256": hashlib.sha256(b"another").hexdigest(), "bytes": 7}
    (bundled.path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(EngineError, match=r"model-sm86-sm89.plan has 7 bytes, \d+ were written"):
        find_engine(open_bundle(bundled.path), make_spec())


def test_larger_batches_that_a_bundle_brings_are_used(bundled: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_gpus", tuple)
    command = ["build-engine", str(bundled.path), "--backend", "tensorrt-rtx", "--for", "sm86,sm89", "--batch", "1,3"]
    assert main([*command, "--precision", "fp16", "--into-bundle"]) == 0
    monkeypatch.setattr(machine, "find_gpus", lambda: (ADA,))
    opened = open_bundle(bundled.path)
    assert make_spec().resolve(opened).batches == (1, 3)
    found = find_engine(opened, make_spec())
    assert found is not None and {entry.key.batch for entry in found.entries} == {1, 3}


@pytest.mark.parametrize(
    ("name", "value"), [("compute_capability", 5), ("batch", "1"), ("stage", ["encoder"]), ("later_field", "x")]
)
def test_keys_that_are_none_are_passed_over_and_replaced(
    bundled: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    opened = change_engines(
        bundled.path, lambda engines: [one["key"].update({name: value}) for one in engines.values()]
    )
    assert find_engine(opened, make_spec()) is None
    monkeypatch.setattr(machine, "find_gpus", tuple)
    command = ["build-engine", str(bundled.path), "--backend", "tensorrt-rtx", "--for", "sm86,sm89"]
    assert main([*command, "--precision", "fp16", "--into-bundle"]) == 0
    assert len(open_bundle(bundled.path).manifest.engines) == 2


def test_a_model_is_no_engines_file(bundled: Bundle) -> None:
    def name_the_model(engines: Any) -> None:
        next(iter(engines.values()))["files"]["engine.json"] = next(
            one.file for one in bundled.manifest.stages.values() if one.file is not None
        )

    with pytest.raises(BundleError, match="expected files of its engines' own, got"):
        change_engines(bundled.path, name_the_model)


def test_another_generation_and_another_bundle_get_none(
    bundled: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "find_gpus", lambda: (Gpu(**{**vars(ADA), "compute_capability": "12.0"}),))
    assert find_engine(bundled, make_spec()) is None
    assert not list((tmp_path / "cache").glob("engines/*"))


def test_building_again_takes_the_place_of_what_was_there(bundled: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(bundled.manifest.files)
    monkeypatch.setattr(machine, "find_gpus", tuple)
    command = ["build-engine", str(bundled.path), "--backend", "tensorrt-rtx", "--for", "sm86,sm89", "--rebuild"]
    assert main([*command, "--precision", "fp16", "--into-bundle"]) == 0
    assert set(open_bundle(bundled.path).manifest.files) == before
    assert main([*command, "--precision", "fp32", "--into-bundle"]) == 0
    assert len(open_bundle(bundled.path).manifest.engines) == 2 * len(bundled.manifest.engines)


def test_a_new_reference_takes_engines_that_no_longer_fit_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_device.run_worker_here(monkeypatch)
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    path = shutil.copytree(BRICKS, tmp_path / "bricks.ndp")
    assert main(["build-engine", str(path), "--backend", "tensorrt-rtx", "--for", "sm89", "--into-bundle"]) == 0
    assert list(path.glob("*.plan"))
    changed = set_reference(path, sorted(BRICK_IMAGES.glob("good_*.png"))[0])
    assert not changed.manifest.engines
    assert not [path.name for path in changed.path.iterdir() if path.suffix == ".plan"]


def test_a_changed_engine_is_refused(bundled: Bundle, tmp_path: Path) -> None:
    (plan, *_) = bundled.path.glob("*.plan")
    content = bytearray(plan.read_bytes())
    content[-1] ^= 1
    plan.write_bytes(content)
    with pytest.raises(BundleError, match=f"{plan.name}"):
        open_bundle(bundled.path)
    unverified = open_bundle(bundled.path, verify=False)
    with pytest.raises(EngineError, match="model-sm86-sm89.plan was changed since it was written; it is not used"):
        find_engine(unverified, make_spec())


@pytest.mark.parametrize(("own", "stored"), [("../../evil", None), ("x", "not-there"), (".hidden", None)])
def test_names_that_lead_elsewhere_are_refused(bundled: Bundle, own: str, stored: str | None) -> None:
    def name_it(engines: Any) -> None:
        files = next(iter(engines.values()))["files"]
        files[own] = stored or next(iter(files.values()))

    with pytest.raises(BundleError, match="no plain name|which 'files' lacks"):
        change_engines(bundled.path, name_it)


def test_engines_of_one_machine_are_no_bundles(
    own_bundle: Bundle, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = shutil.copytree(own_bundle.path, tmp_path / "before")
    assert main(["build-engine", str(own_bundle.path), "--backend", "openvino", "--into-bundle"]) != 0
    message = "--into-bundle: expected a backend whose engines other machines load, got openvino"
    assert message in capsys.readouterr().err
    assert (before / "manifest.json").read_bytes() == (own_bundle.path / "manifest.json").read_bytes()
