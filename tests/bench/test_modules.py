"""Other networks as PyTorch modules: checked against plain PyTorch, by PyTorch and by OpenVINO."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench.models import Architecture
from ndp_rt.bench.rivals import modules
from ndp_rt.bench.rivals.base import open_checked
from ndp_rt.bench.rivals.modules import ArchitectureRival, BuiltModule, ModuleRival, is_convolutional
from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.errors import EngineError, MissingExtraError
from ndp_rt.program.manifest import InputContract
from tests.tiny_bundle import SIDE

pytestmark = pytest.mark.torch


@pytest.fixture
def tiny(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle, verify=False)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[train]'")


def make_page(torch: Any, **changed: Any) -> Architecture:
    """Return a page whose module is one convolution."""

    class Module(torch.nn.Module):  # type: ignore[name-defined,misc]
        input_px, crop_px = SIDE, None

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, image: Any) -> tuple[Any, Any]:
            maps = self.conv(image).square().mean(1, keepdim=True)
            return maps, maps.amax(dim=(1, 2, 3))

    class Page(Architecture):
        def build(self) -> Any:
            return Module()

    page = Page(
        name="padim",
        title="PaDiM",
    )
    return dataclasses.replace(page, **changed)


class OddRival(ModuleRival):
    """A rival whose module is whatever a test says."""

    def __init__(self, module: Any, **built: Any) -> None:
        super().__init__("odd")
        self._built = BuiltModule(module=module, **built)

    def make_module(self, contract: InputContract) -> BuiltModule:
        return self._built


@pytest.mark.parametrize("runtime", ["pytorch", "openvino"])
def test_a_page_runs_and_is_compared_with_plain_pytorch(
    tiny: Bundle, torch: Any, monkeypatch: pytest.MonkeyPatch, runtime: str, rng: np.random.Generator
) -> None:
    page = make_page(torch)
    monkeypatch.setattr(modules, "find_architecture", lambda name: page)
    runner, check = open_checked(ArchitectureRival("padim", runtime), tiny, "fp32", 2, threads=1)
    assert check.allowed is not None and 0.0 <= check.map_max_abs_difference <= check.allowed
    assert check.against == "the same module in plain PyTorch, fp32" and check.image_count == 2
    assert runner.facts["channels_last"] is (runtime == "pytorch")
    assert (runner.facts["weights"], runner.facts["title"]) == ("random", "PaDiM")
    images = list(rng.integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8))
    maps, scores = runner.run(images)
    given = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2) / np.float32(255))
    with torch.inference_mode():
        expected = page.build()(given)[0].numpy()
    assert np.abs(maps - expected).max() <= check.allowed and scores.shape == (2,)


def test_a_page_that_is_no_graph_is_left_out_of_openvino(
    tiny: Bundle, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = make_page(torch, is_graph=False)
    monkeypatch.setattr(modules, "find_architecture", lambda name: page)
    with pytest.raises(MissingExtraError, match="padim cannot run here: it is no single graph.*--models-on pytorch"):
        open_checked(ArchitectureRival("padim", "openvino"), tiny, "fp32", 1)
    runner, _ = open_checked(ArchitectureRival("padim"), tiny, "fp32", 1)
    assert runner.facts["channels_last"] is False


def test_a_module_that_takes_gradients_may(tiny: Bundle, torch: Any) -> None:
    class Search(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, image: Any) -> tuple[Any, Any]:
            with torch.enable_grad():
                x = image.clone().requires_grad_()
                (slope,) = torch.autograd.grad(x.square().sum(), x)
            return slope.mean(1, keepdim=True), slope.amax(dim=(1, 2, 3))

    open_checked(OddRival(Search(), is_graph=False), tiny, "fp32", 1)[0].close()


def test_a_module_that_answers_otherwise_the_next_time_is_refused(tiny: Bundle, torch: Any) -> None:
    class Noise(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, image: Any) -> tuple[Any, Any]:
            return torch.rand(1, 1, SIDE, SIDE), torch.rand(1)

    with pytest.raises(EngineError, match="odd: its maps differ by .* from the same module in plain PyTorch"):
        open_checked(OddRival(Noise()), tiny, "fp32", 1)


def test_a_module_that_needs_the_plain_layout_keeps_it(tiny: Bundle, torch: Any) -> None:
    class Flat(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 1)

        def forward(self, image: Any) -> tuple[Any, Any]:
            scores = self.conv(image).view(len(image), -1).mean(1)
            return torch.ones_like(image[:, :1]), scores

    runner, check = open_checked(OddRival(Flat()), tiny, "fp32", 1)
    assert runner.facts["channels_last"] is False and check.map_max_abs_difference == 0.0


def test_a_module_with_a_buffer_of_five_axes_has_its_filters_in_channels_last(tiny: Bundle, torch: Any) -> None:
    class Masked(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 8, 3)
            self.register_buffer("masks", torch.ones(2, 3, 1, 4, 4))

        def forward(self, image: Any) -> tuple[Any, Any]:
            return torch.ones_like(image[:, :1]), self.conv(image).mean((1, 2, 3)) * self.masks.mean()

    module = Masked()
    runner, _ = open_checked(OddRival(module), tiny, "fp32", 1)
    assert runner.facts["channels_last"] is True
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last) and module.masks.is_contiguous()


def test_what_a_module_raises_is_one_error_with_its_reason(tiny: Bundle, torch: Any) -> None:
    class Broken(torch.nn.Module):  # type: ignore[name-defined,misc]
        def forward(self, image: Any) -> tuple[Any, Any]:
            raise ValueError("no such luck")

    with pytest.raises(EngineError, match="odd cannot be built or run: no such luck"):
        open_checked(OddRival(Broken()), tiny, "fp32", 1)


def test_modules_of_many_filters_are_convolutional(torch: Any) -> None:
    filters, table = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4)
    assert is_convolutional(torch.nn.Sequential(filters, table))
    assert not is_convolutional(torch.nn.Sequential(filters, torch.nn.Linear(100, 100)))
    assert not is_convolutional(torch.nn.ReLU())
