"""From a bundle to a plan on the host: its engines, built where they are missing."""

import hashlib
import logging
import re
from collections.abc import Sequence

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.base import EngineOptions
from ndp_rt.engines.build import build_engine, load_engine, locate_keys
from ndp_rt.engines.cache import find_engines_dir
from ndp_rt.engines.registry import find_backend
from ndp_rt.engines.request import EngineRequest
from ndp_rt.plan.base import Plan
from ndp_rt.plan.fused import FusedPlan
from ndp_rt.plan.staged import StagedPlan

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
        precision: "fp32" or "bf16".
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
    if build:
        build_engine(
            bundle, backend=backend, precision=precision, batches=sizes, plan=plan, threads=threads, progress=log.info
        )
    engines = load_engine(bundle, backend=backend, precision=precision, batches=sizes, plan=plan, threads=threads)
    engine_hash = name_engines(bundle, EngineRequest(backend=backend, precision=precision, batches=sizes, plan=plan))
    if plan == "staged":
        return StagedPlan(engines, bundle.reference(), engine_hash)
    fused = {size: stages["fused"] for size, stages in engines.items()}
    return FusedPlan(bundle, fused, backend, options, engine_hash)


def list_built_batches(
    bundle: Bundle, *, plan: str = "fused", backend: str = "openvino", precision: str = "fp32"
) -> list[int]:
    """Return the batch sizes whose engines are in the cache, ascending, without reading them.

    Raises:
        InputError: a name that is not taken.
        MissingExtraError: the backend is not installed.
    """
    engines_dir = find_engines_dir(None)
    first = EngineRequest(backend=backend, precision=precision, plan=plan).make_keys(bundle)[0]
    pattern = re.compile(re.escape(first.family.rpartition("-b")[0]) + r"-b(\d+)-")
    names = [path.name for path in engines_dir.iterdir()] if engines_dir.is_dir() else []
    found = {int(match.group(1)) for match in map(pattern.match, names) if match}
    return [size for size in sorted(found) if _is_built(bundle, plan, backend, precision, size, set(names))]


def _is_built(bundle: Bundle, plan: str, backend: str, precision: str, size: int, names: set[str]) -> bool:
    request = EngineRequest(backend=backend, precision=precision, batches=(size,), plan=plan)
    return all(key.folder_name in names for key in locate_keys(bundle, request, find_engines_dir(None)))


def name_engines(bundle: Bundle, request: EngineRequest) -> str:
    """Return the name of a set of engines: 16 hex digits of the hash of their keys."""
    keys = "".join(key.sha256 for key in request.make_keys(bundle))
    return hashlib.sha256(keys.encode()).hexdigest()[:16]
