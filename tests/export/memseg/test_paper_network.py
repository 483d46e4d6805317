"""MemSeg's network of preset `paper`: its parts by themselves, its sizes with ResNet18, and torchvision's names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ndp_rt.errors import InputError
from ndp_rt.export.features.lite import LITE0, EfficientNetLite
from ndp_rt.export.features.resnet import ResNet18
from ndp_rt.export.features.weights import load_backbone
from ndp_rt.export.models.memseg.paper.losses import find_losses
from ndp_rt.export.models.memseg.paper.memory import ImageMemory, PatchMemory
from ndp_rt.export.models.memseg.paper.network import (
    DEEP_STRIDE,
    STRIDES,
    CoordinateAttention,
    MemSegPaper,
    Scale,
    merge_softmax,
)
from ndp_rt.export.models.memseg.paper.settings import PaperSettings, make_settings
from ndp_rt.kernels.registry import find_op
from tests.export.memseg.tiny_paper import random_resnet
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch
BACKBONES = {"lite0": lambda strides: EfficientNetLite(LITE0, strides), "resnet18": ResNet18}


def test_resnet18_has_the_papers_sizes() -> None:
    model = MemSegPaper("resnet18", 64, 96, memory="images", count=3).eval()
    f0, f1, f2, f3, s1, s2, s3 = model.encoder(torch.rand(2, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in (f0, f1, f2, f3)] == [(64, 32, 48), (64, 16, 24), (128, 8, 12), (256, 4, 6)]
    assert [s.shape for s in (s1, s2, s3)] == [f.shape for f in (f1, f2, f3)]
    assert [tuple(level.shape) for level in model.memory.levels] == [(3, 64, 16, 24), (3, 128, 8, 12), (3, 256, 4, 6)]
    part = model.segmentation
    assert part.deep(f3).shape == (2, 512, 2, 3)
    fusion = [level.narrow[0] for level in part.fusion.levels]
    assert [(conv.in_channels, conv.out_channels) for conv in fusion] == [(128, 64), (256, 128), (512, 256)]
    widths = [(rise.conv[0].in_channels, rise.conv[0].out_channels) for rise in part.decoder.rises]
    assert widths == [(512, 256), (512, 128), (256, 64), (128, 48), (96, 48)]
    assert (part.decoder.stem.out_channels, part.decoder.last.out_channels) == (48, 2)
    assert [level.attention.squeeze[0].out_channels for level in part.fusion.levels] == [8, 8, 16]
    assert model(torch.rand(2, 3, 64, 96))[0].shape == (2, 1, 64, 96)


def test_torchvisions_weights_come_in_by_their_names(tmp_path: Path) -> None:
    tensors = random_resnet()
    torch.save(tensors, tmp_path / "resnet18.pth")
    model = MemSegPaper("resnet18", 32, 32, memory="images", count=1)
    model.encoder.backbone = load_backbone("resnet18", tmp_path / "resnet18.pth", STRIDES)
    deep = load_backbone("resnet18", tmp_path / "resnet18.pth", (*STRIDES, DEEP_STRIDE)).take_blocks(DEEP_STRIDE)
    image = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = run_torchvisions_resnet(tensors, (image - mean[:, None, None]) / std[:, None, None])
    found = [*model.encoder(image)[: len(STRIDES)], deep(model.encoder(image)[len(STRIDES) - 1])]
    for one, other in zip(found, expected, strict=True):
        assert_close(one.detach(), other, "rewrite", "float32")


def run_torchvisions_resnet(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Return what torchvision's resnet18 computes after its first ReLU and after each of its layers."""

    def convolve(name: str, norm: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        weight = tensors[f"{name}.weight"]
        y = nn.functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        values = [tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return nn.functional.batch_norm(y, *values)

    found = [torch.relu(convolve("conv1", "bn1", x, 2))]
    x = nn.functional.max_pool2d(found[0], 3, stride=2, padding=1)
    for number in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{number}.{block}", 2 if number > 1 and block == 0 else 1
            y = convolve(
                f"{name}.conv2", f"{name}.bn2", torch.relu(convolve(f"{name}.conv1", f"{name}.bn1", x, stride)), 1
            )
            if f"{name}.downsample.0.weight" in tensors:
                x = convolve(f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
            x = torch.relu(x + y)
        found.append(x)
    return found


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_blocks_of_a_stride_follow_the_one_before(backbone: str) -> None:
    torch.manual_seed(0)
    whole = BACKBONES[backbone]((2, 4, 8, 16, 32)).eval()
    features = whole(torch.rand(1, 3, 64, 64))
    for stride, before, after in zip((8, 16, 32), features[1:], features[2:], strict=False):
        assert torch.equal(whole.take_blocks(stride)(before), after)


def test_coordinate_attention_is_the_same_with_rows_and_columns_apart() -> None:
    torch.manual_seed(0)
    attention = CoordinateAttention(6)
    x = torch.rand(4, 6, 8, 12)
    attention.train()(x)
    apart = attention.eval()(x)
    attention.train()
    attention.squeeze[1].eval()  # the same statistics
    assert apart.shape == x.shape and apart.min() > 0.0 and apart.max() < 1.0
    assert_close(attention(x).detach(), apart.detach(), "rewrite", "float32")


def test_the_merged_softmax_gives_the_same_map() -> None:
    torch.manual_seed(0)
    model = MemSegPaper("lite0", 32, 32, memory="images", count=2).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = model(image)[0]
        merge_softmax(model.segmentation)
        assert_close(model(image)[0], plain, "rewrite", "float32")


@pytest.mark.parametrize("kind", [ImageMemory, PatchMemory])
def test_the_memory_compares_as_its_op_defines(kind: type, rng: np.random.Generator) -> None:
    features = rng.normal(size=(3, 6, 4, 5)).astype(np.float32)
    remembered = rng.normal(size=(7, 6, 4, 5) if kind is ImageMemory else (7, 6)).astype(np.float32)
    memory = kind([remembered.shape])
    found = memory.compare(torch.from_numpy(features), torch.from_numpy(remembered))
    (expected,) = find_op(memory.op).define({}, features, remembered)
    assert_close(found, expected, "nearest", "float32")


def test_patches_are_chosen_far_from_each_other() -> None:
    torch.manual_seed(0)
    clusters = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    spread = clusters[torch.arange(64) % 4] + 0.1 * torch.rand(64, 2)
    chosen = PatchMemory([(4, 2)]).choose(spread.T.reshape(1, 2, 8, 8), 4)
    assert sorted(map(tuple, (chosen / 10.0).round().tolist())) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_scales_cut_what_no_good_image_comes_near() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 2.0]).reshape(1, 1, 2, 2)
    scale = Scale(1, (0.0, 16.0), is_difference=True)
    scale.fit(values, None)
    assert scale(values).mean() == pytest.approx(1.0, abs=1e-4)
    assert scale(1e4 * values).max() == 16.0
    scale.fit(values, 100.0)
    assert_close(scale(values), 100.0 * values, "rewrite", "float32")
    features = Scale(1, (-8.0, 8.0), is_difference=False)
    features.fit(values - 2.0, 100.0)
    assert_close(features(values - 2.0), 100.0 * (values - 2.0), "rewrite", "float32")
    features.fit(values, None)
    assert features(values).std() == pytest.approx(1.0, abs=1e-4) and abs(float(features(values).mean())) < 1e-6


def test_the_losses_follow_their_definitions() -> None:
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 2, 3, 4), (torch.rand(2, 1, 3, 4) > 0.5).float()
    found = find_losses(logits, mask, PaperSettings())
    defect = 1.0 / (1.0 + torch.exp(logits[:, :1] - logits[:, 1:]))
    right = torch.where(mask > 0, defect, 1.0 - defect)
    assert_close(found["l1"], 0.6 * (defect - mask).abs().mean(), "loss", "float32")
    assert_close(found["focal"], 0.4 * (-((1.0 - right) ** 4) * right.log()).mean(), "loss", "float32")


def test_the_encoder_stays_in_eval_mode_and_frozen() -> None:
    model = MemSegPaper("lite0", 32, 32, memory="images", count=1).train()
    assert not any(module.training for module in model.encoder.modules())
    assert all(module.training for module in model.segmentation.modules())
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())


def test_the_defaults_are_the_authors() -> None:
    settings = make_settings({}, {})
    assert (settings.backbone, settings.memory, settings.memory_image_count) == ("resnet18", "images", 30)
    assert (settings.optimizer, settings.learning_rate, settings.momentum) == ("sgd", 0.04, 0.9)
    assert (settings.weight_decay, settings.phase_steps, settings.batch_size) == (3e-5, (2701,), 4)
    assert PaperSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"height_px": 48}, {}, "height_px to be a multiple of 32"),
        ({"crop_px": 128}, {}, "crop_px to be whole images"),
        ({"augment": {"contrast": 0.1}}, {}, "--augment: expected --memory patches"),
        ({"phase_steps": (1, 2)}, {}, "phase_steps"),
        ({"memory_image_count": 0}, {}, "memory_image_count"),
        ({"focal_share": 1.5}, {}, "focal_share"),
        ({}, {"memory": "some"}, "memory to be images or patches"),
    ],
)
def test_refuses_settings_that_do_not_fit(changes: dict[str, object], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_settings(changes, options)
