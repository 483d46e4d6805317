"""Embedding-based reference architectures at their real sizes, which are their sources', on the meta device."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ndp_rt.bench.models import backbones
from ndp_rt.bench.models.dfr import Dfr
from ndp_rt.bench.models.efficientad_s import EfficientAdS
from ndp_rt.bench.models.gcpf import Gcpf
from ndp_rt.bench.models.mb_pfm import MbPfm
from ndp_rt.bench.models.mkd import Mkd
from ndp_rt.bench.models.padim import Padim
from ndp_rt.bench.models.patch_svdd import PatchSvdd
from ndp_rt.bench.models.patchcore import PatchCore
from ndp_rt.bench.models.spade import Spade

pytestmark = pytest.mark.torch


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def list_convolutions(model: nn.Module) -> list[tuple[int, int]]:
    return [(layer.in_channels, layer.out_channels) for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def make_meta(make: Callable[[], nn.Module]) -> Any:
    """A module of its real size whose tensors have shapes and no memory."""
    with torch.device("meta"):
        return make().eval().requires_grad_(False)


def count_gflop(model: nn.Module, *shape: int) -> float:
    """What PyTorch counts of a module on the meta device: nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(shape, device="meta"))
    return float(counter.get_total_flops()) * 1e-9


# ---- backbones: counts of torchvision's documentation, without the classifier ----


@pytest.mark.parametrize(
    ("make", "published", "classifier"),
    [
        (backbones.make_resnet18, 11_689_512, 512 * 1000 + 1000),
        (backbones.make_resnet34, 21_797_672, 512 * 1000 + 1000),
        (backbones.make_resnet50, 25_557_032, 2048 * 1000 + 1000),
        (backbones.make_wide_resnet50_2, 68_883_240, 2048 * 1000 + 1000),
    ],
)
def test_resnets_have_the_published_parameters(
    make: Callable[[], backbones.ResNet], published: int, classifier: int
) -> None:
    assert count_parameters(make_meta(make)) == published - classifier


@pytest.mark.parametrize(
    ("make", "published"), [(backbones.make_vgg16, 138_357_544), (backbones.make_vgg19, 143_667_240)]
)
def test_vggs_have_the_published_parameters(make: Callable[[tuple[int, ...]], backbones.VGG], published: int) -> None:
    classifier = 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    last = 30 if make is backbones.make_vgg16 else 36
    assert count_parameters(make_meta(lambda: make((last,)))) == published - classifier


def test_backbones_have_torchvisions_names() -> None:
    resnet, vgg = make_meta(backbones.make_wide_resnet50_2), make_meta(lambda: backbones.make_vgg19((26,)))
    assert resnet.state_dict()["layer3.0.downsample.0.weight"].shape == (1024, 512, 1, 1)
    assert resnet.state_dict()["layer4.2.conv2.weight"].shape == (1024, 512 * 2, 3, 3)
    assert {"conv1.weight", "bn1.running_var", "layer1.2.bn3.bias"} <= set(resnet.state_dict())
    assert vgg.state_dict()["features.25.weight"].shape == (512, 512, 3, 3)


def test_resnet_maps_are_a_quarter_to_a_thirty_second() -> None:
    model = make_meta(backbones.make_resnet18)
    shapes = [tuple(one.shape) for one in model(torch.empty(1, 3, 64, 96, device="meta"))]
    assert shapes == [(1, 64, 16, 24), (1, 128, 8, 12), (1, 256, 4, 6), (1, 512, 2, 3)]


# ---- real sizes, without their memory ----


def test_padim_has_a_full_inverse_covariance_at_56_x_56_positions() -> None:
    model = make_meta(Padim)
    assert model.precisions.shape == (56 * 56, 550, 550)
    assert model.means.shape == (56 * 56, 1, 550)
    assert model.channels.shape == (550,)
    assert sum(model.backbone.channels) == 1792
    assert model.precisions.nbytes == pytest.approx(3.8e9, rel=0.01)


def test_gcpf_has_ten_clusters_at_each_of_three_levels() -> None:
    shapes = [tuple(one.precisions.shape) for one in make_meta(Gcpf).clusters]
    assert shapes == [(10, 256, 256), (10, 512, 512), (10, 1024, 1024)]


def test_spade_keeps_the_features_of_280_images() -> None:
    model = make_meta(Spade)
    shapes = [tuple(gallery.features.shape) for gallery in model.galleries]
    assert shapes == [(280, 56 * 56, 256), (280, 28 * 28, 512), (280, 14 * 14, 1024)]
    assert model.images.features.shape == (280, 2048)
    assert model.neighbour_count == 50
    assert sum(gallery.features.nbytes for gallery in model.galleries) == pytest.approx(1.6e9, rel=0.02)


def test_patchcore_keeps_a_tenth_of_the_patches_of_280_images() -> None:
    assert make_meta(PatchCore).coreset.features.shape == (280 * 28 * 28 // 10, 1024)


def test_patch_svdd_keeps_all_patches_of_280_images() -> None:
    model = make_meta(PatchSvdd)
    assert model.small_bank.features.shape == (280 * 57 * 57, 64)
    assert model.large_bank.features.shape == (280 * 13 * 13, 64)


def test_dfr_rebuilds_3456_channels_from_200() -> None:
    model = make_meta(Dfr)
    counts = [3456, 1928, 400, 200, 400, 1928, 3456]
    assert list_convolutions(model.autoencoder) == list(pairwise(counts))
    assert model.features(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 3456, 64, 64)


def test_mb_pfm_maps_both_ways_through_200_400_and_900_channels() -> None:
    model = make_meta(MbPfm)
    assert [(mapping.shared.in_channels, mapping.shared.out_channels) for mapping in model.mappings] == [
        (400, 200),
        (800, 400),
        (1800, 900),
    ]
    assert list_convolutions(model.mappings[0].encode_first) == [(64, 232), (232, 400)]
    assert list_convolutions(model.mappings[0].decode_first) == [(200, 400), (400, 232), (232, 64)]


def test_mkd_compares_maps_of_the_same_shapes() -> None:
    model = make_meta(Mkd)
    image = torch.empty(1, 3, 224, 224, device="meta")
    shapes = [tuple(one.shape) for one in model.teacher(image)]
    assert shapes == [(1, 256, 28, 28), (1, 512, 14, 14), (1, 512, 7, 7)]
    assert [tuple(one.shape) for one in model.student(image)] == shapes


def test_efficientad_has_small_patch_description_networks() -> None:
    model = make_meta(EfficientAdS)
    assert count_parameters(model.teacher) == 2_694_144
    assert count_parameters(model.student) == 4_267_392
    assert model.autoencoder(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 384, 56, 56)
    assert model.teacher(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 384, 56, 56)


SPADE_SEARCH = sum(p * 50 * p * c for p, c in ((56**2, 256), (28**2, 512), (14**2, 1024)))
PATCH_SVDD_SEARCH = 64 * (57**2 * 280 * 57**2 + 13**2 * 280 * 13**2)
GCPF_DISTANCES = 10 * sum(p * c**2 for p, c in ((56**2, 256), (28**2, 512), (14**2, 1024)))


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize(
    ("make", "part", "multiply_adds"),
    [
        (Spade, "backbone", SPADE_SEARCH),
        (Padim, "backbone", 56**2 * 550**2),
        (Gcpf, "backbone", GCPF_DISTANCES),
        (PatchCore, "backbone", 28**2 * 21952 * 1024),
        (PatchSvdd, "small", PATCH_SVDD_SEARCH),
    ],
)
def test_searching_takes_the_operations_that_its_sizes_ask_for(
    make: Callable[[], nn.Module], part: str, multiply_adds: int
) -> None:
    model, side = make_meta(make), 256 if make is PatchSvdd else 224
    rest = count_gflop(model, 1, 3, 256, 256) - count_gflop(getattr(model, part), 1, 3, side, side)
    assert rest == pytest.approx(2e-9 * multiply_adds, rel=0.01)
