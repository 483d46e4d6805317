"""The child process that reads and runs a stranger's model: a crash of it, or its memory, stays in here.

Takes a job as JSON in its one argument and writes JSON lines, as `ndp_rt.engines.worker`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ndp_rt.engines.process_limits import limit_process
from ndp_rt.errors import InputError, NdpRtError, needs_extra
from ndp_rt.importing.terms import ImportSettings


def convert(path: Path, settings: ImportSettings, folder: Path) -> None:
    """Do what `ndp_rt.importing.convert.convert` does; whatever libraries raise of a model is a refusal.

    Raises:
        NdpRtError: as `import_onnx`.
    """
    with needs_extra("importing a model", "onnxruntime"):
        from ndp_rt.importing import convert
    try:
        convert.convert(path, settings, folder)
    except NdpRtError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: expected a model that fits into memory, got one that does not. "
            "NDP_RT_BUILD_MEMORY_MB allows more."
        ) from error
    except Exception as error:  # whatever onnx raises of a file that is damaged or contradicts itself
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: expected a model that onnx accepts, got one that it refuses: {type(error).__name__}: {reason}"
        ) from error


def main(arguments: Sequence[str]) -> int:
    """Run what the job in arguments[0] asks for; return 0, or 1 after reporting an error."""
    job = json.loads(arguments[0])
    limit_process(job["parent"], job["memory_bytes"])
    try:
        convert(Path(job["model"]), ImportSettings.from_json(job["settings"]), Path(job["folder"]))
    except NdpRtError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        return 1
    print(json.dumps({"done": True}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
