"""What a program sees of a GPU that fails for good: run in a process of its own, since no CUDA call works after it.

`python -m tests.runtime.lost_device BUNDLE BACKEND PRECISION` prints what it saw as JSON.
"""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ndp_rt.errors import NdpRtError


def watch(bundle: str, settings: dict[str, Any], lose: Callable[[], None]) -> dict[str, Any]:
    """Open two inspectors, one of which may fall back to the CPU, lose the device and go on.

    Args:
        bundle: its path.
        settings: for `Inspector.open`.
        lose: makes the device fail.
    """
    from ndp_rt import Inspector

    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    strict, lenient = (Inspector.open(bundle, **settings, fallback=fallback) for fallback in (False, True))
    seen: dict[str, Any] = {"before": [one.inspect(image).score for one in (strict, lenient)]}
    lose()
    seen["errors"] = [_name_error(lambda: strict.inspect(image)) for _ in range(2)]
    seen["stream_error"] = _name_error(lambda: list(strict.stream([image] * 3)))
    strict.close()
    seen["closed"] = _name_error(lambda: strict.inspect(image))
    seen["after"] = [result.score for result in (lenient.inspect(image), *lenient.stream([image] * 3))]
    lenient.close()
    with Inspector.open(bundle, threshold=settings["threshold"]) as host:
        seen["cpu"] = host.inspect(image).score
    return seen


def _name_error(call: Callable[[], Any]) -> list[str]:
    try:
        call()
    except NdpRtError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def break_device() -> None:
    """Launch a kernel that writes to address 0x10: CUDA refuses every call of the process from then on."""
    import cupy

    source = 'extern "C" __global__ void break_device(int* place) { *place = 1; }'
    stream = cupy.cuda.Stream(non_blocking=True)
    with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError), stream:
        cupy.RawKernel(source, "break_device")((1,), (1,), (np.uint64(0x10),))
        stream.synchronize()


def main() -> None:
    bundle, backend, precision = sys.argv[1:]
    settings = {"device": "cuda", "backend": backend, "precision": precision, "threshold": 0.55}
    print(json.dumps(watch(bundle, settings, break_device)), flush=True)


if __name__ == "__main__":
    main()
