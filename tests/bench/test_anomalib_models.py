"""anomalib's models as rivals: the real ones where it is installed, else a stand-in with the same interface."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ndp_rt.bench.rivals.base import list_golden_images, open_checked
from ndp_rt.bench.rivals.modules import AnomalibRival
from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.errors import EngineError, MissingExtraError
from tests.tiny_bundle import SIDE

pytestmark = pytest.mark.torch
HAS_ANOMALIB = importlib.util.find_spec("anomalib") is not None


@pytest.fixture
def tiny(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle, verify=False)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """A module anomalib.models.image with the classes that tests put into it."""
    models = types.ModuleType("anomalib.models.image")
    models.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    for name in ("anomalib", "anomalib.models", "anomalib.models.image"):
        monkeypatch.setitem(sys.modules, name, models)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    yield models


def make_class(model: Any, size: int = 32) -> type:
    """Return a class with anomalib's constructor, whose preprocessing resizes."""
    import torch

    class Kind:
        def __init__(self, pre_trained: bool = True, evaluator: bool = True) -> None:
            assert not pre_trained and not evaluator
            self.model = model
            self.pre_processor = torch.nn.Upsample((size, size))

    return Kind


class InferenceBatch(NamedTuple):
    pred_score: Any = None
    anomaly_map: Any = None


def test_maps_come_in_the_bundles_size_and_scores_one_an_image(tiny: Bundle, stand_in: types.ModuleType) -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(self, image: Any) -> Any:
            return InferenceBatch(image.amax(dim=(1, 2, 3))[:, None], image.mean(1))

    stand_in.Fastflow = make_class(Model())  # type: ignore[attr-defined]
    runner, check = open_checked(AnomalibRival("Fastflow"), tiny, "fp32", 2, threads=1)
    facts = runner.facts
    assert (facts["input_px"], facts["weights"], facts["filled"]) == ([32, 32], "random", "nothing but weights")
    maps, scores = runner.run(list_golden_images(tiny, 2))
    assert maps.shape == (2, 1, SIDE, SIDE) and scores.shape == (2,)
    assert check.map_max_abs_difference <= (check.allowed or 0.0)


def test_what_keeps_features_is_fitted_to_random_ones(tiny: Bundle, stand_in: types.ModuleType) -> None:
    import torch

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory_bank: list[Any] = []

        def fit(self) -> None:
            (features,) = self.memory_bank
            self.register_buffer("mean", features.mean(0))

        def forward(self, image: Any) -> Any:
            features = image.mean(dim=(2, 3))
            if self.training:
                self.memory_bank.append(features)
                return features
            return InferenceBatch((features - self.mean).norm(dim=1), None)

    stand_in.Dfm = make_class(Model(), size=8)  # type: ignore[attr-defined]
    runner, _ = open_checked(AnomalibRival("Dfm"), tiny, "fp32", 1, threads=1)
    assert runner.facts["filled"] == "fitted to features of 200 x 3"


def test_an_installed_version_without_a_model_says_so(tiny: Bundle, stand_in: types.ModuleType) -> None:
    with pytest.raises(EngineError, match="anomalib has no image model Dfm. Install another version"):
        open_checked(AnomalibRival("Dfm"), tiny, "fp32", 1)


def test_without_anomalib_the_extra_is_named(tiny: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)
    with pytest.raises(MissingExtraError, match=r"anomalib is not installed: pip install 'ndp-rt\[peers\]'"):
        open_checked(AnomalibRival("Dfm"), tiny, "fp32", 1)


@pytest.mark.skipif(not HAS_ANOMALIB, reason="needs anomalib: pip install -e '.[peers]'")
@pytest.mark.parametrize("name", ["Dfkde", "Dfm", "Fastflow"])
def test_the_real_models_run_and_repeat_themselves(tiny: Bundle, name: str) -> None:
    runner, check = open_checked(AnomalibRival(name), tiny, "fp32", 1, threads=1)
    assert check.allowed is not None and check.map_max_abs_difference <= check.allowed
    assert runner.facts["filled"] and runner.facts["input_px"] == [256, 256]
