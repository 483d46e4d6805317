"""Distillation: its losses, and training with a teacher from the beginning to the bundle's provenance."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ndp_rt.errors import InputError, RunError
from ndp_rt.export.models.ndpnet.distil import Distiller
from ndp_rt.export.models.ndpnet.network import NDPNet
from ndp_rt.export.models.ndpnet.program import export_run
from ndp_rt.export.models.ndpnet.settings import DistilSettings, NdpNetSettings
from ndp_rt.export.models.ndpnet.training import phase_losses, start_phase
from ndp_rt.export.onnx.bundle import ExportSettings, _trace_origin
from ndp_rt.export.training import loop as training
from ndp_rt.export.training.checkpoint import load_tensors
from ndp_rt.export.training.progress import read_losses
from ndp_rt.export.training.run_folder import load_run, open_run
from tests.export.random_run import random_network
from tests.export.tiny_run import train_tiny, write_surface

pytestmark = [pytest.mark.torch, pytest.mark.nightly]
BOTH = {"distil": {"maps": 1.0, "features": 0.5}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_surface(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run, wider than the student."""
    return train_tiny(data, tmp_path_factory.mktemp("runs") / "teacher", changes={"width": 6}).path


@pytest.fixture(scope="module")
def taught(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's run that nobody disturbed, with maps and features."""
    return train_tiny(data, tmp_path_factory.mktemp("runs") / "taught", teacher=teacher, **BOTH).path


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without a teacher."""
    return train_tiny(data, tmp_path_factory.mktemp("runs") / "plain").path


def load_weights(run: Path) -> dict[str, Tensor]:
    return load_tensors(run / "model.safetensors")[0]


def find_differences(run: Path, other: Path) -> list[str]:
    weights, others = load_weights(run), load_weights(other)
    assert weights.keys() == others.keys()
    return [name for name in weights if not torch.equal(weights[name], others[name])]


def make_batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    good = torch.rand(2, 3, 64, 64, generator=generator)
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 10:20, 10:20] = 1.0
    return good, torch.where(mask > 0, 1.0 - good, good), mask


def step_losses(student: NDPNet, phase: int, distil: DistilSettings, teacher: NDPNet) -> dict[str, Tensor]:
    settings = NdpNetSettings(width=4, height_px=64, width_px=64, crop_px=64, distil=distil)
    distiller = Distiller(teacher, 4, distil)
    start_phase(student, phase, settings)
    return phase_losses(student, phase, *make_batch(), None, settings, distiller)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_its_maps() -> None:
    network = random_network(seed=1)
    student = NDPNet(4, 64, 64)
    student.load_state_dict(network.state_dict())
    _, defective, _ = make_batch()
    distiller = Distiller(network, 4, DistilSettings())
    loss = distiller.phase_2_losses(defective, student.eval().run(defective).map_logits)["dist_map"]
    assert abs(loss.item()) < 1e-6


def test_each_phase_gets_its_part_and_only_the_parts_that_weigh_something() -> None:
    student, teacher = random_network(seed=1), random_network(seed=2)
    maps, features = DistilSettings(maps=1.0, features=0.0), DistilSettings(maps=0.0, features=1.0)
    assert "dist_map" in step_losses(student, 2, maps, teacher)
    assert not {"dist_map", "dist_fea"} & step_losses(student, 1, maps, teacher).keys()
    assert "dist_fea" in step_losses(student, 1, features, teacher)
    assert not {"dist_map", "dist_fea"} & step_losses(student, 2, features, teacher).keys()


@pytest.mark.parametrize(("phase", "name"), [(1, "dist_fea"), (2, "dist_map")])
def test_the_weight_scales_the_loss(phase: int, name: str) -> None:
    teacher = random_network(seed=2)
    found = []
    for weight in (1.0, 3.0):
        torch.manual_seed(0)  # of the projections
        distil = DistilSettings(maps=weight, features=weight)
        found.append(step_losses(random_network(seed=1), phase, distil, teacher)[name].item())
    assert found[0] > 0.0
    assert found[1] == pytest.approx(3.0 * found[0], rel=1e-5)


def test_the_teacher_neither_learns_nor_moves_its_statistics() -> None:
    teacher = random_network(seed=2)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = random_network(seed=1)
    for phase in (1, 2):
        losses = step_losses(student, phase, DistilSettings(maps=1.0, features=1.0), teacher)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_map_imitation_teaches_decoder_and_comparison_but_not_the_frozen_encoder() -> None:
    student = random_network(seed=1)
    step_losses(student, 2, DistilSettings(), random_network(seed=2))["dist_map"].backward()
    moved = {name.split(".")[0] for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"ffm", "decoder", "msdsm"}


@pytest.mark.nightly(but=1)  # it takes less than a second, unlike the others
def test_feature_imitation_trains_the_projections_with_the_encoder() -> None:
    student, distil = random_network(seed=1), DistilSettings(maps=0.0, features=1.0)
    distiller = Distiller(random_network(seed=2), 4, distil)
    images = make_batch()[0]
    distiller.phase_1_losses(images, student.encoder(images))["dist_fea"].backward()
    projections = distiller.parameters(1)
    assert len(projections) == 10  # weight and bias of five levels
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in projections)
    assert distiller.parameters(2) == []
    assert Distiller(random_network(seed=2), 4, DistilSettings()).parameters(1) == []


def test_a_teacher_changes_what_is_learned_and_its_losses_are_written(plain: Path, taught: Path) -> None:
    assert find_differences(plain, taught)
    rows = read_losses(taught / "losses.csv")
    assert "dist_fea" in rows[0] and "dist_map" in rows[1]
    assert (plain / "losses.csv").read_text().splitlines()[0].endswith("fea_rep,seg")
    assert "distil" not in open_run(plain)[1]["settings"]


def test_without_features_phase_1_is_that_of_a_run_without_a_teacher(
    data: Path, teacher: Path, plain: Path, tmp_path: Path
) -> None:
    run = train_tiny(data, tmp_path / "run", teacher=teacher).path
    differences = find_differences(run, plain)
    assert {name.split(".")[0] for name in differences} == {"ffm", "decoder", "msdsm"}


def test_the_student_has_the_form_of_its_own_preset(taught: Path) -> None:
    NDPNet(4, 64, 64).load_state_dict(load_weights(taught))


@pytest.mark.parametrize("step_count", [2, 4, 6])
def test_a_stopped_distillation_resumes_to_the_same_weights(
    step_count: int, data: Path, teacher: Path, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = training.Trainer._step, 0

    def counted(self: training.Trainer, phase: int, batch: Any) -> dict[str, float]:
        nonlocal done
        done += 1
        if done > step_count:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, phase, batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_step", counted)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(data, tmp_path / "run", teacher=teacher, **BOTH)
    train_tiny(data, tmp_path / "run", teacher=teacher, **BOTH, resumes=True)
    assert find_differences(tmp_path / "run", taught) == []


def test_refuses_to_resume_with_another_teacher_or_with_none(data: Path, teacher: Path, taught: Path) -> None:
    for other in (taught.parent / "other", None):
        if other is not None:
            train_tiny(data, other, seed=1)
        changes = BOTH if other is not None else {}
        with pytest.raises(RunError, match="was trained with other --teacher file. Resume with the same options"):
            train_tiny(data, taught, teacher=other, **changes, resumes=True)
    with pytest.raises(RunError, match="other distil"):
        train_tiny(data, taught, teacher=teacher, resumes=True)
    train_tiny(data, taught, teacher=teacher, **BOTH, resumes=True)


def test_refuses_to_resume_a_plain_run_with_a_teacher(data: Path, teacher: Path, plain: Path) -> None:
    with pytest.raises(RunError, match="was trained with other --teacher file"):
        train_tiny(data, plain, teacher=teacher, resumes=True)


def test_a_run_is_not_its_own_teacher(data: Path, teacher: Path) -> None:
    for resumes in (False, True):
        with pytest.raises(RunError, match="is the run to be trained itself"):
            train_tiny(data, teacher, teacher=teacher, resumes=resumes)


def test_a_teacher_that_does_not_do_leaves_no_folder(data: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got one for 64 x 64 px"):
        train_tiny(data, tmp_path / "run", teacher=teacher, changes={"height_px": 128})
    with pytest.raises(RunError, match="is not there"):
        train_tiny(data, tmp_path / "run", teacher=tmp_path / "nothing")
    assert not (tmp_path / "run").exists()


def test_says_who_teaches_and_when_it_may_have_seen_the_calibration_images(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_tiny(data, tmp_path / "same", teacher=teacher)
    text = capsys.readouterr().err
    assert f"teacher: {teacher}, preset edge, width 6" in text
    assert "trained on other images" not in text
    train_tiny(data, tmp_path / "other", teacher=teacher, seed=1)  # another seed holds out another image
    assert "trained on other images" in capsys.readouterr().err


def test_a_bundles_provenance_names_the_teacher(taught: Path, teacher: Path) -> None:
    run = load_run(taught)
    origin = _trace_origin(run.document, export_run(run, rewrite=True, weights="fp32").provenance, ExportSettings())
    assert origin["teacher"]["name"] == "teacher"
    assert origin["teacher"]["width"] == 6
    assert origin["settings"]["distil"] == BOTH["distil"]
    assert str(teacher.parent) not in str(origin["teacher"])
