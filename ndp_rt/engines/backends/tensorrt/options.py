"""Options of building engines by TensorRT, as `ndp-rt build-engine` takes them."""

import argparse
import re
from dataclasses import dataclass

from ndp_rt.engines.backend import BuildOptions, EngineOptions, absolute, option
from ndp_rt.errors import InputError

# Traits that let an engine be used elsewhere than where it was built.
VERSION_COMPATIBLE, HARDWARE_COMPATIBLE = "version-compatible", "hardware-compatible"


def parse_size(text: str) -> int:
    """Read a number of bytes such as 4GiB, 512MiB, 2GB or 1048576."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", text.strip(), re.IGNORECASE)
    unit = (match.group(2) or "").upper() if match else ""
    scale = (1024 if unit.endswith("I") else 1000) ** " KMGT".index(unit[:1] or " ")
    size = int(float(match.group(1)) * scale) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 4GiB, 512MiB or a number of bytes, got {text!r}")
    return size


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions(BuildOptions):
    """See `ndp_rt.engines.backend.BuildOptions`."""

    workspace_bytes: int | None = option(
        "--workspace", "scratch memory at most; default: what the GPU has", parse=parse_size, metavar="4GiB"
    )
    timing_cache: str | None = option(
        "--timing-cache", "kernels' times of earlier builds; default: in the cache", parse=absolute, metavar="FILE"
    )
    version_compatible: bool = option("--version-compatible", "later versions of the backend load it too")
    hardware_compatible: bool = option("--hardware-compatible", "other GPUs from Ampere on load it too")
    strip: bool = option("--strip", "leave the weights in --onnx-stages, read on loading")

    def __post_init__(self) -> None:
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise InputError(f"expected workspace_bytes of 1 or more, or None, got {self.workspace_bytes}.")
        if self.strip and self.onnx_stages is None:
            raise InputError(
                "expected onnx_stages with strip, which leaves the weights in that folder, got none. Give a folder "
                "that stays (--onnx-stages DIR, which ndp-rt export-stages writes)."
            )

    @property
    def traits(self) -> tuple[str, ...]:
        named = {
            VERSION_COMPATIBLE: self.version_compatible,
            HARDWARE_COMPATIBLE: self.hardware_compatible,
            "strip": self.strip,
            f"workspace={self.workspace_bytes}": self.workspace_bytes is not None,
        }
        return tuple(name for name, is_set in named.items() if is_set)


def find_build(options: EngineOptions) -> TensorRtOptions:
    """Return the build options among those of an engine; the defaults where none are given."""
    return options.build if isinstance(options.build, TensorRtOptions) else TensorRtOptions()
