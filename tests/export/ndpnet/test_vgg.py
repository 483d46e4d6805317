"""The perceptual loss's VGG-16: taken from a file with torchvision's names, refused when it isn't that."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ndp_rt.errors import InputError
from ndp_rt.export.models.ndpnet.vgg import VGGFeatures, load_vgg

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def vgg() -> VGGFeatures:
    torch.manual_seed(0)
    return VGGFeatures().eval()


def test_five_maps_halve_their_size_from_one_to_the_next(vgg: VGGFeatures) -> None:
    with torch.no_grad():
        maps = vgg(torch.rand(1, 3, 32, 48))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 32, 48),
        (128, 16, 24),
        (256, 8, 12),
        (512, 4, 6),
        (512, 2, 3),
    ]
    assert all((m >= 0).all() for m in maps)  # after ReLU


def test_names_are_torchvisions() -> None:
    with torch.device("meta"):
        names = set(VGGFeatures().state_dict())
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert names == {f"features.{n}.{kind}" for n in convolutions for kind in ("weight", "bias")}


@pytest.mark.nightly
def test_loaded_weights_give_the_same_loss(vgg: VGGFeatures, tmp_path: Path) -> None:
    classifier = {"classifier.0.bias": torch.zeros(3)}  # a whole network's file has more than is used
    save_file(vgg.state_dict() | classifier, tmp_path / "vgg16.safetensors")
    loaded = load_vgg(tmp_path / "vgg16.safetensors")
    rebuilt, good = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert loaded.loss(good, good).item() == 0.0
        assert loaded.loss(rebuilt, good).item() == vgg.loss(rebuilt, good).item() > 0.0
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_the_loss_reaches_the_reconstruction(vgg: VGGFeatures) -> None:
    rebuilt = torch.rand(1, 3, 32, 32, requires_grad=True)
    vgg.loss(rebuilt, torch.rand(1, 3, 32, 32)).backward()
    assert rebuilt.grad is not None
    assert rebuilt.grad.abs().sum() > 0


def test_rejects_what_is_no_vgg(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    with pytest.raises(InputError, match="expected a safetensors file with torchvision's vgg16 names"):
        load_vgg(path)
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(InputError, match="25 missing"):
        load_vgg(path)
