"""Good images that a bundle carries, so that int8 can be calibrated wherever it is: `calibration.safetensors`."""

import numpy as np
from safetensors.numpy import save

from ndp_rt.export.trained_run import TrainedRun, read_inputs


def pack_calibration_images(run: TrainedRun, count: int) -> bytes | None:
    """Return the file's content: uint8 [k, 1 or 3, h, w], `good`, as the network reads them but rounded to 8 bits.

    They are of those that the run held out, evenly over them; grey ones have one channel.

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
    good = np.concatenate([np.rint(read_inputs(run, path) * 255.0).astype(np.uint8) for path in chosen])
    if (good == good[:, :1]).all():
        good = good[:, :1]
    return save({"good": np.ascontiguousarray(good)})
