"""Which of a bundle's engines are in the cache, by name alone: nothing is read and no backend is imported."""

import hashlib
import os
import re

from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.build import locate_keys
from ndp_rt.engines.cache import find_engines_dir
from ndp_rt.engines.request import EngineRequest


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
    try:
        names = os.listdir(engines_dir)
    except OSError:  # no cache yet, or one that may not be read: none of its engines can be used
        names = []
    found = {int(match.group(1)) for match in map(pattern.match, names) if match}
    return [size for size in sorted(found) if _is_built(bundle, plan, backend, precision, size, set(names))]


def _is_built(bundle: Bundle, plan: str, backend: str, precision: str, size: int, names: set[str]) -> bool:
    request = EngineRequest(backend=backend, precision=precision, batches=(size,), plan=plan)
    return all(key.folder_name in names for key in locate_keys(bundle, request, find_engines_dir(None)))


def name_engines(bundle: Bundle, request: EngineRequest) -> str:
    """Return the name of a set of engines: 16 hex digits of the hash of their keys."""
    keys = "".join(key.sha256 for key in request.make_keys(bundle))
    return hashlib.sha256(keys.encode()).hexdigest()[:16]
