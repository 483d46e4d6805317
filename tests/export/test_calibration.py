"""Held-out good images: thresholds through the bundle's own graph, and images that a bundle carries."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load

from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import EngineError
from ndp_rt.export.models.ndpnet.program import export_network
from ndp_rt.export.onnx import calibration as module
from ndp_rt.export.onnx.bundle import write_graphs
from ndp_rt.export.onnx.calibration import find_thresholds, list_precisions, pack_calibration_images, score_images
from ndp_rt.export.onnx.golden import score_maps, to_input
from ndp_rt.export.training.run_folder import load_run
from tests.export.random_run import random_image, random_network, write_random_run
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return random_network()


@pytest.fixture(scope="module")
def fused(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(export_network(network, rewrite=True), folder, weights="fp32")
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
    thresholds = find_thresholds(fused, paths, read_input, false_alarm_rate=None, progress=lines.append)
    assert tuple(thresholds) == list_precisions()
    for precision, threshold in thresholds.items():
        assert threshold.value > max(score_images(fused, precision, 2, read_input))
        assert threshold.good_image_count == 2
    assert len(lines) == len(thresholds)


def test_bf16_is_calibrated_where_the_processor_has_it():
    assert ("bf16" in list_precisions()) == find_cpu().has_bf16


def test_without_images_there_is_no_threshold_and_a_reason(fused):
    lines = []
    thresholds = find_thresholds(fused, [], read_input, false_alarm_rate=None, progress=lines.append)
    assert all(one.source == "none" and "held no good images out" in one.note for one in thresholds.values())
    assert lines


def test_a_score_that_is_not_finite_is_refused(fused, monkeypatch):
    monkeypatch.setattr(module, "score_maps", lambda maps: np.array([np.nan], np.float32))
    with pytest.raises(EngineError, match="good image 1 of 2"):
        score_images(fused, "fp32", 2, read_input)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that held five images out, the second of them grey."""
    path = write_random_run(tmp_path_factory.mktemp("surface"), held_out_count=5)
    run = load_run(path)
    grey = cv2.imread(str(run.calibration_paths[1]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(run.calibration_paths[1]), grey)
    return run


def to_bytes(run, index):
    return np.rint(run.read_input(run.calibration_paths[index])[0] * 255.0).astype(np.uint8)


def test_fewer_than_were_held_out_are_spread_over_them(run):
    good = load(pack_calibration_images(run, 2))["good"]
    assert np.array_equal(good, [to_bytes(run, 0), to_bytes(run, 2)])


def test_more_than_were_held_out_are_all_of_them(run):
    assert len(load(pack_calibration_images(run, 99))["good"]) == 5


def test_grey_ones_are_stored_as_one_channel(run):
    good = load(pack_calibration_images(replace(run, calibration_paths=run.calibration_paths[1:2]), 8))["good"]
    assert good.shape == (1, 1, 64, 64) and np.array_equal(good[0], to_bytes(run, 1)[:1])


def test_none_make_no_file(run):
    assert pack_calibration_images(run, 0) is None
