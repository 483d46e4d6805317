"""What the run's held-out good images give a bundle: thresholds, and images that int8 is calibrated on later."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ndp_rt.decide.calibration import threshold_from_good_scores
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.engine import Engine
from ndp_rt.errors import EngineError
from ndp_rt.export.onnx.golden import score_maps
from ndp_rt.export.training.run_folder import TrainedRun
from ndp_rt.program.manifest import ThresholdSpec

FloatArray = NDArray[np.float32]
Progress = Callable[[str], None]
# Reads input number i, [1, 3, h, w]: images are read one at a time and never kept together.
ReadInput = Callable[[int], FloatArray]

BACKEND = "openvino"
NO_IMAGES = (
    "the run held no good images out, so there is no threshold: train with --holdout, or set one with "
    "'ndp-rt set-threshold'"
)


def list_precisions() -> tuple[str, ...]:
    """Return the precisions that thresholds can be calibrated for on this machine."""
    return ("fp32", "bf16") if find_cpu().has_bf16 else ("fp32",)


def run_engine(engine: Engine, image: FloatArray) -> dict[str, FloatArray]:
    """Return every output of a fused engine for an input [1, 3, h, w]."""
    outputs = {name: np.empty(spec.with_batch(len(image)), np.float32) for name, spec in engine.outputs.items()}
    engine.run({"image": image}, outputs)
    return outputs


def score_images(
    fused: Path, precision: str, image_count: int, read_input: ReadInput, threads: int | None = None
) -> list[float]:
    """Return the scores of images by the fused graph in OpenVINO.

    Raises:
        EngineError: the graph cannot be compiled in this precision, or gives a score that is not finite.
    """
    scores = []
    with tempfile.TemporaryDirectory(prefix="ndp-rt-calibrate-") as folder:
        engine = compile_engine(
            BACKEND, fused, Path(folder) / precision, EngineOptions(precision=precision, threads=threads)
        )
        try:
            for index in range(image_count):
                scores.append(float(score_maps(run_engine(engine, read_input(index))["map"])[0]))
        finally:
            engine.close()
    bad = [index for index, score in enumerate(scores) if not np.isfinite(score)]
    if bad:
        raise EngineError(
            f"good image {bad[0] + 1} of {image_count} gets a score that is not finite in {precision}. Train again."
        )
    return scores


def find_thresholds(
    fused: Path,
    images: Sequence[Path],
    read_input: ReadInput,
    *,
    false_alarm_rate: float | None,
    progress: Progress,
    threads: int | None = None,
) -> dict[str, ThresholdSpec]:
    """Return the threshold of every precision that this machine computes in.

    Args:
        fused: the fused graph, its weights beside it.
        images: independent good images that were not trained on; their number decides what can be promised.
        read_input: reads one of them.
        false_alarm_rate: wanted highest rate of false alarms, 0 to 1; None: the strongest promise they support.
        progress: called with a line of text at each step.
        threads: of the engine; None: its own choice.
    """
    if not images:
        progress(NO_IMAGES)
        return {precision: ThresholdSpec(note=NO_IMAGES) for precision in list_precisions()}
    thresholds = {}
    for precision in list_precisions():
        progress(f"calibrating {precision} with {len(images)} good images")
        scores = score_images(fused, precision, len(images), read_input, threads)
        thresholds[precision] = threshold_from_good_scores(scores, false_alarm_rate)
    return thresholds


def pack_calibration_images(run: TrainedRun, count: int) -> bytes | None:
    """Return a bundle's calibration.safetensors: `good`, uint8 [k, 1 or 3, h, w], the network's input in 8 bits.

    The images are of those that the run held out, evenly over them; grey ones have one channel.

    Args:
        run: finished.
        count: at most so many.

    Returns:
        None where none are wanted or the run held none out.

    Raises:
        RunError: an image cannot be read any more.
    """
    paths = run.calibration_paths
    count = min(count, len(paths))
    if not count:
        return None
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    good = np.concatenate([np.rint(run.read_input(path) * 255.0).astype(np.uint8) for path in chosen])
    if (good == good[:, :1]).all():
        good = good[:, :1]
    return save({"good": np.ascontiguousarray(good)})
