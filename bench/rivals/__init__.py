"""What one would use instead of ndp-rt: the same bundle's fused graph in other hands, and other networks.

`find_rival` turns a word of --against into a rival, `base.open_checked` opens it and tells how far it is from what it
should compute, and its `run` is what is timed. Importing this, and the names, loads no engine.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.bench.models import LATER, PAPER
from ndp_rt.errors import InputError

if TYPE_CHECKING:
    from ndp_rt.bench.rivals.base import Rival

__all__ = ["NAMES", "expand", "find_rival"]

# Those that run the bundle's own network, by device.
NAMES = {
    "cpu": ("pytorch", "torch-compile", "onnxruntime", "openvino-plain"),
    "cuda": ("pytorch", "torch-compile", "torch-compile-autotuned", "onnxruntime-cuda", "tensorrt-fused"),
}
ANOMALIB_PREFIX = "anomalib:"


def find_rival(word: str, device: str, *, models_on: str = "pytorch", fit: Path | None = None) -> "Rival":
    """Return the rival that a word of --against names.

    Args:
        word: a name of NAMES[device], a path that ends with .onnx, an architecture of `ndp_rt.bench.models`, or
            anomalib:NAME.
        device: "cpu" or "cuda".
        models_on: what runs an architecture: "pytorch", or "openvino" on the CPU.
        fit: labelled images whose good training images anomalib's models are fitted to; None: random weights.

    Raises:
        InputError: none of these, a file that is not there, a model that cannot be fitted, or another models_on.
    """
    if word.endswith(".onnx"):
        from ndp_rt.bench.rivals.onnx_file import OnnxFileRival

        return OnnxFileRival(Path(word), device)
    if word in (*PAPER, *LATER):
        from ndp_rt.bench.rivals.modules import ArchitectureRival

        return ArchitectureRival(word, models_on, device)
    if word.startswith(ANOMALIB_PREFIX):
        from ndp_rt.bench.rivals.modules import AnomalibRival

        return AnomalibRival(word.removeprefix(ANOMALIB_PREFIX), models_on, device, fit)
    if word in NAMES[device]:
        return _make_rival(word, device)
    raise _refuse(word, device)


def expand(words: Iterable[str], device: str, fit: Path | None = None) -> tuple[str, ...]:
    """Return the words of --against, each once, with "paper" and "anomalib" replaced by all that they stand for.

    Raises:
        InputError: a word that `find_rival` does not take.
    """
    from ndp_rt.bench.rivals.modules import ANOMALIB, FITTED

    names = ANOMALIB if fit is None else FITTED
    groups = {"paper": PAPER, "anomalib": tuple(ANOMALIB_PREFIX + name for name in names)}
    found = dict.fromkeys(name for word in words for name in groups.get(word, (word,)))
    for word in found:
        find_rival(word, device, fit=fit)
    return tuple(found)


def _make_rival(name: str, device: str) -> "Rival":
    if name in ("pytorch", "torch-compile", "torch-compile-autotuned"):
        from ndp_rt.bench.rivals.pytorch import COMPILE_OPTIONS, TorchRival

        return TorchRival(name, COMPILE_OPTIONS[device].get(name), device)
    if name == "onnxruntime-cuda":
        from ndp_rt.bench.rivals.device_engines import OnnxRuntimeCudaRival

        return OnnxRuntimeCudaRival()
    if name == "tensorrt-fused":
        from ndp_rt.bench.rivals.device_engines import TensorRtRival

        return TensorRtRival()
    from ndp_rt.bench.rivals.fused_graph import HostEngineRival

    backend = name.removesuffix("-plain")
    return HostEngineRival(name, backend, needs_plain=backend != name)


def _refuse(word: str, device: str) -> InputError:
    for other, names in NAMES.items():
        if word in names:
            return InputError(
                f"--against names '{word}', which is for {other}; the device is {device}. Choose one of "
                f"{', '.join(NAMES[device])}, or --device {other}."
            )
    known = [*NAMES[device], *PAPER, *LATER, "paper", "anomalib"]
    close = difflib.get_close_matches(word.lower(), known, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return InputError(
        f"--against names '{word}'. Choose one of {', '.join(known)}, {ANOMALIB_PREFIX}NAME and the path of a file "
        f"that ends with .onnx.{hint}"
    )
