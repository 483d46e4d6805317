"""Calibration through the bundle's own graph: thresholds for each precision, from images read one at a time."""

import numpy as np
import pytest
import torch

from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import EngineError
from ndp_rt.export import calibrate as module
from ndp_rt.export.calibrate import calibrate, list_precisions, score_images
from ndp_rt.export.export import ExportSettings, write_graphs
from ndp_rt.export.golden import score_maps, to_input
from ndp_rt.export.stages import build_stages
from tests.export.random_run import random_image, random_network
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return random_network()


@pytest.fixture(scope="module")
def fused(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(build_stages(network, rewrite=True), folder, ExportSettings())
    return folder / "fused.onnx"


def read_input(index):
    return to_input(random_image(index))


def test_scores_are_those_of_pytorch(fused, network):
    scores = score_images(fused, "fp32", 3, read_input)
    with torch.no_grad():
        maps = [network(torch.from_numpy(read_input(index)))[0].numpy() for index in range(3)]
    assert_close(scores, score_maps(np.concatenate(maps)), "map", "float32")


def test_every_precision_gets_a_threshold_of_its_own(fused, tmp_path):
    lines = []
    paths = [tmp_path / "a", tmp_path / "b"]
    thresholds = calibrate(fused, paths, read_input, false_alarm_rate=None, progress=lines.append)
    assert tuple(thresholds) == list_precisions()
    for precision, threshold in thresholds.items():
        assert threshold.value > max(score_images(fused, precision, 2, read_input))
        assert threshold.good_image_count == 2
    assert len(lines) == len(thresholds)


def test_bf16_is_calibrated_where_the_processor_has_it():
    assert ("bf16" in list_precisions()) == find_cpu().has_bf16


def test_without_images_there_is_no_threshold_and_a_reason(fused):
    lines = []
    thresholds = calibrate(fused, [], read_input, false_alarm_rate=None, progress=lines.append)
    assert all(one.source == "none" and "held no good images out" in one.note for one in thresholds.values())
    assert lines


def test_a_score_that_is_not_finite_is_refused(fused, monkeypatch):
    monkeypatch.setattr(module, "score_maps", lambda maps: np.array([np.nan], np.float32))
    with pytest.raises(EngineError, match="good image 1 of 2"):
        score_images(fused, "fp32", 2, read_input)
