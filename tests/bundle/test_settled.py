"""Bundles that several processes change and read at once lose no change, and are never mixed."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.bundle import Bundle, open_bundle, update_manifest, write_bundle
from ndp_rt.bundle.settled import ATTEMPT_COUNT, read_settled
from ndp_rt.bundle.write import lock_bundle, replace_files
from ndp_rt.editing import set_threshold
from ndp_rt.errors import BundleError, StorageError
from ndp_rt.program.manifest import BundleManifest, ThresholdSpec
from tests.tiny_bundle import make_tiny_bundle

SET_THRESHOLDS = """
import sys
from ndp_rt.bundle import open_bundle
from ndp_rt.editing import set_threshold
from ndp_rt.program.manifest import ThresholdSpec
bundle = open_bundle(sys.argv[1])
for number in range(int(sys.argv[3])):
    set_threshold(bundle, f"{sys.argv[2]}{number}", ThresholdSpec(value=float(number), source="manual"))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "tiny.ndp")


def keep(now: BundleManifest) -> BundleManifest:
    return now


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.nightly)])
def test_two_processes_that_set_thresholds_lose_none(bundle: Bundle, count: int) -> None:
    command = [sys.executable, "-c", SET_THRESHOLDS, str(bundle.path)]
    writers = [subprocess.Popen([*command, name, str(count)]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    wanted = {f"{name}{number}": float(number) for name in "ab" for number in range(count)}
    found = {name: one.value for name, one in open_bundle(bundle.path).manifest.thresholds.items()}
    assert found == wanted | {"fp32": 0.6}


def test_a_threshold_set_while_the_reference_is_computed_is_kept(bundle: Bundle) -> None:
    set_threshold(open_bundle(bundle.path), "bf16", ThresholdSpec(value=0.5, source="manual"))
    changed = replace_files(bundle, {"reference.png": b"another"}, keep)
    assert changed.threshold("bf16").value == 0.5
    assert open_bundle(bundle.path).manifest == changed.manifest


def test_a_manifest_never_goes_into_a_bundle_of_other_files(bundle: Bundle) -> None:
    """set-threshold read the manifest, set-reference replaced the folder: the old manifest went into the new one."""
    stop, faults, said_to_be_set = threading.Event(), [], threading.Event()

    def set_thresholds() -> None:
        while not stop.is_set():
            try:
                set_threshold(open_bundle(bundle.path, verify=False), "bf16", ThresholdSpec(value=0.5, source="manual"))
                said_to_be_set.set()
            except BundleError as error:  # replaced in between, and said so
                if "changed by another process" not in str(error):
                    faults.append(error)

    setter = threading.Thread(target=set_thresholds)
    setter.start()
    try:
        for number in range(20):
            while True:
                try:
                    replace_files(open_bundle(bundle.path), {"reference.png": b"%d" % number}, keep)
                    break
                except BundleError as error:
                    assert "changed by another process" in str(error)
    finally:
        stop.set()
        setter.join()
    assert not faults
    last = open_bundle(bundle.path)
    assert (last.path / "reference.png").read_bytes() == b"19"
    # On a busy machine every try may meet a replaced folder: then none said that it had set anything.
    assert last.threshold("bf16").value == (0.5 if said_to_be_set.is_set() else None)


def test_a_bundle_swapped_while_it_is_opened_is_opened_whole(bundle: Bundle, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other.ndp", seed=1)
    known = {bundle.fingerprint, other.fingerprint}
    sources = [{name: (one.path / name).read_bytes() for name in one.manifest.files} for one in (bundle, other)]
    stop = threading.Event()

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            files: dict[str, bytes | Path] = dict(sources[number % 2])
            manifest = replace((bundle, other)[number % 2].manifest, files={})
            write_bundle(bundle.path, manifest_without_files=manifest, files=files, overwrite=True)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(30):
            assert open_bundle(bundle.path).fingerprint in known
    finally:
        stop.set()
        swapper.join()


def test_what_was_read_of_two_bundles_is_dropped_and_read_again(tmp_path: Path) -> None:
    folder, dropped = tmp_path / "x.ndp", []
    folder.mkdir()
    reads = iter(range(100))

    def read() -> int:
        number = next(reads)
        if number < 2:
            folder.rename(tmp_path / f"old-{number}")
            folder.mkdir()
        if number == 1:
            raise BundleError("files of two bundles")
        return number

    assert read_settled(folder, read, dropped.append) == 2
    assert dropped == [0]


def test_a_bundle_that_never_rests_is_one_error(tmp_path: Path) -> None:
    folder, reads = tmp_path / "x.ndp", []
    folder.mkdir()

    def read() -> None:
        reads.append(folder.rename(tmp_path / f"old-{len(reads)}"))
        folder.mkdir()

    with pytest.raises(BundleError, match=f"was replaced {ATTEMPT_COUNT} times while it was read"):
        read_settled(folder, read)


def test_errors_of_a_bundle_at_rest_are_raised_at_once(tmp_path: Path) -> None:
    reads: list[int] = []

    def read() -> None:
        reads.append(1)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        read_settled(tmp_path, read)
    assert len(reads) == 1


def test_files_read_after_a_replacement_are_refused(bundle: Bundle) -> None:
    opened = open_bundle(bundle.path)
    replace_files(bundle, {"reference.png": b"another"}, keep)
    with pytest.raises(BundleError, match="was changed by another process since it was opened"), opened.held():
        pass


def test_a_replacement_between_reads_is_told_in_place_of_what_came_of_it(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="was changed by another process since it was opened"), bundle.held():
        replace_files(bundle, {}, keep)  # the same files, in another folder
        raise ValueError("golden vectors of one bundle, graphs of another")


def test_links_of_foreseeable_names_are_not_followed(bundle: Bundle, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (f".ndp-rt-tmp-{os.getpid()}", f".manifest.json.{os.getpid()}.tmp"):
        (bundle.path / name).symlink_to(victim)
    update_manifest(bundle, lambda now: replace(now, thresholds={}))
    assert victim.read_text() == "precious"


def test_a_link_in_place_of_the_lock_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / ".tiny.ndp.lock").unlink()
    (tmp_path / ".tiny.ndp.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="it is a link, which is never followed"):
        update_manifest(bundle, keep)
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_held_for_long_names_its_holder(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.bundle.write.LOCK_WAIT_S", 0.2)
    hold = f"""
import sys
from pathlib import Path
from ndp_rt.bundle.write import lock_bundle
with lock_bundle(Path({str(bundle.path)!r})):
    print("held", flush=True)
    sys.stdin.read()
"""
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", hold], **options) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"got one that process {holder.pid} of .* still holds"):
            update_manifest(bundle, keep)
        holder.communicate("")
    update_manifest(bundle, keep)  # free again


def test_the_lock_of_a_link_is_that_of_its_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ndp_rt.bundle.write.LOCK_WAIT_S", 0.2)
    (tmp_path / "line").mkdir()
    link = tmp_path / "line" / "current.ndp"
    link.symlink_to(bundle.path)
    through = open_bundle(link)
    faults: list[BaseException] = []

    def change() -> None:
        try:
            update_manifest(through, keep)
        except StorageError as error:
            faults.append(error)

    with lock_bundle(bundle.path):
        other = threading.Thread(target=change)
        other.start()
        other.join()
    assert len(faults) == 1
    assert replace_files(through, {"reference.png": b"another"}, keep).path == link
    assert link.is_symlink() and (bundle.path / "reference.png").read_bytes() == b"another"


def test_modes_stay_where_a_manifest_or_a_bundle_is_replaced(bundle: Bundle) -> None:
    bundle.path.chmod(0o750)
    (bundle.path / "manifest.json").chmod(0o640)
    (bundle.path / "weights.bin").chmod(0o440)
    update_manifest(bundle, lambda now: replace(now, thresholds={}))
    replace_files(bundle, {"reference.png": b"another"}, keep)
    found = {path.name: path.stat().st_mode & 0o777 for path in (bundle.path, *bundle.path.iterdir())}
    assert (found["tiny.ndp"], found["manifest.json"], found["weights.bin"]) == (0o750, 0o640, 0o440)
