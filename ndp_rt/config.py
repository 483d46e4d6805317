"""The one place that reads the environment."""

import os
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import InputError

MAX_SIDE_PX = 16384
MAX_IMAGE_PX = 2**28


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """The largest image files that are decoded; a larger one is an ImageFileError before anything is allocated."""

    max_side_px: int = MAX_SIDE_PX
    max_image_px: int = MAX_IMAGE_PX

    def __post_init__(self) -> None:
        if self.max_side_px < 1 or self.max_image_px < 1:
            raise InputError(f"image limits are {self.max_side_px} and {self.max_image_px}; 1 or more is taken.")


def find_cache_dir() -> Path:
    """Return where engines are cached: NDP_RT_CACHE, else XDG_CACHE_HOME/ndp-rt, else ~/.cache/ndp-rt."""
    own = os.environ.get("NDP_RT_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG rules say that a relative path here is to be ignored.
    base = Path(shared) if shared and os.path.isabs(shared) else Path.home() / ".cache"
    return base / "ndp-rt"


def child_environment() -> dict[str, str]:
    """Return the environment for a child process of ours (the engine builder)."""
    return dict(os.environ)
