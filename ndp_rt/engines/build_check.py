"""The check that freshly built engines must pass before they are stored, called in the process that built them.

Engines on the host are checked by `ndp_rt.engines.golden`. Those on a GPU need buffers, kernels and the order of a
plan's steps, which lie above this level: so whoever asks for the build names the check, which is looked up by its name.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from ndp_rt.bundle import Bundle
from ndp_rt.errors import EngineError

HOST_CHECK = "ndp_rt.engines.golden:check_build"


class BuildCheck(Protocol):
    """What a check is: a function at the top of a module."""

    def __call__(
        self,
        bundle: Bundle,
        engines: Mapping[str, Any],
        *,
        precision: str,
        batch: int,
        device_index: int,
        tell: Callable[[str], None],
    ) -> Mapping[str, float | int]:
        """Run the bundle's golden vectors, and extreme inputs where NaN may come of them, through a plan's engines.

        Args:
            bundle: opened and verified.
            engines: by stage in the plan's order, all of one batch size, for the host or for a GPU; not to be closed.
            precision: that they were built for and say they compute in.
            batch: their batch size.
            device_index: which GPU, made current already.
            tell: called with a line of text on what is being done.

        Returns:
            The fields of `ndp_rt.engines.golden.GoldenReport`, and others if there are more; all finite.

        Raises:
            EngineError: a result differs by more than `ndp_rt.engines.tolerances` allows, or is NaN or infinite.
        """
        ...


def find_check(name: str) -> BuildCheck:
    """Return the check called "module:function".

    Raises:
        EngineError: there is none; engines that nobody checks are not stored.
    """
    module, _, function = name.partition(":")
    try:
        check: BuildCheck = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise EngineError(
            f"the check of built engines, {name}, cannot be loaded ({error}); nothing is built that cannot be checked. "
            "Install ndp-rt again, or report this."
        ) from error
    return check
