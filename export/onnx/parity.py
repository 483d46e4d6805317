"""How far the exported graphs are from PyTorch, measured before a bundle is written."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError
from ndp_rt.export.onnx.golden import score_maps
from ndp_rt.program.manifest import BundleManifest
from ndp_rt.program.program import MAP
from ndp_rt.runtime.host_step import Assets, run_steps

FloatArray = NDArray[np.float32]
Progress = Callable[[str], None]

# The fused graph in both runtimes, the staged ones in the default one.
CASES = (("openvino", "fused"), ("openvino", "staged"), ("onnxruntime", "fused"))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest absolute differences of maps and scores."""

    map_max_abs: float
    score_max_abs: float

    def fits(self) -> bool:
        """Tell whether an fp32 engine may differ so much; NaN does not fit."""
        return (
            self.map_max_abs <= find_tolerance("engine.map", "fp32").absolute
            and self.score_max_abs <= find_tolerance("engine.score", "fp32").absolute
        )

    def to_json(self) -> dict[str, float]:
        return {"map_max_abs_difference": self.map_max_abs, "score_max_abs_difference": self.score_max_abs}


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Differences from PyTorch by case ("openvino fused"), and what else the manifest says of them."""

    cases: Mapping[str, Difference]
    image_names: tuple[str, ...]
    against: str
    weight_rounding: Difference | None = None  # PyTorch with the stored weights against PyTorch with the trained ones
    not_measured: Mapping[str, str] = field(default_factory=dict)  # case and why

    @property
    def worst(self) -> Difference:
        """The largest differences of all cases; NaN if any is."""
        return Difference(
            map_max_abs=float(np.max([case.map_max_abs for case in self.cases.values()])),
            score_max_abs=float(np.max([case.score_max_abs for case in self.cases.values()])),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "against": self.against,
            "images": list(self.image_names),
            **self.worst.to_json(),
            "tolerance": find_tolerance("engine.map", "fp32").absolute,
            "cases": {name: case.to_json() for name, case in self.cases.items()},
            "not_measured": dict(self.not_measured),
            "weight_rounding": None if self.weight_rounding is None else self.weight_rounding.to_json(),
        }


def compare_maps(actual: FloatArray, expected: FloatArray) -> Difference:
    """Return the differences of maps [k, 1, h, w], and of their scores."""
    return Difference(
        map_max_abs=float(np.abs(actual - expected).max()),
        score_max_abs=float(np.abs(score_maps(actual) - score_maps(expected)).max()),
    )


def measure_parity(
    folder: Path,
    manifest: BundleManifest,
    assets: Assets,
    images: Mapping[str, FloatArray],
    expected: FloatArray,
    *,
    against: str,
    weight_rounding: Difference | None,
    progress: Progress,
    threads: int | None = None,
) -> Parity:
    """Run the graphs in `folder` on images and compare their maps with PyTorch's.

    Args:
        folder: holds NAME.onnx for every stage, and their weights.
        manifest: of the model that the graphs are of.
        assets: their tensors, by asset and name.
        images: inputs [1, 3, h, w] by name.
        expected: PyTorch's maps [k, 1, h, w].
        against: what `expected` comes from, in words.
        weight_rounding: goes into the result.
        progress: called with a line of text at each step.
        threads: of the engines; None: their own choice.

    Raises:
        EngineError: a difference is larger than an fp32 engine's may be.
    """
    cases, missing = {}, {}
    for backend, plan in CASES:
        name = f"{backend} {plan}"
        remedy = find_host_backend(backend).find().remedy
        if remedy is not None:
            missing[name] = f"{backend} is not installed: {remedy}"
            continue
        maps = run_plan(folder, manifest, backend, plan, assets, list(images.values()), threads)
        cases[name] = compare_maps(maps, expected)
        found = cases[name]
        progress(f"parity, {name}: map {found.map_max_abs:.1e}, score {found.score_max_abs:.1e}")
        if not found.fits():
            allowed = find_tolerance("engine.map", "fp32").absolute
            raise EngineError(
                f"{name} in fp32 differs from PyTorch by {found.map_max_abs:.2e} in the map and "
                f"{found.score_max_abs:.2e} in the score; {allowed:.0e} is allowed. No bundle was written. Export with "
                "--no-rewrite, and report this."
            )
    return Parity(
        cases=cases,
        image_names=tuple(images),
        against=against,
        weight_rounding=weight_rounding,
        not_measured=missing,
    )


def run_plan(
    folder: Path,
    manifest: BundleManifest,
    backend: str,
    plan: str,
    assets: Assets,
    images: Sequence[FloatArray],
    threads: int | None = None,
) -> FloatArray:
    """Return the maps [k, 1, h, w] that a plan's graphs give for images [1, 3, h, w]."""
    engines: dict[str, Engine] = {}
    with tempfile.TemporaryDirectory(prefix="ndp-rt-parity-") as scratch:
        try:
            _, program = manifest.find_program("cpu", plan)
            for stage in program.stages:
                artifact = Path(scratch) / stage
                options = EngineOptions(threads=threads)
                engines[stage] = compile_engine(backend, folder / f"{stage}.onnx", artifact, options)
            name = program.outputs[MAP]
            found = [run_steps(manifest, program.steps, engines, assets, image)[name] for image in images]
            return np.concatenate(found)
        finally:
            for engine in engines.values():
                engine.close()
