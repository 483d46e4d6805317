"""Measures how far a bundle's programs are from PyTorch, before it is given to anybody."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle import Bundle
from ndp_rt.engines.build import compile_engine
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError
from ndp_rt.export.models.family import ExportedModel
from ndp_rt.export.onnx.golden import run_network, score_maps, to_input
from ndp_rt.files import make_temporary_folder
from ndp_rt.program.program import DecisionRules
from ndp_rt.runtime.open import make_host_executor

if TYPE_CHECKING:
    from ndp_rt.runtime.host import HostExecutor

Progress = Callable[[str], None]

BACKENDS = ("openvino", "onnxruntime")  # the first runs every program for the CPU, the others the first one


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


def describe_truth(weights: str) -> str:
    """Return in words what a bundle with such weights is compared with."""
    stored = " with the float16 weights of this bundle" if weights == "fp16" else ""
    return f"PyTorch, float32, the trained network{stored}"


def compare_maps(actual: FloatArray, expected: FloatArray, rules: DecisionRules) -> Difference:
    """Return the differences of maps [k, 1, h, w], and of their scores."""
    return Difference(
        map_max_abs=float(np.abs(actual - expected).max()),
        score_max_abs=float(np.abs(score_maps(actual, rules) - score_maps(expected, rules)).max()),
    )


@contextmanager
def open_uncached(bundle: Bundle, spec: EngineSpec) -> "Iterator[HostExecutor]":
    """Yield an executor on the CPU, of engines of one image that are compiled for it and kept nowhere.

    Raises:
        EngineError: a graph cannot be compiled.
    """
    backend = spec.find_backend().name
    with make_temporary_folder("export") as folder:
        engines = {
            stage: compile_engine(backend, bundle.stage_path(stage), Path(folder) / stage, spec.of_batch(1))
            for stage in spec.list_stages(bundle)
        }
        executor = make_host_executor(bundle, spec, {1: engines})
        try:
            yield executor
        finally:
            executor.close()


def measure_parity(
    bundle: Bundle,
    model: ExportedModel,
    pictures: Mapping[str, NDArray[np.uint8]],
    *,
    threads: int | None,
    progress: Progress,
) -> Parity:
    """Run a bundle's programs on pictures and compare their maps with PyTorch's.

    Args:
        bundle: written from `model`.
        model: has the PyTorch networks.
        pictures: RGB at the network's size, by name.
        threads: of the engines; None: their own choice.
        progress: called with a line of text at each step.

    Raises:
        EngineError: a difference is larger than an fp32 engine's may be.
    """
    rules, images = model.decision, [to_input(picture) for picture in pictures.values()]
    trained = np.concatenate([run_network(model.trained, image) for image in images])
    expected, rounding = trained, None
    if bundle.manifest.model.weights == "fp16":
        expected = np.concatenate([run_network(model.stored, image) for image in images])
        rounding = compare_maps(expected, trained, rules)
        progress(
            f"float16 weights move the map by {rounding.map_max_abs:.1e}, the score by {rounding.score_max_abs:.1e}"
        )
    cases, missing = {}, {}
    for backend, plan in _list_cases(model):
        name = f"{backend} {plan}"
        remedy = find_backend(backend).find().remedy
        if remedy is not None:
            missing[name] = f"{backend} is not installed: {remedy}"
            continue
        with open_uncached(bundle, EngineSpec(backend=backend, plan=plan, threads=threads)) as executor:
            maps = np.concatenate([executor.run(image)[0].copy() for image in images])
        cases[name] = found = compare_maps(maps, expected, rules)
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
        image_names=tuple(pictures),
        against=describe_truth(bundle.manifest.model.weights),
        weight_rounding=rounding,
        not_measured=missing,
    )


def _list_cases(model: ExportedModel) -> list[tuple[str, str]]:
    plans = list(model.programs["cpu"])
    return [(BACKENDS[0], plan) for plan in plans] + [(backend, plans[0]) for backend in BACKENDS[1:]]
