"""Turns a finished training run into a bundle: graphs, weights, reference, golden vectors, thresholds, manifest."""

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from ndp_rt.bundle import Bundle, write_bundle
from ndp_rt.bundle.open import CALIBRATION_FILE, GOLDEN_FILE, REFERENCE_FILE
from ndp_rt.bundle.reference import LEVELS, find_reference_data
from ndp_rt.bundle.write import BUNDLE_SUFFIX, check_target
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.base import EngineOptions
from ndp_rt.errors import EngineError, InputError, NdpRtError, StorageError
from ndp_rt.export import golden
from ndp_rt.export.calibrate import calibrate
from ndp_rt.export.calibration_images import pack_calibration_images
from ndp_rt.export.onnx_graphs import duplicate_shared_biases, store_as_half, trace_stage
from ndp_rt.export.parity import Difference, Parity, compare_maps, measure_parity
from ndp_rt.export.rewrites import REWRITES
from ndp_rt.export.stages import Stage, build_stages
from ndp_rt.export.trained_run import TrainedRun, load_run, read_inputs
from ndp_rt.export.weights import WEIGHTS_FILE, Place, WeightStore, move_weights
from ndp_rt.program.manifest import BundleManifest, ModelSpec, StageSpec, ThresholdSpec, read_model
from ndp_rt.program.version1 import describe_ndpnet

REFERENCE_PICTURE = "reference.png"
WEIGHT_TYPES = ("fp32", "fp16")
GOLDEN_COUNT = {"fp32": 4, "fp16": 2}  # a bundle in half precision is one that has to be small
VERSIONS_OF = ("ndp-rt", "torch", "onnx", "openvino", "onnxruntime", "numpy", "opencv-python-headless")

FloatArray = NDArray[np.float32]
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What a bundle is made like.

    Raises:
        InputError: weights of another type, or a rate outside 0 to 1.
    """

    rewrite: bool = True
    weights: str = "fp32"  # as stored; the arithmetic is the engine's affair
    false_alarm_rate: float | None = None  # None: the lowest that the number of held-out images can promise
    calibration_image_count: int = 32  # good images that the bundle carries at most, to calibrate int8 on
    threads: int | None = None  # of PyTorch and of the engines; None: their own choice
    overwrite: bool = False
    command: str = "ndp-rt export"  # for the provenance

    def __post_init__(self) -> None:
        if self.weights not in WEIGHT_TYPES:
            raise InputError(f"weights are '{self.weights}'; {' or '.join(WEIGHT_TYPES)} are taken.")
        rate = self.false_alarm_rate
        if rate is not None and not 0.0 < rate < 1.0:
            raise InputError(f"false_alarm_rate is {rate}; it lies between 0 and 1, 0.01 for one in a hundred.")
        EngineOptions(threads=self.threads)
        if self.calibration_image_count < 0:
            raise InputError(f"calibration images are {self.calibration_image_count}; 0 or more are taken.")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was exported."""

    bundle: Bundle
    parity: Parity
    thresholds: Mapping[str, ThresholdSpec]

    @property
    def size_bytes(self) -> int:
        """The size of all files together, the manifest's included."""
        return sum(path.stat().st_size for path in self.bundle.path.iterdir())


def export_run(
    run_path: str | Path,
    bundle_path: str | Path,
    settings: ExportSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Export:
    """Write the bundle of the run in the folder `run_path` to the folder `bundle_path` (NAME.ndp).

    Nothing is written there unless every graph agrees with PyTorch.

    Raises:
        RunError: no finished run, or one that misses a file, a held-out image among them.
        InputError: a bundle path without .ndp.
        EngineError: a graph cannot be compiled, or differs from PyTorch by more than `ndp_rt.engines.tolerances`
            allows.
        StorageError: something is there already and `overwrite` is not set, or it cannot be written.
    """
    settings, say = settings or ExportSettings(), progress or (lambda line: None)
    target = Path(bundle_path).absolute()
    if target.suffix != BUNDLE_SUFFIX:
        raise InputError(f"bundle path is {target}; a name that ends in {BUNDLE_SUFFIX} is taken.")
    check_target(target, settings.overwrite)  # before minutes of work, not after
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    run = load_run(Path(run_path))
    say("tracing the graphs")
    stages = build_stages(run.model, rewrite=settings.rewrite, weights=settings.weights)
    with make_scratch_folder() as folder:
        reference = write_graphs(stages, folder, settings)
        say("comparing with PyTorch")
        pictures = choose_pictures(run)
        parity = _compare(run, stages["fused"].module, folder, reference, pictures, settings, say)
        paths = run.calibration_paths
        thresholds = calibrate(
            folder / "fused.onnx",
            paths,
            lambda index: read_inputs(run, paths[index]),
            false_alarm_rate=settings.false_alarm_rate,
            progress=say,
            threads=settings.threads,
        )
        chosen = list(pictures)[: GOLDEN_COUNT[settings.weights]]
        vectors = golden.make_golden(
            _truth(run, stages, settings),
            [pictures[picture] for picture in chosen],
            run.contract,
            is_small=settings.weights == "fp16",
        )
        files: dict[str, bytes | Path] = {path.name: path for path in sorted(folder.iterdir())}
        files[GOLDEN_FILE] = save(vectors)
        carried = pack_calibration_images(run, settings.calibration_image_count)
        if carried is not None:
            files[CALIBRATION_FILE] = carried
        files[REFERENCE_PICTURE] = run.run_dir / REFERENCE_PICTURE
        manifest = _describe(run, target.stem, stages, settings, parity, thresholds, chosen)
        say(f"writing {target}")
        bundle = write_bundle(target, manifest_without_files=manifest, files=files, overwrite=settings.overwrite)
    return Export(bundle=bundle, parity=parity, thresholds=thresholds)


@contextmanager
def make_scratch_folder() -> Iterator[Path]:
    """Yield a temporary folder that goes with the block.

    Raises:
        StorageError: the block could not write to it, or to another temporary one.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="ndp-rt-export-") as name:
            yield Path(name)
    except OSError as error:
        if isinstance(error, NdpRtError):
            raise
        raise StorageError(
            f"{tempfile.gettempdir()}: the graphs cannot be written there ({error.strerror or error}). Free some "
            "space, or set TMPDIR to another folder."
        ) from error


def write_graphs(stages: Mapping[str, Stage], folder: Path, settings: ExportSettings) -> dict[str, FloatArray]:
    """Write every stage's ONNX file, their weights and reference.safetensors; return the reference's features.

    Raises:
        EngineError: onnx's checker refuses a graph.
    """
    net = stages["fused"].module
    is_half = settings.weights == "fp16"
    stored = {f"f{level}": getattr(net, f"reference_{level}").numpy() for level in LEVELS}
    content = save({name: value.astype(np.float16 if is_half else np.float32) for name, value in stored.items()})
    (folder / REFERENCE_FILE).write_bytes(content)
    spans = find_reference_data(content)
    places = {
        f"reference_{level}": Place(file=REFERENCE_FILE, offset=spans[f"f{level}"][0], length=spans[f"f{level}"][1])
        for level in LEVELS
    }
    store = WeightStore()
    for name, stage in stages.items():
        model = trace_stage(stage)
        if settings.rewrite:
            duplicate_shared_biases(model)
        if is_half:
            store_as_half(model)
        move_weights(model, store, places)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / WEIGHTS_FILE).write_bytes(store.to_bytes())
    for name in stages:
        try:
            onnx.checker.check_model(str(folder / f"{name}.onnx"), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise EngineError(f"onnx's checker refuses {name}.onnx: {error}. Report this.") from error
    return stored


def choose_pictures(run: TrainedRun) -> dict[str, golden.ByteImage]:
    """Return images to compare on, RGB at the network's size, by name; golden vectors are made of the first of them."""
    pictures: dict[str, golden.ByteImage] = {}
    good = run.reference_image
    for position, path in enumerate(run.calibration_paths[:2]):
        planes = read_inputs(run, path)[0]
        picture = np.rint(planes.transpose(1, 2, 0) * 255.0).astype(np.uint8)
        good = picture if position == 0 else good
        pictures[f"held-out {path.name}"] = picture
    first = {"with a painted defect": golden.paint_mark(good)}
    noise = {"random bytes": golden.make_noise(run.contract.height_px, run.contract.width_px)}
    return {**first, **pictures, "reference": run.reference_image, **noise}


def _truth(run: TrainedRun, stages: Mapping[str, Stage], settings: ExportSettings) -> nn.Module:
    """Return the PyTorch network that a bundle has to reproduce: the trained one, or the one with its weights rounded.

    Rounding comes after the rewrites, so that in half precision the rewritten module itself is the reference.
    """
    return run.model if settings.weights == "fp32" else stages["fused"].module


def _compare(
    run: TrainedRun,
    exported: nn.Module,
    folder: Path,
    reference: Mapping[str, FloatArray],
    pictures: Mapping[str, golden.ByteImage],
    settings: ExportSettings,
    progress: Progress,
) -> Parity:
    images = {name: golden.to_input(picture) for name, picture in pictures.items()}
    trained = np.concatenate([golden.run_network(run.model, image) for image in images.values()])
    expected, against = trained, "PyTorch, float32, the trained network"
    rounding: Difference | None = None
    if settings.weights == "fp16":
        expected = np.concatenate([golden.run_network(exported, image) for image in images.values()])
        against = "PyTorch, float32, the trained network with the float16 weights of this bundle"
        rounding = compare_maps(expected, trained)
        progress(
            f"float16 weights move the map by {rounding.map_max_abs:.1e}, the score by {rounding.score_max_abs:.1e}"
        )
    return measure_parity(
        folder,
        reference,
        images,
        expected,
        against=against,
        weight_rounding=rounding,
        progress=progress,
        threads=settings.threads,
    )


def _describe(
    run: TrainedRun,
    name: str,
    stages: Mapping[str, Stage],
    settings: ExportSettings,
    parity: Parity,
    thresholds: Mapping[str, ThresholdSpec],
    golden_names: list[str],
) -> BundleManifest:
    document = run.document
    reference = document.get("reference") or {}
    rewrites = REWRITES if settings.rewrite else ()
    return BundleManifest(
        name=name,
        model=ModelSpec(
            family="ndpnet",
            preset=document["preset"],
            width=document["width"],
            rewrites=rewrites,
            weights=settings.weights,
        ),
        input=run.contract,
        **read_model(describe_ndpnet({stage.name: _describe_stage(stage) for stage in stages.values()})),
        thresholds=thresholds,
        reference={"source": reference.get("name"), "rule": reference.get("rule")},
        golden={"made_by": parity.against, "images": golden_names},
        parity=parity.to_json(),
        provenance=_trace_origin(document, settings),
    )


def _describe_stage(stage: Stage) -> dict[str, Any]:
    """Return a stage's entry in the manifest."""
    inputs = {spec.name: spec for spec in stage.inputs}
    outputs = {spec.name: spec for spec in stage.outputs}
    return StageSpec(file=f"{stage.name}.onnx", inputs=inputs, outputs=outputs).to_json()


def _trace_origin(document: Mapping[str, Any], settings: ExportSettings) -> dict[str, Any]:
    """Return where the bundle comes from: commands, seed, data, training, versions."""
    training = ("seed", "settings", "steps_done", "elapsed_s", "is_cut_short_by_time_limit")
    kept = ("data", "textures", "vgg", "teacher", *training)
    return {
        "commands": [*document.get("commands", []), settings.command],
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **{key: _name_folder(document[key]) for key in kept if key in document},
        "versions": {"training": document.get("versions", {}), "export": find_versions()},
        "machine": {"training": document.get("machine", {}), "export": {"processor": find_cpu().model_name}},
    }


def _name_folder(fact: Any) -> Any:
    """Return a fact with its folder by name alone: a bundle travels, and its maker's folders are nobody's business."""
    if isinstance(fact, Mapping) and isinstance(fact.get("root"), str):
        return {**fact, "root": Path(fact["root"]).name}
    return fact


def find_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a bundle, those that are installed."""
    versions = {"python": platform.python_version()}
    for package in VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
