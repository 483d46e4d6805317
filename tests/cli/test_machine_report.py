"""The doctor: everything is found or has a remedy."""

import shutil
from pathlib import Path

import pytest

from ndp_rt import Inspector
from ndp_rt.capi.build import BRIDGE_NAME, LIBRARY_NAME, SONAME
from ndp_rt.cli import main
from ndp_rt.cli.import_check import find_broken
from ndp_rt.cli.machine_report import BROKEN, FOUND, MISSING, Finding, examine_bundle, examine_machine
from ndp_rt.engines.registry import list_backends
from ndp_rt.errors import MissingExtraError


def test_every_missing_thing_has_its_remedy() -> None:
    findings = examine_machine()
    assert {finding.state for finding in findings} <= {FOUND, MISSING}
    for finding in findings:
        assert finding.detail
        assert finding.remedy or finding.state == FOUND
    assert set(list_backends()) <= {finding.name for finding in findings}
    assert {"CPU", "engine cache", "torch", "numpy"} <= {finding.name for finding in findings}


def test_names_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.cli.machine_report._find_version", lambda name: None)
    torch = next(finding for finding in examine_machine() if finding.name == "torch")
    assert torch.state == MISSING and "pip install 'ndp-rt[train]'" in torch.remedy


def test_lists_the_engines_that_are_built(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Inspector.open(tiny_bundle, threads=1):
        findings = examine_bundle(tiny_bundle)
    engine = next(finding for finding in findings if finding.name == "openvino fp32 fused")
    assert "batch 1" in engine.detail
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    (engine,) = (finding for finding in examine_bundle(tiny_bundle) if finding.topic == "engine")
    assert engine.state == MISSING and "build-engine" in engine.remedy


def test_prints_the_machine_even_if_the_bundle_is_damaged(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy.ndp"))
    with (copy / "weights.bin").open("r+b") as stream:
        stream.write(b"other")
    assert main(["doctor", str(copy)]) == 1
    captured = capsys.readouterr()
    assert "openvino" in captured.out and "weights.bin" in captured.err
    assert main(["doctor", str(tiny_bundle)]) == 0


def test_looking_makes_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "not" / "there"))
    examine_machine()
    assert not (tmp_path / "not").exists()


def find_library_finding() -> Finding:
    return next(finding for finding in examine_machine() if finding.name == LIBRARY_NAME)


def test_the_c_library_is_found_or_has_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ndp_rt.capi.installed.FOLDER", tmp_path)
    missing = find_library_finding()
    assert missing.state == MISSING and missing.detail == "libndp_rt.so is not built"
    assert "ndp-rt capi build" in missing.remedy
    monkeypatch.setattr("ndp_rt.capi.installed.check_tools", fail_without_headers)
    assert find_library_finding().remedy.endswith("ndp-rt capi build; before that: there are no headers.")
    (tmp_path / LIBRARY_NAME).write_bytes(BRIDGE_NAME.encode())
    for name in (BRIDGE_NAME, SONAME):
        (tmp_path / name).touch()
    found = find_library_finding()
    assert found.state == FOUND and LIBRARY_NAME in found.detail and found.remedy == ""


def fail_without_headers() -> None:
    raise MissingExtraError("there are no headers.")


def find_cache_finding() -> Finding:
    return next(finding for finding in examine_machine() if finding.topic == "cache")


def test_a_cache_that_cannot_be_is_missing_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "file" / "cache"))
    assert find_cache_finding().state == MISSING and "is a file" in find_cache_finding().detail
    for name in ("NDP_RT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def find_no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", find_no_home)
    assert find_cache_finding().state == MISSING and "NDP_RT_CACHE" in find_cache_finding().remedy


def test_files_that_go_while_the_cache_is_measured_do_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    (tmp_path / "blob").write_bytes(b"x" * 2**20)
    gone = tmp_path / "gone"
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: iter([gone, tmp_path / "blob"]))
    assert "1 MiB used" in find_cache_finding().detail


def test_a_package_that_is_installed_and_broken_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text("raise ImportError('libGL.so.1:\\n no such file')")
    (tmp_path / "sklearn.py").write_text("import os; os.abort()")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_broken(("cv2", "json", "sklearn", "numpy")) == {
        "cv2": "ImportError: libGL.so.1: no such file",
        "sklearn": "importing it ends the process (-6)",
    }
    monkeypatch.setattr("ndp_rt.cli.machine_report.PACKAGES", (("opencv-python-headless", "images", "pip install it"),))
    find_broken.cache_clear()
    [cv2] = (one for one in examine_machine() if one.topic == "package")
    find_broken.cache_clear()
    assert cv2.state == BROKEN and "cannot be imported: ImportError: libGL.so.1: no such file" in cv2.detail
    assert cv2.remedy.startswith("pip install it --force-reinstall")
