"""From a bundle to a plan on the host: its engines, built where they are missing."""

import logging

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.build import build_engine, load_engine, name_engines
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.runtime.fused import FusedPlan
from ndp_rt.runtime.plan import Plan
from ndp_rt.runtime.staged import StagedPlan

log = logging.getLogger("ndp_rt")


def open_plan(bundle: Bundle, spec: EngineSpec, *, build: bool = True) -> Plan:
    """Load a bundle's engines, building what is missing, and return the plan that runs them.

    Args:
        bundle: opened.
        spec: which engines, on the CPU.
        build: build what is missing, and say so in the log; False: raise.

    Raises:
        InputError: the bundle or the backend lacks what the spec names.
        EngineError: an engine cannot be built, is damaged, or is missing and `build` is False.
    """
    spec = spec.resolve(bundle)
    found = build_engine(bundle, spec, progress=log.info) if build else None
    engines, engine_hash = load_engine(bundle, spec, found=found), name_engines(bundle, spec)
    if spec.plan == "staged":
        return StagedPlan(engines, bundle.reference(), engine_hash)
    fused = {size: stages["fused"] for size, stages in engines.items()}
    return FusedPlan(bundle, fused, spec.find_backend().name, spec.of_batch(1), engine_hash)
