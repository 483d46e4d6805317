"""What cannot be opened: options, bundles and caches, each with one status and what to do about it."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.editing import sign
from tests.capi.library import Library
from tests.capi.programs import run_steps
from tests.keys import make_keys

MILLION = b"x" * 1_000_000


def open_with(library: Library, bundle: bytes, **options: Any) -> tuple[str, str]:
    """Open, close what was opened, and return status and message; bytes become strings, lists arrays."""
    ffi, out = library.ffi, library.ffi.new("ndp_rt_inspector **")
    fields = dict(options)
    for name, value in options.items():
        if isinstance(value, bytes):
            fields[name] = ffi.new("char[]", value)
        elif isinstance(value, list):
            fields[name] = ffi.new("int32_t[]", value)
            fields["batch_size_count"] = len(value)
    given = library.make("ndp_rt_open_options", **fields)
    status = library.name(library.lib.ndp_rt_inspector_open(bundle, given, out))
    if status == "OK":
        assert library.lib.ndp_rt_inspector_close(out[0]) == 0
    else:
        assert out[0] == ffi.NULL
    return status, library.last_error


OPTIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"flags": 32}, "INPUT", "NDP_RT_OPEN_ values, got 0x20"),
    ({"flags": 2**32 - 1}, "INPUT", "NDP_RT_OPEN_"),
    (
        {"white_level_16bit": 65536},
        "INPUT",
        "white_level_16bit: expected up to 65535, or 0 for the bundle's, got 65536",
    ),
    ({"threads": -1}, "INPUT", "choose, got -1."),
    ({"threads": 2**31 - 1}, "INPUT", "choose, got 2147483647."),
    ({"threads": 10**6, "backend": b"onnxruntime"}, "INPUT", "0 to let the backend choose"),
    ({"queue_capacity": 65537}, "INPUT", "queue_capacity: expected up to 65536, or 0 for 16, got 65537"),
    ({"queue_capacity": 2**32 - 1}, "INPUT", "got 4294967295"),
    ({"batch_size_count": 1}, "INPUT", "batch_sizes: expected an array"),
    ({"batch_sizes": [0]}, "INPUT", "batch_sizes[0]: expected 1 to 4096, got 0"),
    ({"batch_sizes": [1, -5]}, "INPUT", "batch_sizes[1]: expected 1 to 4096, got -5"),
    ({"batch_sizes": [2**31 - 1]}, "INPUT", "got 2147483647"),
    ({"batch_sizes": [1] * 65}, "INPUT", "batch_size_count: expected up to 64, got 65"),
    ({"mm_per_pixel": float("nan")}, "INPUT", "0 where it is not known"),
    ({"mm_per_pixel": float("inf")}, "INPUT", "got inf"),
    ({"mm_per_pixel": -0.1}, "INPUT", "got -0.1"),
    ({"mm_per_pixel": 1e300}, "INPUT", "got 1e+300"),
    ({"mm_per_pixel": 5e-324}, "INPUT", "got 4.94066e-324"),
    ({"threshold": float("nan"), "flags": 1}, "INPUT", "got NaN"),
    ({"device": b""}, "INPUT", "device: expected a name"),
    ({"device": b"gpu"}, "INPUT", "cuda:N"),
    ({"device": b"cuda:-1"}, "INPUT", "cuda:N"),
    ({"device": b"\xff"}, "INPUT", "UTF-8"),
    ({"device": MILLION}, "INPUT", "cuda:N"),
    ({"backend": b""}, "INPUT", "backend: expected a name"),
    ({"backend": b"tensorflow"}, "INPUT", "openvino, onnxruntime"),
    ({"backend": b"tensorrt"}, "INPUT", "device cuda or cuda:N"),
    ({"backend": MILLION}, "INPUT", "openvino, onnxruntime"),
    ({"precision": b""}, "INPUT", "precision: expected a name"),
    ({"precision": b"fp64"}, "INPUT", "fp32"),
    ({"precision": b"fp16", "flags": 1, "threshold": 0.5}, "INPUT", "fp32 or bf16"),
    ({"precision": MILLION}, "INPUT", "fp32"),
    ({"plan": b""}, "INPUT", "plan: expected a name"),
    ({"plan": b"unmerged"}, "INPUT", "fused or staged"),
    ({"plan": MILLION}, "INPUT", "fused or staged"),
    ({"require_signature": b""}, "INPUT", "require_signature: expected a name or a path"),
    ({"require_signature": b"\xff.pub"}, "INPUT", "require_signature: expected UTF-8"),
    ({"require_signature": b"/nowhere/key.pub"}, "INPUT", "/nowhere/key.pub: this key cannot be read"),
    ({"require_signature": MILLION}, "INPUT", "this key cannot be read"),
    ({"ignore_mask": b""}, "INPUT", "ignore_mask: expected a name or a path"),
    ({"ignore_mask": b"\xff.png"}, "INPUT", "ignore_mask: expected UTF-8"),
    ({"ignore_mask": b"/nowhere/mask.png"}, "INPUT", "ignore_mask: /nowhere/mask.png: No such file or directory"),
    ({"ignore_mask": MILLION}, "INPUT", "x: File name too long. Give the path of a readable image file."),
    ({"smallest_area_px": -1}, "INPUT", "smallest_area_px: expected up to 2147483647, or 0 where all count, got -1"),
    ({"smallest_area_px": 2**31}, "INPUT", "got 2147483648"),
    ({"smallest_area_mm2": -0.5}, "INPUT", "smallest_area_mm2: expected an area, or 0 where all count, got -0.5"),
    ({"smallest_area_mm2": float("nan")}, "INPUT", "smallest_area_mm2: expected an area"),
    ({"smallest_area_mm2": float("inf")}, "INPUT", "smallest_area_mm2: expected an area"),
    ({"smallest_area_mm2": 2.0}, "INPUT", "smallest_area_mm2: expected mm_per_pixel with it"),
    ({"smallest_area_mm2": 2.0, "mm_per_pixel": 1.0, "smallest_area_px": 2}, "INPUT", "got both"),
    ({"backend": b"onnxruntime", "flags": 2, "batch_sizes": [7]}, "ENGINE", "Build it with: ndp-rt build-engine"),
]


@pytest.mark.parametrize(("options", "status", "words"), OPTIONS, ids=[str(one)[:60] for one, _, _ in OPTIONS])
def test_options_that_are_refused(
    library: Library, tiny_bundle: Path, options: dict[str, Any], status: str, words: str
) -> None:
    found, message = open_with(library, str(tiny_bundle).encode(), **options)
    assert found == status and words in message and 20 < len(message.encode()) < 2048, (found, message)


def test_fields_that_are_not_asked_for_are_not_read(library: Library, tiny_bundle: Path) -> None:
    nowhere = library.ffi.cast("int32_t *", 1)
    options = {"threshold": float("nan"), "batch_sizes": nowhere, "batch_size_count": 0}
    assert open_with(library, str(tiny_bundle).encode(), threads=1, **options)[0] == "OK"


def test_a_host_with_the_header_of_abi_1_1_has_no_further_options(library: Library, tiny_bundle: Path) -> None:
    struct_size = library.ffi.offsetof("ndp_rt_open_options", "require_signature")
    nowhere = library.ffi.cast("char *", 1)
    options = {"struct_size": struct_size, "require_signature": nowhere, "threads": 1}
    assert struct_size == 80 and open_with(library, str(tiny_bundle).encode(), **options)[0] == "OK"


def test_a_bundle_that_is_not_signed_with_the_key_is_refused(
    library: Library, tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'ndp-rt[sign]'")
    (own, own_public), (_, other_public) = make_keys(tmp_path, "own"), make_keys(tmp_path, "other")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "signed.ndp")

    def open_signed(key: Path) -> tuple[str, str]:
        return open_with(library, str(bundle).encode(), threads=1, require_signature=str(key).encode())

    status, message = open_signed(own_public)
    assert status == "BUNDLE" and "expected a signed bundle, got one without signature.json" in message
    sign(bundle, own)
    assert open_signed(own_public)[0] == "OK"
    status, message = open_signed(other_public)
    assert status == "BUNDLE" and f"signed with {other_public}, got one that was signed with another key" in message


PATHS = [
    (b"", "INPUT", "NAME.ndp, got an empty one"),
    (b"/nowhere/tiles.ndp", "BUNDLE", "does not exist"),
    (b"/nowhere/t**s[1].ndp", "BUNDLE", "does not exist"),
    (b"/dev/null", "BUNDLE", "got a file"),
    (b"/proc", "BUNDLE", "got one without manifest.json"),
    (b"\n%s%n\t", "BUNDLE", "does not exist"),
    (b"\xff\xfe.ndp", "INPUT", "UTF-8"),
    (b"\xc3\xa9" * 200 + b"\xc3", "INPUT", "UTF-8"),
    (MILLION, "BUNDLE", "does not exist"),
    (b"a/" * 500_000, "BUNDLE", "does not exist"),
    (b"\xc3\xa9" * 500_000, "BUNDLE", "does not exist"),
    (b"\xff" * 1_000_000, "INPUT", "UTF-8"),
]


@pytest.mark.parametrize(("path", "status", "words"), PATHS, ids=[f"{one[0][:20]!r}" for one in PATHS])
def test_paths_that_are_no_bundle(library: Library, path: bytes, status: str, words: str) -> None:
    found, message = open_with(library, path)
    assert found == status and words in message and 20 < len(message.encode()) < 2048, (found, message)


def change_manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        document.pop("sha256", None)  # as in a bundle of before 0.2
        change(document)
        path.write_text(json.dumps(document), encoding="utf-8")

    return apply


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "got one without manifest.json"),
    "manifest cut short": (lambda folder: os.truncate(folder / "manifest.json", 100), "expected JSON"),
    "manifest of zeros": (lambda folder: (folder / "manifest.json").write_bytes(b"\0" * 100) and None, "expected JSON"),
    "newer format": (change_manifest(lambda document: document.update(format_version=99)), "99"),
    "no bundle": (change_manifest(lambda document: document.update(format="other")), "other"),
    "a byte flipped": (lambda folder: flip_byte(folder / "weights.bin"), "weights.bin"),
    "model flipped": (lambda folder: flip_byte(folder / "fused.onnx"), "fused.onnx"),
    "golden flipped": (lambda folder: flip_byte(folder / "golden.safetensors"), "golden.safetensors"),
    "cut short": (lambda folder: os.truncate(folder / "fused.onnx", 10), "fused.onnx"),
    "file missing": (lambda folder: (folder / "reference.safetensors").unlink(), "reference.safetensors"),
    "file more": (lambda folder: (folder / "more.bin").write_bytes(b"1") and None, "more.bin"),
    "a link out": (lambda folder: replace_by_link(folder / "fused.onnx"), "fused.onnx"),
}


def replace_by_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_newer_bundles(library: Library, tiny_bundle: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "damaged.ndp"
    shutil.copytree(tiny_bundle, folder)
    apply, words = DAMAGES[damage]
    apply(folder)
    status, message = open_with(library, str(folder).encode())
    assert status == "BUNDLE" and words in message and str(folder) in message, (status, message)


def test_an_engine_that_was_changed_is_not_used(
    library: Library, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    assert open_with(library, str(tiny_bundle).encode(), threads=1)[0] == "OK"
    flip_byte(next((tmp_path / "engines").glob("*/model.blob")))
    status, message = open_with(library, str(tiny_bundle).encode(), threads=1)
    assert status == "ENGINE" and "was changed" in message and "--rebuild" in message


def test_a_gpu_that_is_not_there(library: Library, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ndp_rt.devices.machine.find_gpus", lambda: ())
    monkeypatch.setitem(sys.modules, "cupy", None)
    for device in (b"cuda", b"cuda:7"):
        status, message = open_with(library, str(tiny_bundle).encode(), device=device)
        assert status in ("DEVICE", "MISSING") and len(message) > 20
    flags = library.lib.NDP_RT_OPEN_FALLBACK
    assert open_with(library, str(tiny_bundle).encode(), device=b"cuda", flags=flags)[0] == "OK"


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


@pytest.mark.nightly
def test_a_full_disk_is_a_status(steps: Path, library_path: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    words = ["ignore-file-limit", f"open={tiny_bundle}", f"open={tiny_bundle}"]
    cache = {"NDP_RT_CACHE": str(tmp_path)}
    lines = run_steps(steps, library_path, words, environment=cache, preexec_fn=limit_files)
    assert len(lines) == 2 and all(line.startswith("open: STORAGE") and "Free some space" in line for line in lines)
    assert not list(tmp_path.glob("engines/[!.]*"))
    assert run_steps(steps, library_path, [f"open={tiny_bundle}"], environment=cache) == ["open: OK"]


@pytest.mark.parametrize("cache", ["/proc/ndp-rt", "/dev/null/ndp-rt"])
def test_a_cache_that_cannot_be_written_is_a_status(
    library: Library, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", cache)
    status, message = open_with(library, str(tiny_bundle).encode())
    assert status == "STORAGE" and cache in message and "NDP_RT_CACHE" in message


def test_the_builder_that_is_killed_is_a_status(
    library: Library, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    started = subprocess.Popen

    def start_killed(*arguments: Any, **options: Any) -> Any:
        child = started(*arguments, **options)
        child.kill()
        return child

    monkeypatch.setattr(subprocess, "Popen", start_killed)
    status, message = open_with(library, str(tiny_bundle).encode(), threads=1)
    assert status == "ENGINE" and "by signal 9" in message and "try again" in message
