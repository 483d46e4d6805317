"""The timing cache: how long each kernel took in earlier builds, so that the next need not try them again."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndp_rt.engines.backends.tensorrt.logger import describe_errors, get_log
from ndp_rt.errors import EngineError
from ndp_rt.files import storing, write_atomically

if TYPE_CHECKING:
    import tensorrt as trt

REMEDY = "Give a file for the timing cache in a folder that you may write to: --timing-cache FILE."


class TimingCache:
    """A timing cache, kept in a file if there is one.

    A file that was made elsewhere, or is damaged, is a miss: it is replaced after the build.
    """

    def __init__(self, path: Path | None) -> None:
        """Take the file's path, and find out before a long build whether its folder can be written to.

        Raises:
            StorageError: it cannot.
        """
        self._path = path
        self._cache: trt.ITimingCache | None = None  # has to outlive the build
        if path is not None:
            with storing(path, REMEDY):
                path.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
                    pass

    def attach(self, lib: Any, config: "trt.IBuilderConfig", tell: Callable[[str], None]) -> None:
        """Let a build use the cache, and say so where the file was made elsewhere."""
        content = b""
        if self._path is not None:
            with contextlib.suppress(OSError):
                content = self._path.read_bytes()
        cache: trt.ITimingCache | None = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, False):
            if content:
                tell(f"the timing cache {self._path} was made on another GPU or by another TensorRT; it is not used")
            before = get_log(lib).error_count
            cache = config.create_timing_cache(b"")
            if not config.set_timing_cache(cache, False):
                raise EngineError(f"TensorRT refuses a new timing cache: {describe_errors(lib, before)}.")
        self._cache = cache

    def save(self, config: "trt.IBuilderConfig") -> None:
        """Write what the build has added, in one step.

        Raises:
            StorageError: the file cannot be written.
        """
        filled: trt.ITimingCache = config.get_timing_cache()
        if self._path is not None:
            write_atomically(self._path, bytes(filled.serialize()), REMEDY)
