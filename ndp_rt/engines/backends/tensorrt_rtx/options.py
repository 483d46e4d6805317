"""The generations of GPUs that TensorRT-RTX builds for, and the option that chooses among them."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from ndp_rt.engines.backend import BuildOptions, EngineOptions, option
from ndp_rt.errors import InputError

TURING = "sm75"
# By compute capability: 7.5 is sm75. GPUs for data centres, such as sm90, are TensorRT's.
TARGETS = (TURING, "sm80", "sm86", "sm89", "sm120", "sm121")
# What generations lack: its compiler refuses bf16 for Turing, computes int8 in fp16, and there is no TF32.
LACKING = {"bf16": (TURING,), "tf32": (TURING,), "int8": (TURING,)}


def split_targets(text: str) -> tuple[str, ...]:
    """Return the generations of such as "sm86,sm89", each once, the oldest first.

    Raises:
        InputError: one is not offered.
    """
    names = {word.strip().lower() for word in text.split(",")}
    for name in sorted(names - set(TARGETS)):
        raise InputError(
            f"--for: expected GPU generations of {', '.join(TARGETS)}, got '{name}'. For GPUs in data centres build "
            "with --backend tensorrt, on a machine that has one."
        )
    return tuple(name for name in TARGETS if name in names)


def parse_targets(text: str) -> str:
    """Return generations as `split_targets` orders them, joined again; for an argument."""
    try:
        return ",".join(split_targets(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--for: ")) from error


def name_target(compute_capability: str | None) -> str:
    """Return the generation of a compute capability: "sm89" for "8.9"."""
    return f"sm{(compute_capability or '').replace('.', '')}"


@dataclass(frozen=True, kw_only=True)
class TensorRtRtxOptions(BuildOptions):
    """See `ndp_rt.engines.backend.BuildOptions`."""

    targets: str | None = option(
        "--for",
        f"the generations of GPUs to build for, on any machine, of {', '.join(TARGETS)}; default: that of this "
        "machine's GPU",
        parse=parse_targets,
        metavar="sm86,sm89",
    )

    def __post_init__(self) -> None:
        if self.targets is not None:
            split_targets(self.targets)

    @property
    def device_facts(self) -> Mapping[str, str] | None:
        return None if self.targets is None else describe_targets(split_targets(self.targets))


def describe_targets(targets: tuple[str, ...]) -> Mapping[str, str]:
    """Return the fields of an engine's key that tell which generations it is for."""
    return {"device": "cuda", "device_model": "any", "compute_capability": " ".join(targets)}


def find_targets(options: EngineOptions) -> tuple[str, ...]:
    """Return the generations that engines are built for if the options say; else none."""
    build = options.build
    return split_targets(build.targets) if isinstance(build, TensorRtRtxOptions) and build.targets is not None else ()


def check_targets(targets: tuple[str, ...], precision: str) -> None:
    """Check that all of these generations have a precision.

    Raises:
        InputError: one has not.
    """
    for name in LACKING.get(precision, ()):
        if name in targets:
            raise InputError(
                f"--for: expected generations from sm80 on for {precision}, got {name}, which has none. Leave it out, "
                "or build with --precision fp16."
            )
