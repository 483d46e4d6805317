"""The Python inspector in a process of its own, for the requests of source/main.c that compare C with it."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.capi.host import Answer, sum_values, write_score
from ndp_rt.bench.timed.service import leave_with_parent
from ndp_rt.decide.decision import lowest_reaching
from ndp_rt.errors import EngineError, NdpRtError
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result

WANTS_MAP, WANTS_MASK, WANTS_DEFECTS = 1, 2, 4  # as in source/host.h
WANTS_ALL = 7
NO_MAP = np.empty((0, 0), np.float32)


class Outputs:
    """Buffers for one image's map and mask, and a call that fills them as C's does."""

    def __init__(self, inspector: Inspector, image: NDArray[Any], wanted: int) -> None:
        self._inspector, self._image, self._wanted = inspector, image, wanted
        size = image.shape[:2]
        self.map = np.full(size, -1, np.float32) if wanted & WANTS_MAP else NO_MAP
        self.mask = np.full(size, 7, np.uint8)

    def inspect(self) -> Result:
        """Inspect, and make the mask where it is wanted."""
        result = self._inspector.inspect(self._image, map_out=self.map)
        if self._wanted & WANTS_MASK:
            if result.is_defect:
                np.greater_equal(self.map, lowest_reaching(result.threshold), out=self.mask.view(np.bool_))
                np.negative(self.mask, out=self.mask)
            else:
                self.mask.fill(0)
        return result

    def read_answer(self, result: Result) -> Answer:
        return {
            "score": write_score(result.score),
            "map_sum": sum_values(self.map) if self._wanted & WANTS_MAP else "",
            "mask_sum": sum_values(self.mask) if self._wanted & WANTS_MASK else "",
            "defect_count": len(result.defects),
        }


class PythonSide:
    """Answers requests; each public method is one, and takes words."""

    def __init__(self) -> None:
        self._inspectors: list[Inspector] = []
        self._images: list[NDArray[Any]] = []
        self._expected: dict[int, Answer] = {}

    def open(self, bundle: str, threads: str) -> dict[str, Any]:
        """Open an inspector for single images; 0 threads: the default."""
        self._inspectors.append(Inspector.open(bundle, threads=int(threads) or None, batches=[1]))
        return {"inspector": len(self._inspectors) - 1}

    def picture(self, path: str, pixel_format: str, width: str, height: str) -> dict[str, Any]:
        """Load an image of the one format that is compared here."""
        if pixel_format != "rgb8":
            raise EngineError(f"the Python side takes rgb8, not {pixel_format}.")
        pixels = np.frombuffer(Path(path).read_bytes(), np.uint8)
        self._images.append(pixels.reshape(int(height), int(width), 3))
        return {"picture": len(self._images) - 1}

    def answer(self, inspector: str, picture: str) -> Answer:
        """Inspect once and tell what came."""
        outputs = Outputs(self._inspectors[int(inspector)], self._images[int(picture)], WANTS_ALL)
        return outputs.read_answer(outputs.inspect())

    def expect(self, picture: str, score: str, map_sum: str, mask_sum: str, defect_count: str) -> dict[str, Any]:
        """Keep what a picture has to give from now on."""
        self._expected[int(picture)] = {
            "score": score,
            "map_sum": map_sum,
            "mask_sum": mask_sum,
            "defect_count": int(defect_count),
        }
        return {}

    def calls(self, inspector: str, picture: str, wanted: str, again: str, count: str) -> dict[str, Any]:
        """Time `count` calls, after `again` untimed ones; every answer is checked, outside the clock."""
        outputs = Outputs(self._inspectors[int(inspector)], self._images[int(picture)], int(wanted))
        expected, wall_ms, total_ms = self._expected[int(picture)], [], []
        for _ in range(int(again) + int(count)):
            start = time.perf_counter()
            result = outputs.inspect()
            wall_ms.append((time.perf_counter() - start) * 1e3)
            total_ms.append(result.timings_ms["total"])
            found = outputs.read_answer(result)
            if any(value not in ("", expected[name]) for name, value in found.items()):
                raise EngineError(f"a wrong answer: picture {picture} gave {found}; {expected} is expected.")
        return {"wall_ms": wall_ms[int(again) :], "total_ms": total_ms[int(again) :]}


def answer_line(side: PythonSide, line: str) -> dict[str, Any]:
    """Return the answer to a request, or what is wrong with it."""
    request, *words = line.rstrip("\n").split("\t")
    method: Callable[..., dict[str, Any]] | None = None if request.startswith("_") else getattr(side, request, None)
    if method is None:
        return {"error": f"'{request}' is no request."}
    try:
        return method(*words)
    except NdpRtError as error:
        return {"error": str(error)}
    except Exception as error:  # what libraries raise shares no base
        return {"error": f"{type(error).__name__}: {error}"}


def main(arguments: Sequence[str]) -> int:
    """Answer requests until stdin ends, or the benchmark does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends this process
    threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    side = PythonSide()
    for line in sys.stdin:
        print(json.dumps(answer_line(side, line)), file=answers, flush=True)
    return 0
