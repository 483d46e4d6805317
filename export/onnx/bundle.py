"""Turns a finished training run into a bundle: graphs, weights, assets, golden vectors, thresholds, manifest."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.numpy import save

from ndp_rt.bundle import Bundle, write_bundle
from ndp_rt.bundle.assets import find_tensor_data
from ndp_rt.bundle.open import CALIBRATION_FILE, GOLDEN_FILE
from ndp_rt.bundle.write import BUNDLE_SUFFIX, check_target
from ndp_rt.decide.calibration import check_rate
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.stage_files import check_graph
from ndp_rt.errors import InputError, NdpRtError, StorageError
from ndp_rt.evaluate.machine import list_versions
from ndp_rt.export.models.family import Asset, ExportedModel
from ndp_rt.export.onnx import golden
from ndp_rt.export.onnx.calibration import find_thresholds, pack_calibration_images
from ndp_rt.export.onnx.graphs import store_as_half, trace_stage
from ndp_rt.export.onnx.parity import Parity, describe_truth, measure_parity
from ndp_rt.export.onnx.weights import WEIGHTS_FILE, Place, WeightStore, move_weights
from ndp_rt.export.training.run_folder import TrainedRun, load_run
from ndp_rt.files import make_temporary_folder
from ndp_rt.program.manifest import BundleManifest, ModelSpec, ThresholdSpec, TrainingRange
from ndp_rt.runtime.golden_inputs import ByteImage

WEIGHT_TYPES = ("fp32", "fp16")
GOLDEN_COUNT = {"fp32": 4, "fp16": 2}  # a bundle in half precision is one that has to be small
VERSIONS_OF = ("ndp-rt", "torch", "onnx", "openvino", "onnxruntime", "numpy", "opencv-python-headless")

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """Settings of an export.

    Raises:
        InputError: weights of another type, or a rate outside 0 to 1.
    """

    rewrite: bool = True
    weights: str = "fp32"  # as stored; the arithmetic is the engine's affair
    false_alarm_rate: float | None = None  # None: 5 %, predicted for other lots
    calibration_image_count: int = 32  # good images that the bundle carries at most, to calibrate int8 on
    threads: int | None = None  # of PyTorch and of the engines; None: their own choice
    white_level: int | None = None  # of 16-bit images; None: the run's
    overwrite: bool = False
    command: str = "ndp-rt export"  # for the provenance

    def __post_init__(self) -> None:
        if self.weights not in WEIGHT_TYPES:
            raise InputError(f"weights: expected {' or '.join(WEIGHT_TYPES)}, got '{self.weights}'.")
        check_rate(self.false_alarm_rate)
        EngineOptions(threads=self.threads)
        if self.calibration_image_count < 0:
            raise InputError(f"calibration images: expected 0 or more, got {self.calibration_image_count}.")


@dataclass(frozen=True, kw_only=True)
class Export:
    """A bundle that was written, and how it compares with PyTorch."""

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
        raise InputError(f"bundle path: expected a name that ends in {BUNDLE_SUFFIX}, got {target}.")
    check_target(target, settings.overwrite)  # before minutes of work, not after
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    run = _with_white_level(load_run(Path(run_path)), settings.white_level)
    model = run.family.make_export(run, rewrite=settings.rewrite, weights=settings.weights)
    say("tracing the graphs")
    with make_scratch_folder() as folder:
        graphs = folder / "graphs"
        graphs.mkdir()
        write_graphs(model, graphs, weights=settings.weights)
        pictures = choose_pictures(run, model)
        chosen = dict(list(pictures.items())[: GOLDEN_COUNT[settings.weights]])
        is_small = settings.weights == "fp16"
        files: dict[str, bytes | Path] = {path.name: path for path in sorted(graphs.iterdir())}
        vectors = golden.make_golden(model, list(chosen.values()), run.contract, is_small=is_small)
        files[GOLDEN_FILE] = save(vectors)
        carried = pack_calibration_images(run, settings.calibration_image_count)
        if carried is not None:
            files[CALIBRATION_FILE] = carried
        files.update(model.files)
        manifest = _describe(run, target.stem, model, settings, list(chosen))
        draft = write_bundle(folder / target.name, manifest_without_files=manifest, files=files)
        say("comparing with PyTorch")
        parity = measure_parity(draft, model, pictures, threads=settings.threads, progress=say)
        thresholds = find_thresholds(
            draft, run, false_alarm_rate=settings.false_alarm_rate, threads=settings.threads, progress=say
        )
        manifest = replace(manifest, parity=parity.to_json(), thresholds=thresholds)
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
        with make_temporary_folder("export") as name:
            yield Path(name)
    except OSError as error:
        if isinstance(error, NdpRtError):
            raise
        raise StorageError(
            f"{tempfile.gettempdir()}: the graphs cannot be written there ({error.strerror or error}). Free some "
            "space, or set TMPDIR to another folder."
        ) from error


def write_graphs(model: ExportedModel, folder: Path, *, weights: str) -> None:
    """Write every stage's ONNX file, their weights and the assets.

    Raises:
        EngineError: onnx's checker refuses a graph.
    """
    places: dict[str, dict[str, Place]] = {stage.name: {} for stage in model.stages}
    for asset in model.assets.values():
        content = _pack_asset(asset, weights)
        (folder / asset.spec.file).write_bytes(content)
        spans = find_tensor_data(content, asset.tensors)
        for stage_name, names in asset.spec.in_graphs.items():
            for initializer, tensor in names.items():
                offset, length = spans[tensor]
                places[stage_name][initializer] = Place(file=asset.spec.file, offset=offset, length=length)
    store = WeightStore()
    for stage in model.stages:
        graph = trace_stage(stage)
        if model.finish_graph is not None:
            model.finish_graph(graph)
        if weights == "fp16":
            store_as_half(graph)
        move_weights(graph, store, places[stage.name])
        (folder / f"{stage.name}.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    (folder / WEIGHTS_FILE).write_bytes(store.to_bytes())
    for stage in model.stages:
        check_graph(onnx, str(folder / f"{stage.name}.onnx"), stage.name)


def _pack_asset(asset: Asset, weights: str) -> bytes:
    dtype = np.float16 if weights == "fp16" else np.float32
    return save({name: np.ascontiguousarray(value, dtype) for name, value in asset.tensors.items()})


def _with_white_level(run: TrainedRun, level: int | None) -> TrainedRun:
    """Return the run with another white level for 16-bit images, of which it saw none.

    Raises:
        InputError: it was trained on 16-bit images at another level.
    """
    if level is None or level == run.contract.white_level_16bit:
        return run
    if run.document["data"].get("has_16_bits", True):
        raise InputError(
            f"--white-level: expected {run.contract.white_level_16bit}, at which the run was trained on 16-bit images, "
            f"got {level}. Train again with ndp-rt train --white-level {level}."
        )
    return replace(run, contract=replace(run.contract, white_level_16bit=level))


def choose_pictures(run: TrainedRun, model: ExportedModel) -> dict[str, ByteImage]:
    """Return images to compare on, RGB at the network's size, by name; golden vectors are made of the first of them."""
    noise = golden.make_noise(run.contract.height_px, run.contract.width_px)
    held_out: dict[str, ByteImage] = {}
    for path in run.calibration_paths[:2]:
        planes = run.read_input(path)[0]
        held_out[f"held-out {path.name}"] = np.rint(planes.transpose(1, 2, 0) * 255.0).astype(np.uint8)
    good = next(iter([*held_out.values(), *model.pictures.values(), noise]))
    return {"with a painted defect": golden.paint_mark(good), **held_out, **model.pictures, "random bytes": noise}


def _describe(
    run: TrainedRun, name: str, model: ExportedModel, settings: ExportSettings, golden_names: list[str]
) -> BundleManifest:
    """Return the manifest but for what is measured with the bundle."""
    found = run.document["data"].get("training_range")
    return BundleManifest(
        name=name,
        model=ModelSpec(
            family=run.family.name,
            preset=run.settings.preset,
            width=model.width,
            rewrites=model.rewrites,
            weights=settings.weights,
        ),
        input=run.contract,
        stages={**{stage.name: stage.spec for stage in model.stages}, **model.derived_stages},
        assets={name: asset.spec for name, asset in model.assets.items()},
        programs=model.programs,
        decision=model.decision,
        reference=model.reference,
        golden={"made_by": describe_truth(settings.weights), "images": golden_names},
        provenance=_trace_origin(run.document, model.provenance, settings),
        largest_score=model.largest_score,
        training_range=None if found is None else TrainingRange.from_json(found),
        training_images=tuple(run.document["data"].get("training_digests", ())),
    )


def _trace_origin(document: Mapping[str, Any], own: Mapping[str, Any], settings: ExportSettings) -> dict[str, Any]:
    """Return where the bundle comes from: commands, seed, data, training, versions."""
    versions = {name: found for name, found in list_versions(VERSIONS_OF).items() if found is not None}
    kept = ("data", "textures", "seed", "settings", "steps_done", "elapsed_s", "is_cut_short_by_time_limit")
    return {
        "commands": [*document.get("commands", []), settings.command],
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **{key: _name_folder(document[key]) for key in kept if key in document},
        **own,
        "versions": {"training": document.get("versions", {}), "export": versions},
        "machine": {"training": document.get("machine", {}), "export": {"processor": find_cpu().model_name}},
    }


def _name_folder(fact: Any) -> Any:
    """Return a fact with its folder by name alone: a bundle travels, and its maker's folders are nobody's business.

    What the manifest says elsewhere is left out.
    """
    if isinstance(fact, Mapping) and isinstance(fact.get("root"), str):
        others = {key: value for key, value in fact.items() if key not in ("training_digests", "training_range")}
        return {**others, "root": Path(fact["root"]).name}
    return fact
