"""The child process that runs a stranger's model in ONNX Runtime: a crash of it, or its memory, stays in here.

Takes a job as JSON in its one argument and writes JSON lines, as `ndp_rt.engines.worker`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.arrays import FloatArray
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.process_limits import limit_process
from ndp_rt.errors import EngineError, NdpRtError
from ndp_rt.program.program import IMAGE


def run(folder: Path, batch: int) -> None:
    """Run model.onnx on images.npy, float32 [k, 3, h, w], and write every output, float32 [k, ...], to results.npz."""
    images = np.load(folder / "images.npy")
    engine = compile_engine(
        "onnxruntime", folder / "model.onnx", folder / f"engine-{batch}", EngineOptions(threads=1, batch=batch)
    )
    found: dict[str, list[FloatArray]] = {name: [] for name in engine.outputs}
    for start in range(0, len(images) - batch + 1, batch):
        outputs = {name: np.empty(spec.with_batch(batch), np.float32) for name, spec in engine.outputs.items()}
        engine.run({IMAGE: images[start : start + batch]}, outputs)
        for name, values in outputs.items():
            found[name].append(values)
    engine.close()
    results: dict[str, Any] = {name: np.concatenate(values) for name, values in found.items()}
    np.savez(folder / f"results-{batch}.npz", **results)


def main(arguments: Sequence[str]) -> int:
    """Run what the job in arguments[0] asks for; return 0, or 1 after reporting an error."""
    try:
        job = json.loads(arguments[0])
        limit_process(job["parent"], job["memory_bytes"])
        run(Path(job["folder"]), job["batch"])
    except NdpRtError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        return 1
    except MemoryError:
        print(json.dumps({"error": EngineError.__name__, "message": "memory ran out while the model ran."}), flush=True)
        return 1
    print(json.dumps({"done": True}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
