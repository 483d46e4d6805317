"""Held-out good images: thresholds through the bundle's own graph, and images that a bundle carries."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load

from ndp_rt.devices.machine import find_cpu
from ndp_rt.errors import EngineError
from ndp_rt.export.models.ndpnet.program import read_network
from ndp_rt.export.onnx.bundle import export_run
from ndp_rt.export.onnx.calibration import find_thresholds, list_precisions, pack_calibration_images, score_images
from ndp_rt.export.onnx.golden import score_maps
from ndp_rt.export.training.run_folder import load_run
from ndp_rt.images.variations import vary
from tests.export.random_run import write_random_run
from tests.tolerances import assert_close

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that held five images out, the second of them grey."""
    path = write_random_run(tmp_path_factory.mktemp("surface"), held_out_count=5)
    run = load_run(path)
    grey = cv2.imread(str(run.calibration_paths[1]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(run.calibration_paths[1]), grey)
    return run


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    torch.set_num_threads(1)
    return export_run(run.folder.path, tmp_path_factory.mktemp("out") / "surface.ndp").bundle


def test_scores_are_those_of_pytorch(bundle, run):
    network = read_network(run)
    with torch.no_grad():
        maps = [network(torch.from_numpy(run.read_input(path)))[0].numpy() for path in run.calibration_paths]
    expected = score_maps(np.concatenate(maps), bundle.manifest.decision)
    scores = score_images(bundle, run, "fp32")
    assert scores.shape == (5, 8)
    assert_close(scores[:, 0], expected, "map", "float32")
    with torch.no_grad():
        varied = network(torch.from_numpy(vary(run.read_input(run.calibration_paths[0])[0])))[0].numpy()
    assert_close(scores[0, 1:], score_maps(varied, bundle.manifest.decision), "map", "float32")


@pytest.mark.nightly
def test_every_precision_gets_a_threshold_of_its_own(bundle, run):
    lines = []
    thresholds = find_thresholds(bundle, run, false_alarm_rate=None, threads=1, progress=lines.append)
    assert tuple(thresholds) == list_precisions()
    for precision, threshold in thresholds.items():
        assert threshold.value > score_images(bundle, run, precision).max(axis=1).mean()
        assert threshold.good_image_count == threshold.group_count == 5
    assert len(lines) == len(thresholds)


def test_images_of_one_group_count_as_one(bundle, run):
    grouped = replace(run, calibration_groups=("a", "a", "b", "b", "b"))
    threshold = find_thresholds(bundle, grouped, false_alarm_rate=None, threads=1, progress=print)["fp32"]
    assert (threshold.good_image_count, threshold.group_count) == (5, 2)
    assert "2 independent group(s) of good images (5 images), light, focus and position varied," in threshold.note


def test_bf16_is_calibrated_where_the_processor_has_it():
    assert ("bf16" in list_precisions()) == find_cpu().has_bf16


def test_without_images_there_is_no_threshold_and_a_reason(bundle, run):
    lines, without = [], replace(run, calibration_paths=())
    thresholds = find_thresholds(bundle, without, false_alarm_rate=None, threads=1, progress=lines.append)
    assert all(one.source == "none" and "held no good images out" in one.note for one in thresholds.values())
    assert lines


def test_a_score_that_is_not_finite_is_refused(bundle, run, monkeypatch):
    def fail(*arguments):
        raise EngineError("the map holds NaN")

    monkeypatch.setattr("ndp_rt.runtime.host.HostExecutor.run", fail)
    with pytest.raises(EngineError, match=r"good image .*good_0\.png in fp32: the map holds NaN Train again"):
        score_images(bundle, run, "fp32")


def to_bytes(run, index):
    return np.rint(run.read_input(run.calibration_paths[index])[0] * 255.0).astype(np.uint8)


def test_fewer_than_were_held_out_are_spread_over_them(run):
    good = load(pack_calibration_images(run, 2))["good"]
    assert np.array_equal(good, [to_bytes(run, 0), to_bytes(run, 2)])


def test_the_groups_of_images_are_carried_along(run, tmp_path):
    tensors = load(pack_calibration_images(replace(run, calibration_groups=("b", "a", "a", "b", "c")), 5))
    assert tensors["group"].tolist() == [1, 0, 0, 1, 2] and tensors["group"].dtype == np.int32


def test_more_than_were_held_out_are_all_of_them(run):
    assert len(load(pack_calibration_images(run, 99))["good"]) == 5


def test_grey_ones_are_stored_as_one_channel(run):
    good = load(pack_calibration_images(replace(run, calibration_paths=run.calibration_paths[1:2]), 8))["good"]
    assert good.shape == (1, 1, 64, 64) and np.array_equal(good[0], to_bytes(run, 1)[:1])


def test_none_make_no_file(run):
    assert pack_calibration_images(run, 0) is None
