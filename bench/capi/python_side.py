"""The Python inspector in a process of its own, for the requests of source/main.cpp that compare C with it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.capi.host import FIELDS, Answer, sum_values, write_score
from ndp_rt.bench.timed.service import answer_requests
from ndp_rt.errors import EngineError
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result

WANTS_MAP, WANTS_ALL = 1, 3  # as in source/host.hpp
NO_MAP = np.empty((0, 0), np.float32)


class Outputs:
    """A buffer for one image's map, and a call that fills it as C's does."""

    def __init__(self, inspector: Inspector, image: NDArray[Any], wanted: int) -> None:
        self._inspector, self._image, self._wanted = inspector, image, wanted
        self.map = np.full(image.shape[:2], -1, np.float32) if wanted & WANTS_MAP else NO_MAP

    def inspect(self) -> Result:
        return self._inspector.inspect(self._image, map_out=self.map)

    def read_answer(self, result: Result) -> Answer:
        return {
            "score": write_score(result.score),
            "map_sum": sum_values(self.map) if self._wanted & WANTS_MAP else "",
            "defect_count": len(result.defects),
        }


class PythonSide:
    """Answers the requests of source/main.cpp that are compared; each public method is one."""

    def __init__(self) -> None:
        self._inspectors: list[Inspector] = []
        self._images: list[NDArray[Any]] = []
        self._expected: dict[int, Answer] = {}

    def open(self, bundle: Path, threads: int) -> None:
        """Open an inspector for single images; 0 threads: the default."""
        self._inspectors.append(Inspector.open(bundle, threads=threads or None, batches=[1]))

    def picture(self, path: Path, width: int, height: int) -> dict[str, int]:
        """Load an image in RGB."""
        self._images.append(np.frombuffer(path.read_bytes(), np.uint8).reshape(height, width, 3))
        return {"picture": len(self._images) - 1}

    def answer(self, inspector: int, picture: int) -> Answer:
        """Inspect once and tell what came."""
        outputs = Outputs(self._inspectors[inspector], self._images[picture], WANTS_ALL)
        return outputs.read_answer(outputs.inspect())

    def expect(self, picture: int, *values: Any) -> None:
        """Keep what a picture has to give from now on."""
        self._expected[picture] = dict(zip(FIELDS, values, strict=True))

    def calls(self, inspector: int, picture: int, wanted: int, again: int, count: int) -> dict[str, list[float]]:
        """Time `count` calls, after `again` untimed ones; every answer is checked, outside the clock."""
        outputs = Outputs(self._inspectors[inspector], self._images[picture], wanted)
        expected, wall_ms, total_ms = self._expected[picture], [], []
        for _ in range(again + count):
            start = time.perf_counter()
            result = outputs.inspect()
            wall_ms.append((time.perf_counter() - start) * 1e3)
            total_ms.append(result.timings_ms["total"])
            found = outputs.read_answer(result)
            if any(value not in ("", expected[name]) for name, value in found.items()):
                raise EngineError(f"a wrong answer: picture {picture} gave {found}; {expected} is expected.")
        return {"wall_ms": wall_ms[again:], "total_ms": total_ms[again:]}

    def close(self) -> None:
        """Close the inspectors."""
        for inspector in self._inspectors:
            inspector.close()


def main(arguments: Sequence[str]) -> int:
    """Run the Python side."""
    return answer_requests(PythonSide())
