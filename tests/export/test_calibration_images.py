"""The good images that a bundle carries: which ones, and how they are stored."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from safetensors.numpy import load

from ndp_rt.export.calibration_images import pack_calibration_images
from ndp_rt.export.trained_run import load_run, read_inputs
from tests.export.random_run import write_random_run

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that held five images out, the second of them grey."""
    path = write_random_run(tmp_path_factory.mktemp("surface"), held_out_count=5)
    run = load_run(path)
    grey = cv2.imread(str(run.calibration_paths[1]), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(run.calibration_paths[1]), grey)
    return run


def to_bytes(run, index):
    return np.rint(read_inputs(run, run.calibration_paths[index])[0] * 255.0).astype(np.uint8)


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
