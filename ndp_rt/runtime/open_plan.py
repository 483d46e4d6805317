"""From a bundle to a plan on the host: its engines, built where they are missing."""

import logging
from collections.abc import Sequence

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.base import EngineOptions
from ndp_rt.engines.build import build_engine, load_engine
from ndp_rt.engines.built import list_built_batches, name_engines
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.request import EngineRequest
from ndp_rt.runtime.fused import FusedPlan
from ndp_rt.runtime.plan import Plan
from ndp_rt.runtime.staged import StagedPlan

log = logging.getLogger("ndp_rt")


def open_plan(
    bundle: Bundle,
    *,
    plan: str = "fused",
    backend: str = "openvino",
    precision: str = "fp32",
    batches: Sequence[int] | None = None,
    threads: int | None = None,
    build: bool = True,
) -> Plan:
    """Load a bundle's engines, building what is missing, and return the plan that runs them.

    Args:
        bundle: opened.
        plan: "fused" or "staged".
        backend: "openvino" or "onnxruntime".
        precision: "fp32", "bf16", "int8" or "mixed".
        batches: batch sizes; None: 1 and those that are built already.
        threads: of each engine; None: the backend chooses.
        build: build what is missing, and say so in the log; False: raise.

    Raises:
        InputError: a name or number that is not taken.
        EngineError: an engine cannot be built, is damaged, or is missing and `build` is False.
    """
    find_backend(backend)
    options = EngineOptions(precision=precision, threads=threads)
    if batches is None:
        batches = (1, *list_built_batches(bundle, plan=plan, backend=backend, precision=precision))
    sizes = tuple(sorted(set(batches)))
    found = None
    if build:
        found = build_engine(
            bundle, backend=backend, precision=precision, batches=sizes, plan=plan, threads=threads, progress=log.info
        )
    engines = load_engine(
        bundle, backend=backend, precision=precision, batches=sizes, plan=plan, threads=threads, found=found
    )
    engine_hash = name_engines(bundle, EngineRequest(backend=backend, precision=precision, batches=sizes, plan=plan))
    if plan == "staged":
        return StagedPlan(engines, bundle.reference(), engine_hash)
    fused = {size: stages["fused"] for size, stages in engines.items()}
    return FusedPlan(bundle, fused, backend, options, engine_hash)
