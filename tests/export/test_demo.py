"""Making the package's demo: the default commands' bundle, test images evenly spaced, no folder of this machine."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.errors import RunError
from ndp_rt.evaluate.dataset import Sample, list_samples
from ndp_rt.export.demo import choose_evenly, make_demo
from tests.export.tiny_run import write_surface


@pytest.fixture
def data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A category in MVTec AD's layout; one defective image has no mask."""
    folder = tmp_path / "surface"
    write_surface(folder / "train" / "good", count=6)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 10:50] = 255
    names = [f"test/{kind}/{index}" for kind, count in (("good", 9), ("cut", 4)) for index in range(count)]
    images = {name: rng.integers(90, 120, mask.shape, dtype=np.uint8) for name in names}
    for name, pixels in (images | {f"ground_truth/cut/{index}_mask": mask for index in range(3)}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / f"{name}.png"), pixels)
    return folder


@pytest.mark.nightly
@pytest.mark.torch
def test_bundle_and_images_replace_those_that_are_there(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("demo.ndp/old.onnx", "demo/test/bent/old.png", "demo/README.txt"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("of before")
    make_demo(data, out, ["--model", "gaussian", "--size", "64", "--threads", "1"])
    bundle = open_bundle(out / "demo.ndp")
    assert not (out / "demo.ndp" / "old.onnx").exists() and str(tmp_path) not in str(bundle.manifest.provenance)
    assert bundle.manifest.provenance["commands"] == [
        "ndp-rt train surface -o run --model gaussian --size 64 --threads 1",
        "ndp-rt export run -o demo.ndp --weights fp16",
    ]
    found = list_samples(out / "demo")
    assert [f"{one.kind}/{one.path.name}" for one in found] == [
        *(f"good/{index}.png" for index in (1, 3, 5, 7)),
        *(f"cut/{index}.png" for index in range(3)),
    ]
    assert all(one.is_good or one.mask_paths for one in found)
    assert found[0].path.read_bytes() == (data / "test" / "good" / "1.png").read_bytes()
    assert (out / "demo" / "README.txt").read_text() == "of before"


def test_images_are_evenly_spaced() -> None:
    samples = [Sample(path=Path(f"{index:02}.png"), kind="good") for index in range(15)]
    assert [one.path.stem for one in choose_evenly(samples, 4)] == ["01", "05", "09", "13"]
    assert choose_evenly(samples[:3], 4) == samples[:3]


def test_a_training_that_fails_leaves_what_is_there(data: Path, tmp_path: Path) -> None:
    kept = tmp_path / "out" / "demo.ndp" / "manifest.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("of before")
    with pytest.raises(RunError, match="ndp-rt train: expected exit code 0, got 2"):
        make_demo(data, tmp_path / "out", ["--size", "none"])
    assert kept.read_text() == "of before"
