"""Settings: what the presets are, and values that are refused."""

import json
from typing import Any

import pytest

from ndp_rt.errors import InputError
from ndp_rt.export.models.ndpnet.settings import DistilSettings, LossWeights, NdpNetSettings, preset_settings
from ndp_rt.export.training.loop import learning_rate
from ndp_rt.export.training.settings import steps_of_epochs

pytestmark = pytest.mark.torch


def test_preset_paper_follows_the_spec() -> None:
    settings = preset_settings("paper")
    assert settings.width == 64
    assert settings.learning_rate == 1e-4
    assert settings.weight_decay == 1e-5
    assert settings.schedule == "constant"
    assert settings.crop_px == settings.height_px == 256
    assert settings.freezes_encoder
    assert settings.weights == LossWeights(rec=100.0, per=1.0, def_per=1.0, fea_rep=1.0, seg=1.0)


def test_preset_edge_has_width_16() -> None:
    assert preset_settings("edge").width == 16


def test_whole_images_are_seen_where_the_input_is_not_square() -> None:
    assert preset_settings("paper", height_px=128, width_px=512).crop_px == 512


def test_settings_survive_json() -> None:
    settings = preset_settings("edge", seed=3, phase_steps=(7, 9))
    assert NdpNetSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_px", 100),
        ("width", 3),
        ("batch_size", 0),
        ("phase_steps", (0, 5)),
        ("learning_rate", 0.0),
        ("holdout", 1.0),
        ("seed", -1),
        ("seed", 2**63),
        ("thread_count", 0),
        ("height_px", 100),
    ],
)
def test_rejects_values_out_of_range_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        preset_settings("edge", **{name: value})


def test_single_fields_of_defects_and_augment_are_changed() -> None:
    settings = preset_settings("edge", defects={"scratch": 1.0, "speck": 0.0}, augment={"spot_share": 0.5})
    assert settings.defects.scratch == 1.0
    assert settings.defects.texture == NdpNetSettings().defects.texture
    assert settings.augment.spot_share == 0.5


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("defects", {"lines": 1.0}),
        ("defects", {"scratch": 2.0}),
        ("defects", {"smallest_opacity": -0.1}),
        ("augment", {"brightness": -0.1}),
        ("augment", {"contrast": float("inf")}),
        ("augment", {"noise": float("nan")}),
        ("augment", {"zoom": 1000.0}),
        ("augment", {"turn_degrees": 181.0}),
        ("augment", {"spot_share": 1.1}),
    ],
)
def test_rejects_unknown_fields_and_numbers_out_of_range(option: str, value: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"--{option}.*{next(iter(value))}"):
        preset_settings("edge", **{option: value})


def test_rejects_an_unknown_preset() -> None:
    with pytest.raises(InputError, match="edge or paper"):
        preset_settings("huge")


@pytest.mark.parametrize(("image_count", "expected"), [(10, (6, 4)), (1, (3, 2)), (8, (3, 2))])
def test_an_epoch_sees_every_image(image_count: int, expected: tuple[int, int]) -> None:
    assert steps_of_epochs((3, 2), image_count, 8) == expected


def test_the_cosine_schedule_rises_then_falls_to_a_hundredth() -> None:
    settings = preset_settings("edge", phase_steps=(1000, 200), learning_rate=0.01)
    rates = [learning_rate(step, 1, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01 / 100, rel=1e-3)
    assert max(rates) == pytest.approx(0.01, rel=0.05)
    assert rates[-1] == pytest.approx(0.0001, rel=0.01)
    assert rates[200:] == sorted(rates[200:], reverse=True)


def test_the_constant_schedule_is_constant() -> None:
    settings = preset_settings("paper", phase_steps=(5, 5))
    assert {learning_rate(step, phase, settings) for step in range(5) for phase in (1, 2)} == {1e-4}


def test_settings_of_a_distillation_survive_json() -> None:
    settings = preset_settings("edge", distil=DistilSettings(maps=2.0, features=0.25))
    assert NdpNetSettings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_settings_without_a_teacher_are_written_as_before_there_were_any() -> None:
    assert "distil" not in preset_settings("edge").to_json()


@pytest.mark.parametrize(
    ("weights", "option"),
    [
        ({"maps": -1.0}, "--distil-weight: .* got -1"),
        ({"maps": float("nan")}, "--distil-weight: .* got nan"),
        ({"maps": 1001.0}, "--distil-weight: .* got 1001"),
        ({"features": float("inf")}, "--distil-features: .* got inf"),
        ({"maps": 0.0, "features": 0.0}, "got 0 for both"),
    ],
)
def test_rejects_weights_of_a_distillation_out_of_range(weights: dict[str, float], option: str) -> None:
    with pytest.raises(InputError, match=option):
        DistilSettings(**weights)
