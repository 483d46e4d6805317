"""Writing a bundle leaves the old one or the new one, whatever happens on the way."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import Bundle, open_bundle, update_manifest, write, write_bundle
from ndp_rt.errors import BundleError, InputError, StorageError
from ndp_rt.program.manifest import BundleManifest, ThresholdSpec
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny.ndp")


def copy(bundle: Bundle, path: Path, *, name: str = "copy", overwrite: bool = False) -> Bundle:
    return write_bundle(
        path,
        manifest_without_files=dataclasses.replace(bundle.manifest, name=name, files={}),
        files={file: bundle.path / file for file in bundle.manifest.files},
        overwrite=overwrite,
    )


def drop_thresholds(now: BundleManifest) -> BundleManifest:
    return dataclasses.replace(now, thresholds={})


def list_names(folder: Path) -> list[str]:
    """Return the names in a folder but for the lock's, which stays."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_copy_is_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    made = copy(bundle, tmp_path / "deep" / "er" / "copy.ndp")
    assert made.fingerprint == bundle.fingerprint
    assert open_bundle(made.path).manifest == made.manifest
    assert list_names(tmp_path / "deep" / "er") == ["copy.ndp"]


def test_an_existing_bundle_is_replaced_only_when_asked(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="exists already"):
        copy(bundle, bundle.path)
    assert copy(bundle, bundle.path, name="new", overwrite=True).manifest.name == "new"
    assert open_bundle(bundle.path).manifest.name == "new"
    assert list_names(tmp_path) == ["tiny.ndp"]


def test_without_an_exchanging_rename_it_is_replaced_all_the_same(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "exchange", lambda first, second: False)
    copy(bundle, bundle.path, name="new", overwrite=True)
    assert open_bundle(bundle.path).manifest.name == "new"
    assert list_names(tmp_path) == ["tiny.ndp"]


def test_what_is_no_bundle_is_never_overwritten(bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "photos.ndp"
    target.mkdir()
    (target / "holiday.jpg").write_text("precious")
    with pytest.raises(StorageError, match="expected a bundle to overwrite"):
        copy(bundle, target, overwrite=True)
    assert list_names(target) == ["holiday.jpg"]


@pytest.mark.parametrize("name", ["a/b", "../x", "manifest.json", ""])
def test_names_that_are_no_plain_files_are_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a plain one"):
        write_bundle(tmp_path / "x.ndp", manifest_without_files=bundle.manifest, files={name: b""})


def test_another_suffix_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.ndp"):
        copy(bundle, tmp_path / "x.zip")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("step", [1, 4, 10, 12])
def test_a_write_that_fails_leaves_nothing_half_written(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, step: int
) -> None:
    calls = 0
    sync = os.fsync

    def fail(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise OSError(code, os.strerror(code))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fail)
    if step <= 10:  # 9 files and the manifest; syncing the folders may fail without harm
        with pytest.raises(StorageError, match=f"cannot be written .{os.strerror(code)}"):
            copy(bundle, bundle.path, name="new", overwrite=True)
        assert open_bundle(bundle.path).manifest.name == "tiny"
    else:
        copy(bundle, bundle.path, name="new", overwrite=True)
    assert list_names(tmp_path) == ["tiny.ndp"]


def test_a_folder_that_takes_no_files_is_a_storage_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        copy(bundle, tmp_path / "file" / "x.ndp")


def test_changing_the_manifest_is_one_step(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    threshold = ThresholdSpec(value=0.25, source="manual")
    changed = update_manifest(bundle, lambda now: dataclasses.replace(now, thresholds={"fp32": threshold}))
    assert changed.threshold("fp32").value == 0.25
    assert open_bundle(bundle.path).manifest == changed.manifest

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="No space left"):
        update_manifest(bundle, drop_thresholds)
    assert open_bundle(bundle.path).manifest == changed.manifest


def test_a_manifest_is_not_written_over_other_files(bundle: Bundle, tmp_path: Path) -> None:
    """Scoring images for a threshold takes minutes, in which the reference may be changed."""
    other = make_tiny_bundle(tmp_path / "other.ndp", seed=1)
    write_bundle(
        bundle.path,
        manifest_without_files=dataclasses.replace(other.manifest, files={}),
        files={file: other.path / file for file in other.manifest.files},
        overwrite=True,
    )
    with pytest.raises(BundleError, match="changed by another process since it was opened"):
        update_manifest(bundle, drop_thresholds)
    assert open_bundle(bundle.path).fingerprint == other.fingerprint


def test_only_what_stands_alone_can_be_changed(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="which alone can change, got files, stages"):
        update_manifest(bundle, lambda now: dataclasses.replace(now, files={}, stages={}))


def test_leftovers_of_a_killed_update_are_ignored_and_removed(bundle: Bundle) -> None:
    """A process of another container may have the number of one that runs here, so numbers say nothing."""
    (bundle.path / f".ndp-rt-tmp-{os.getpid()}").write_text("half a manif")
    open_bundle(bundle.path)
    update_manifest(bundle, drop_thresholds)
    assert not list(bundle.path.glob(".ndp-rt-tmp-*"))


def test_leftovers_of_killed_writers_are_removed(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / f".tiny.ndp.tmp-{os.getpid()}-abc").mkdir()
    (tmp_path / ".tiny.ndp.old-abc").mkdir()
    (tmp_path / ".tiny2.ndp.tmp-abc").mkdir()  # of another bundle
    copy(bundle, bundle.path, overwrite=True)
    assert list_names(tmp_path) == [".tiny2.ndp.tmp-abc", "tiny.ndp"]


REPLACE = """
import dataclasses, sys
from pathlib import Path
from ndp_rt.bundle import open_bundle, write_bundle
bundle = open_bundle(sys.argv[1])
files = {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}
print("ready", flush=True)
for count in range(10**6):
    manifest = dataclasses.replace(bundle.manifest, name=f"number {count}", files={})
    write_bundle(bundle.path, manifest_without_files=manifest, files=files, overwrite=True)
"""


@pytest.mark.nightly(but=2)
@pytest.mark.parametrize("delay_ms", [0, 3, 11, 29, 57])
def test_a_kill_at_any_time_leaves_a_bundle_that_opens(bundle: Bundle, delay_ms: int) -> None:
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", REPLACE, str(bundle.path)], **options) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        time.sleep(delay_ms / 1e3)
        writer.send_signal(signal.SIGKILL)
    assert open_bundle(bundle.path).fingerprint == bundle.fingerprint


def test_folders_are_not_exchanged_where_the_system_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_none(name: object, **_: object) -> None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")  # as on Windows

    monkeypatch.setattr("ctypes.CDLL", load_none)
    assert not write.exchange(tmp_path, tmp_path)
