"""Makes a bundle's thresholds, and the images that int8 is calibrated on later, of the run's held-out good images."""

from collections.abc import Callable

import numpy as np
from safetensors.numpy import save

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.decide.calibration import threshold_from_good_scores
from ndp_rt.devices.machine import find_cpu
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError
from ndp_rt.export.onnx.parity import open_uncached
from ndp_rt.export.training.run_folder import TrainedRun
from ndp_rt.images.variations import vary
from ndp_rt.program.manifest import ThresholdSpec

Progress = Callable[[str], None]

BACKEND = "openvino"
NO_IMAGES = (
    "the run held no good images out, so there is no threshold: train with --holdout, or set one with "
    "'ndp-rt set-threshold'"
)


def list_precisions() -> tuple[str, ...]:
    """Return the precisions that thresholds can be calibrated for on this machine."""
    return ("fp32", "bf16") if find_cpu().has_bf16 else ("fp32",)


def score_images(bundle: Bundle, run: TrainedRun, precision: str, threads: int | None = None) -> FloatArray:
    """Return the scores [n, v] of the run's held-out images, as they are and varied, by the first program in OpenVINO.

    Raises:
        EngineError: the graphs cannot be compiled in this precision, or give a map that is not finite.
        RunError: an image cannot be read any more.
    """
    spec = EngineSpec(backend=BACKEND, precision=precision, threads=threads)
    scores: list[list[float]] = []
    with open_uncached(bundle, spec) as executor:
        for path in run.calibration_paths:  # read one at a time and never kept together
            image = run.read_input(path)
            try:
                scores.append([float(executor.run(one[None])[1][0]) for one in (image[0], *vary(image[0]))])
            except EngineError as error:
                raise EngineError(f"good image {path} in {precision}: {error} Train again.") from error
    return np.array(scores, np.float32)


def find_thresholds(
    bundle: Bundle,
    run: TrainedRun,
    *,
    false_alarm_rate: float | None,
    threads: int | None,
    progress: Progress,
) -> dict[str, ThresholdSpec]:
    """Return the threshold of every precision that this machine computes in, from the run's held-out images.

    Args:
        bundle: written from the run.
        run: its held-out images were not trained on; the number of their groups decides what can be promised.
        false_alarm_rate: wanted highest rate of false alarms, 0 to 1; None: 5 %, predicted for other lots.
        threads: of the engines; None: their own choice.
        progress: called with a line of text at each step.
    """
    if not run.calibration_paths:
        progress(NO_IMAGES)
        return {precision: ThresholdSpec(note=NO_IMAGES) for precision in list_precisions()}
    thresholds = {}
    for precision in list_precisions():
        progress(f"calibrating {precision} with {len(run.calibration_paths)} good images")
        scores = score_images(bundle, run, precision, threads)
        thresholds[precision] = threshold_from_good_scores(scores, false_alarm_rate, groups=run.calibration_groups)
    return thresholds


def pack_calibration_images(run: TrainedRun, count: int) -> bytes | None:
    """Return a bundle's calibration.safetensors.

    It holds `good`, uint8 [k, 1 or 3, h, w], the network's input in 8 bits, and `group`, int32 [k].

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
    chosen = [index * len(paths) // count for index in range(count)]
    good = np.concatenate([np.rint(run.read_input(paths[index]) * 255.0).astype(np.uint8) for index in chosen])
    if (good == good[:, :1]).all():
        good = good[:, :1]
    _, group = np.unique([run.calibration_groups[index] for index in chosen], return_inverse=True)
    return save({"good": np.ascontiguousarray(good), "group": group.astype(np.int32)})
