"""What the bundle of bricks answers, as hashes: scores, maps and reconstructions in every precision and plan.

`python -m tests.identity.answers` records them for this machine; `test_identity.py` compares. Processors and versions
of a backend round differently, so a record says which of both it is for.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import ndp_rt
from ndp_rt import Inspector, read_image
from tests.bricks import BRICK_IMAGES, BRICKS

HERE = Path(__file__).parent
RECORD = HERE / "answers.json"
# Backend, precision, plan, batch sizes.
CASES: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("openvino", "fp32", "fused", (1,)),
    ("openvino", "fp32", "fused", (1, 4)),
    ("openvino", "fp32", "staged", (1,)),
    ("openvino", "bf16", "fused", (1,)),
    ("openvino", "bf16", "staged", (1, 4)),
    ("openvino", "int8", "fused", (1,)),
    ("openvino", "mixed", "fused", (1,)),
    ("onnxruntime", "fp32", "fused", (1,)),
    ("onnxruntime", "fp32", "staged", (1,)),
)
WAYS = ("inspect", "batch", "stream", "large", "reference")


def describe_machine() -> dict[str, str]:
    """Return what answers depend on beside our code."""
    info = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    lines = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    words = {key.strip(): " ".join(value.split()) for key, value in lines.items()}
    flags = hashlib.sha256(words.get("flags", "").encode()).hexdigest()[:12]
    packages = {name: version(name) for name in ("openvino", "onnxruntime", "numpy", "opencv-python-headless")}
    return {"processor": words.get("model name", "unknown"), "flags": flags, **packages}


def make_bundle(folder: Path) -> Path:
    """Copy the bundle of bricks and give it int8 layers, as `ndp-rt quantise` once chose them."""
    bundle = folder / BRICKS.name
    shutil.copytree(BRICKS, bundle)
    layers = (HERE / "int8.json").read_bytes()
    (bundle / "int8.json").write_bytes(layers)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["int8.json"] = {"sha256": hashlib.sha256(layers).hexdigest(), "bytes": len(layers)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def list_images() -> list[np.ndarray[Any, Any]]:
    """Return the photographs of bricks and the golden vectors' raw images."""
    golden = load_file(BRICKS / "golden.safetensors")
    raw = [golden[name] for name in sorted(golden) if name.startswith("raw_") and not name.endswith("_expected")]
    return [read_image(path) for path in sorted(BRICK_IMAGES.glob("[gd]*_*.png"))] + raw


def compute_answers(bundle: Path, case: tuple[str, str, str, tuple[int, ...]]) -> dict[str, str]:
    """Return a hash of everything that each way through an inspector answers."""
    backend, precision, plan, batches = case
    images = list_images()
    large = np.concatenate([np.concatenate(images[:2], axis=1), np.concatenate(images[2:4], axis=1)])
    with Inspector.open(
        bundle, backend=backend, precision=precision, plan=plan, batches=batches, threads=2, threshold=0.42
    ) as inspector:
        found = {
            "inspect": [inspector.inspect(image, keep_reconstruction=True) for image in images],
            "batch": inspector.inspect_batch(images, keep_reconstruction=True),
            "stream": list(inspector.stream(images, keep_reconstruction=True)),
            "large": [inspector.inspect_large(large)],
        }
        inspector.set_reference(images[1])
        found["reference"] = [inspector.inspect(image) for image in images[:3]]
    return {way: hash_results(results) for way, results in found.items()}


def hash_results(results: list[ndp_rt.Result]) -> str:
    """Return the SHA-256 of scores, decisions, maps, reconstructions and defects."""
    digest = hashlib.sha256()
    for one in results:
        digest.update(repr((one.score, one.threshold, one.is_defect)).encode())
        digest.update(np.ascontiguousarray(one.anomaly_map).tobytes())
        if one.reconstruction is not None:
            digest.update(np.ascontiguousarray(one.reconstruction).tobytes())
        for defect in one.defects:
            digest.update(repr((defect.x_px, defect.y_px, defect.area_px, defect.peak)).encode())
    return digest.hexdigest()[:16]


def name_case(case: tuple[str, str, str, tuple[int, ...]]) -> str:
    return " ".join((*case[:3], ",".join(map(str, case[3]))))


def main() -> None:
    """Record this machine's answers."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["NDP_RT_CACHE"] = f"{name}/cache"
        bundle = make_bundle(Path(name))
        answers = {name_case(case): compute_answers(bundle, case) for case in CASES}
    records = json.loads(RECORD.read_text()) if RECORD.exists() else []
    kept = [one for one in records if one["machine"] != describe_machine()]
    RECORD.write_text(json.dumps([*kept, {"machine": describe_machine(), "answers": answers}], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
