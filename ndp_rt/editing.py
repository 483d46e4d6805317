"""Changes a bundle without training: its threshold, its reference."""

import dataclasses
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.open import GOLDEN_FILE, REFERENCE_FILE, Bundle, Golden, open_bundle
from ndp_rt.bundle.reference import replace_reference
from ndp_rt.bundle.write import read_current, update_manifest, write_bundle
from ndp_rt.decide.calibration import check_rate, threshold_from_good_scores
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.golden import check_engines
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.images.preprocess import preprocess, read_image
from ndp_rt.inspector import Inspector
from ndp_rt.kernels.smooth import host
from ndp_rt.program.manifest import ThresholdSpec
from ndp_rt.runtime.fused import put_beside_weights
from ndp_rt.runtime.open_plan import open_plan
from ndp_rt.runtime.plan import Plan
from ndp_rt.runtime.reference_image import make_reference_file, read_features, round_to_picture

FloatArray = NDArray[np.float32]

REFERENCE_PICTURE = "reference.png"
CARRIED_OVER = "carried over from the former reference, not calibrated for this one: run set-threshold --calibrate"
GOLDEN_BY = (
    "staged plan with NumPy's RBFRM (kernels.rbfrm), fp32: made by set-reference, independent of the fused graph"
)


def set_threshold(bundle: Bundle, precision: str, threshold: ThresholdSpec) -> Bundle:
    """Store the threshold of one precision; engines need no rebuild, and other precisions keep theirs.

    Raises:
        BundleError: the bundle was replaced after it was opened.
        StorageError: the manifest cannot be written; it stays as it was.
    """
    return update_manifest(bundle, thresholds={**read_current(bundle).thresholds, precision: threshold})


def calibrate(
    bundle: Bundle,
    images: Sequence[Path],
    *,
    rate: float | None = None,
    precision: str = "fp32",
    device: str = "cpu",
    backend: str | None = None,
    threads: int | None = None,
    on_image: Callable[[], None] | None = None,
) -> ThresholdSpec:
    """Return the threshold that good images support.

    Args:
        bundle: its engine scores them, and is built where it is missing.
        images: independent good images that the model was not trained on.
        rate: wanted highest rate of false alarms; None: the lowest that can be promised.
        precision: of the engine and the threshold.
        device: of the engine.
        backend: of the engine; None: the device's first.
        threads: of the engine.
        on_image: called after each image.

    Raises:
        ImageFileError: an image cannot be read; none is left out.
        DataError: no images.
        InputError: a rate outside 0 to 1.
    """
    check_rate(rate)
    scores = []
    with Inspector.open(
        bundle.path,
        device=device,
        precision=precision,
        backend=backend,
        threads=threads,
        threshold=float("inf"),
        batches=(1,),
    ) as inspector:
        for path in images:
            scores.append(inspector.inspect(read_image(path)).score)
            if on_image is not None:
                on_image()
    return threshold_from_good_scores(scores, rate)


def set_reference(path: Path, image_path: Path, *, backend: str = "openvino", threads: int | None = None) -> Bundle:
    """Give the bundle at `path` another reference image, in one step.

    The features come from the encoder, the golden maps from the staged plan, and the changed fused graph has to agree
    with them before anything is written. Thresholds keep their values but lose their promise.

    Raises:
        ImageFileError: the image cannot be read.
        EngineError: the changed model cannot be compiled, or disagrees with the golden maps.
        BundleError: another process changed the bundle meanwhile.
        StorageError: the bundle cannot be written; it stays as it was.
    """
    bundle = open_bundle(path)
    contract = bundle.manifest.input
    prepared = np.empty((1, 3, contract.height_px, contract.width_px), np.float32)
    preprocess(read_image(image_path), contract, prepared[0])
    picture = round_to_picture(prepared)  # what reference.png holds is what the features are made of
    plan = open_plan(bundle, EngineSpec(backend=backend, plan="staged", batches=(1,), threads=threads))
    try:
        changed = _replace_files(bundle, plan.compute_features(prepared))
        plan.use_reference(plan.make_reference(read_features(changed[REFERENCE_FILE])))
        golden = recompute_golden(bundle.golden(), plan)
    finally:
        plan.close()
    _check_fused(bundle, changed, golden, backend, threads)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    files: dict[str, bytes | Path] = {name: bundle.path / name for name in bundle.manifest.files}
    files |= {**changed, REFERENCE_PICTURE: encoded.tobytes(), GOLDEN_FILE: save(to_tensors(golden))}
    current = read_current(bundle)
    manifest = dataclasses.replace(
        current,
        thresholds={name: _carry_over(one) for name, one in current.thresholds.items()},
        reference={"source": image_path.name, "rule": "chosen by hand (ndp-rt set-reference)"},
        golden={**current.golden, "made_by": GOLDEN_BY},
        parity={**current.parity, "note": "measured at export, with the reference of then"},
        provenance=_add_command(current.provenance, path, image_path),
    )
    place = bundle.path.resolve()  # behind a link, the bundle itself
    return write_bundle(place, manifest_without_files=manifest, files=files, overwrite=True)


def recompute_golden(golden: Golden, plan: Plan) -> Golden:
    """Return the golden vectors with the maps and scores that `plan` (batch 1) computes; preprocessing's are kept."""
    maps, scores = np.empty_like(golden.map), np.empty_like(golden.score)
    batch = np.empty_like(golden.image[:1])
    map_out, reconstruction = np.empty_like(golden.map[:1]), np.empty_like(batch)
    smoothed, scratch = np.empty_like(map_out[0, 0]), np.empty_like(map_out[0, 0])
    for index, image in enumerate(golden.image):
        batch[0] = image
        plan.run(batch, map_out, reconstruction)
        host.smooth(map_out[0, 0], smoothed, scratch)
        maps[index], scores[index] = map_out[0], smoothed.max()
    return dataclasses.replace(golden, map=maps, score=scores)


def to_tensors(golden: Golden) -> dict[str, NDArray[Any]]:
    """Return golden vectors under their names in golden.safetensors."""
    tensors: dict[str, NDArray[Any]] = {"image": golden.image, "map": golden.map, "score": golden.score}
    for index, (raw, expected) in enumerate(zip(golden.raw, golden.raw_expected, strict=True)):
        tensors |= {f"raw_{index}": raw, f"raw_{index}_expected": expected}
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _replace_files(bundle: Bundle, features: dict[str, FloatArray]) -> dict[str, bytes]:
    """Return reference.safetensors and fused.onnx with other features."""
    file, graph = bundle.stage_path("fused").name, bundle.stage_path("fused").read_bytes()
    reference = make_reference_file(bundle, features)
    if REFERENCE_FILE not in list_external_locations(graph):  # the graph holds the features itself
        graph = replace_reference(graph, features)
    return {REFERENCE_FILE: reference, file: graph}


def _check_fused(bundle: Bundle, changed: dict[str, bytes], golden: Golden, backend: str, threads: int | None) -> None:
    """Compare the changed fused graph with golden vectors that it had no part in."""
    with tempfile.TemporaryDirectory(prefix="ndp-rt-reference-") as name:
        folder = Path(name)
        graph = put_beside_weights(changed, bundle, folder)
        engine = compile_engine(backend, graph, folder / "engine", EngineOptions(threads=threads))
        try:
            check_engines(bundle, golden, {"fused": engine}, precision="fp32", batch=1)
        finally:
            engine.close()


def _carry_over(threshold: ThresholdSpec) -> ThresholdSpec:
    if threshold.value is None:
        return threshold
    return ThresholdSpec(value=threshold.value, source="manual", note=CARRIED_OVER)


def _add_command(provenance: Any, path: Path, image_path: Path) -> dict[str, Any]:
    """Return the provenance with this change at the end of its commands."""
    command = f"ndp-rt set-reference {shlex.quote(path.name)} {shlex.quote(image_path.name)}"
    return {**provenance, "commands": [*provenance.get("commands", []), command]}
