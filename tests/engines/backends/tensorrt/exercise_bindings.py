"""Runs the backend's code on TensorRT's real bindings as far as that goes without its libraries and without a GPU.

python exercise_bindings.py WHEEL_FOLDER STUB_FOLDER MAJOR prints what was reached, as JSON.
"""

import json
import sys
from types import SimpleNamespace
from typing import Any

from ndp_rt.engines.backends.tensorrt import adapter, logger
from ndp_rt.engines.backends.tensorrt.progress import BuildProgress
from ndp_rt.errors import NdpRtError
from tests.engines.backends.tensorrt.dump_bindings import load_bindings


def find_error(call: Any) -> str:
    try:
        call()
    except NdpRtError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main() -> None:
    lib = load_bindings(*sys.argv[1:4])
    sys.modules["tensorrt"] = lib
    lines: list[tuple[str, str]] = []
    with logger.listen(lib, lambda *line: lines.append(line)):
        logger.get_log(lib).log(lib.ILogger.ERROR, "a line")
        makers = (lambda: adapter.make_builder(lib), lambda: adapter.make_runtime(lib, allow_host_code=False))
        errors = [find_error(make) for make in makers]
    created: list[int] = []
    adapter.make_network(lib, SimpleNamespace(create_network=lambda flags: created.append(flags)))
    config = SimpleNamespace()
    monitor = adapter.watch(lib, config, BuildProgress(lambda line: None))
    if monitor is not None:
        monitor.phase_start("phase", None, 3)
        assert monitor.step_complete("phase", 0) is True
        monitor.phase_finish("phase")
        assert config.progress_monitor is monitor and isinstance(monitor, lib.IProgressMonitor)
    found = {"lines": lines, "errors": errors, "network_flags": created, "has_monitor": monitor is not None}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
