"""Changes a bundle without training: its threshold, its reference."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.assets import replace_initializers
from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.manifest import read_content
from ndp_rt.bundle.open import GOLDEN_FILE, Bundle, Golden, open_bundle
from ndp_rt.bundle.signature import write_signature
from ndp_rt.bundle.write import add_command, lock_bundle, replace_files, update_manifest
from ndp_rt.decide.calibration import check_rate, threshold_from_good_images
from ndp_rt.decide.counting import Counting, describe_counting
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.golden_report import compare_golden
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import InputError
from ndp_rt.files import make_temporary_folder
from ndp_rt.images.checks import Image
from ndp_rt.images.groups import AUTOMATIC, find_independent
from ndp_rt.images.opencv import cv2
from ndp_rt.images.preprocess import preprocess
from ndp_rt.images.read import read_image
from ndp_rt.images.variations import vary, vary_mask
from ndp_rt.inspector import Inspector
from ndp_rt.program.manifest import BundleManifest, InputContract, ThresholdSpec
from ndp_rt.runtime.assets import AssetMaker, put_beside_weights, round_to_picture
from ndp_rt.runtime.host import HostExecutor
from ndp_rt.runtime.open import make_asset_maker, make_host_executor, open_host
from ndp_rt.runtime.session import Session

CARRIED_OVER = "carried over from the former reference, not calibrated for this one: run set-threshold --calibrate"


def sign(path: str | Path, key_path: str | Path) -> None:
    """Sign the bundle at `path`, for those who open it with `require_signature`; changing it takes that away.

    Args:
        path: the folder NAME.ndp; its files are compared with their hashes first.
        key_path: an Ed25519 private key, PEM or OpenSSH, without a passphrase.

    Raises:
        BundleError: it is no whole bundle.
        InputError: there is no such key.
        MissingExtraError: cryptography is not installed.
        StorageError: the signature cannot be written.
    """
    bundle = open_bundle(path)
    place = bundle.path.resolve()
    with lock_bundle(place), bundle.held():
        write_signature(place, read_content(place), Path(key_path))


def set_threshold(bundle: Bundle, precision: str, threshold: ThresholdSpec) -> Bundle:
    """Store the threshold of one precision; engines need no rebuild, and other precisions keep theirs.

    Raises:
        BundleError: the bundle was replaced after it was opened.
        StorageError: the manifest cannot be written; it stays as it was.
    """

    def edit(now: BundleManifest) -> BundleManifest:
        return dataclasses.replace(now, thresholds={**now.thresholds, precision: threshold})

    return update_manifest(bundle, edit)


def calibrate(
    bundle: Bundle,
    images: Sequence[Path],
    *,
    rate: float | None = None,
    group_by: str = AUTOMATIC,
    varies: bool = True,
    precision: str = "fp32",
    device: str = "cpu",
    backend: str | None = None,
    threads: int | None = None,
    on_image: Callable[[], None] | None = None,
    ignore_mask: Path | None = None,
    smallest_area_px: int | None = None,
) -> ThresholdSpec:
    """Return the threshold that good images support.

    Args:
        bundle: its engine scores them, and is built where it is missing.
        images: good images that the model was not trained on.
        rate: wanted highest rate of false alarms; None: 5 %, predicted for other lots.
        group_by: how images that are not independent are found: the rule of `ndp_rt.images.groups.find_groups`.
        varies: score each image also with light, focus and position changed; needless for images of many days.
        precision: of the engine and the threshold.
        device: of the engine.
        backend: of the engine; None: the device's first.
        threads: of the engine.
        on_image: called after each image.
        ignore_mask: as for `Inspector.open`, as it is when the line inspects.
        smallest_area_px: likewise.

    Raises:
        ImageFileError: an image cannot be read; none is left out.
        DataError: no images.
        InputError: a rate outside 0 to 1, or an image that has not the mask's size.
        BundleError: the bundle was replaced after it was opened.
    """
    check_rate(rate)
    groups = find_independent(images, group_by).labels if images else ()
    found: list[list[tuple[float, float]]] = []
    with Inspector.open(
        bundle.path,
        device=device,
        precision=precision,
        backend=backend,
        threads=threads,
        threshold=float("inf"),
        batches=(1,),
        ignore_mask=ignore_mask,
        smallest_area_px=smallest_area_px,
    ) as inspector:
        if inspector.bundle.fingerprint != bundle.fingerprint:
            raise bundle.replaced()
        for path in images:
            found.append(_score_image(inspector.session, path, varies=varies))
            if on_image is not None:
                on_image()
        words, has_own_score = describe_counting(inspector.session.selection), inspector.session.has_own_score
    spec = threshold_from_good_images(np.array(found, np.float32), rate, groups, has_own_score=has_own_score)
    return dataclasses.replace(spec, note=f"{spec.note}{words}")


def _score_image(session: Session, path: Path, *, varies: bool) -> list[tuple[float, float]]:
    """Return the score of an image, and those of its variations, each with its map's largest value.

    The latter only of a model that gives its score itself, else the score again.
    """
    contract = session.bundle.manifest.input
    image = read_image(path, white_level=contract.white_level_16bit)
    try:
        counting = session.find_counting(image.shape[:2])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    varied = _vary_picture(image, contract) if varies else []
    each = [counting, *_vary_counting(counting, len(varied))]
    found = []
    for one, part in zip([image, *varied], each, strict=True):
        score = session.score_picture(one, part)
        found.append((score, session.find_peak() if session.has_own_score else score))
    return found


def _vary_picture(image: Image, contract: InputContract) -> list[Image]:
    """Return an image's variations at the network's size, uint16 [h, w, 3]."""
    prepared = np.empty((3, contract.height_px, contract.width_px), np.float32)
    preprocess(image, contract, prepared)
    pixels = np.rint(vary(prepared) * np.float32(contract.white_level_16bit)).astype(np.uint16)
    return list(pixels.transpose(0, 2, 3, 1))


def _vary_counting(counting: Counting | None, count: int) -> list[Counting | None]:
    """Return what counts of each of an image's `count` variations: what is ignored moves with the picture."""
    if counting is None or counting.pixels is None or not count:
        return [counting] * count
    moved = [dataclasses.replace(counting, pixels=pixels) for pixels in vary_mask(counting.pixels)]
    return [one if one.holds_any(counting.pixels.shape) else counting for one in moved]


def set_reference(path: Path, image_path: Path, *, backend: str | None = None, threads: int | None = None) -> Bundle:
    """Give the bundle at `path` another reference image, in one step.

    Its tensors come from the stages that make it; the golden maps from the program whose ops read it, and the changed
    graphs that hold it have to agree with them before anything is written. Thresholds keep their values but lose their
    promise.

    Raises:
        ImageFileError: the image cannot be read.
        InputError: the model has no reference image.
        EngineError: a changed graph cannot be compiled, or disagrees with the golden maps.
        BundleError: another process changed the bundle meanwhile.
        StorageError: the bundle cannot be written; it stays as it was.
    """
    bundle = open_bundle(path)
    programs = bundle.manifest.programs["cpu"]
    spec = EngineSpec(backend=backend, batches=(1,), threads=threads)
    maker = make_asset_maker(bundle, spec)
    prepared = maker.prepare_picture(read_image(image_path, white_level=bundle.manifest.input.white_level_16bit), "rgb")
    picture = round_to_picture(prepared)  # what the picture in the bundle holds is what the tensors are made of
    plan = next((name for name, one in programs.items() if maker.name in one.assets), next(iter(programs)))
    with bundle.held():
        with closing(open_host(bundle, dataclasses.replace(spec, plan=plan))) as executor:
            graphs = _replace_files(bundle, maker, tensors := executor.compute_asset(prepared))
            executor.use_asset(maker.name, tensors)
            golden = recompute_golden(bundle.golden(), executor)
        for name, program in programs.items():
            if name != plan and set(program.stages) & set(maker.spec.in_graphs):
                _check_changed(bundle, name, graphs, golden, spec)
    changed: dict[str, bytes | Path] = {**graphs, GOLDEN_FILE: save(to_tensors(golden))}
    if maker.spec.picture is not None:
        _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        changed[maker.spec.picture] = encoded.tobytes()

    def edit(now: BundleManifest) -> BundleManifest:
        command = f"ndp-rt set-reference {shlex.quote(path.name)} {shlex.quote(image_path.name)}"
        return dataclasses.replace(
            now,
            thresholds={name: _carry_over(one) for name, one in now.thresholds.items()},
            reference={"source": image_path.name, "rule": "chosen by hand (ndp-rt set-reference)"},
            engines={},
            golden={**now.golden, "made_by": f"plan '{plan}' on the CPU, fp32: by set-reference"},
            parity={**now.parity, "note": "measured at export, with the reference of then"},
            provenance=add_command(now.provenance, command),
        )

    return replace_files(bundle, changed, edit)


def recompute_golden(golden: Golden, executor: HostExecutor) -> Golden:
    """Return golden vectors with the maps and scores that an executor computes; the preprocessing's are kept."""
    found = [executor.run(image[None]) for image in golden.image]
    maps = np.concatenate([maps for maps, _ in found])
    return dataclasses.replace(golden, map=maps, score=np.concatenate([scores for _, scores in found]))


def to_tensors(golden: Golden) -> dict[str, NDArray[Any]]:
    """Return golden vectors under their names in golden.safetensors."""
    tensors: dict[str, NDArray[Any]] = {"image": golden.image, "map": golden.map, "score": golden.score}
    for index, (raw, expected) in enumerate(zip(golden.raw, golden.raw_expected, strict=True)):
        tensors |= {f"raw_{index}": raw, f"raw_{index}_expected": expected}
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _replace_files(bundle: Bundle, maker: AssetMaker, tensors: Mapping[str, FloatArray]) -> dict[str, bytes]:
    """Return the asset's file, and the graphs that hold it, with other tensors."""
    changed = {maker.spec.file: maker.make_file(tensors)}
    for stage, names in maker.spec.in_graphs.items():
        path = bundle.stage_path(stage)
        graph = path.read_bytes()
        if maker.spec.file not in list_external_locations(graph):  # the graph holds the tensors itself
            graph = replace_initializers(graph, names, tensors)
        changed[path.name] = graph
    return changed


def _check_changed(bundle: Bundle, plan: str, changed: Mapping[str, bytes], golden: Golden, spec: EngineSpec) -> None:
    """Compare a program's changed graphs with golden vectors that they had no part in."""
    backend, options = spec.find_backend().name, spec.of_batch(1)
    engines: dict[str, Engine] = {}
    with make_temporary_folder("reference") as name:
        try:
            for stage in bundle.manifest.programs["cpu"][plan].stages:
                folder = Path(name, stage)
                folder.mkdir()
                path = bundle.stage_path(stage)
                if path.name in changed:
                    path = put_beside_weights(path.name, changed, bundle, folder)
                engines[stage] = compile_engine(backend, path, folder / "engine", options)
            executor = make_host_executor(bundle, dataclasses.replace(spec, plan=plan), {1: engines})
            compare_golden(bundle, golden, executor.run, precision="fp32", batch=1)
        finally:
            for engine in engines.values():
                engine.close()


def _carry_over(threshold: ThresholdSpec) -> ThresholdSpec:
    if threshold.value is None:
        return threshold
    return ThresholdSpec(value=threshold.value, source="manual", note=CARRIED_OVER, map_value=threshold.map_value)
