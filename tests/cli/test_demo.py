"""`ndp-rt demo`: table, overlays, and a page that needs no other file."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.bundle.open import open_bundle
from ndp_rt.cli import main
from ndp_rt.cli.demo_page import BUNDLE, CREDIT, IMAGES, find_credit
from ndp_rt.evaluate.dataset import list_samples
from ndp_rt.images.preprocess import preprocess
from ndp_rt.images.read import read_image


@pytest.fixture
def photographs(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Labelled photographs in MVTec AD's layout; a name comes in two kinds."""
    folder = tmp_path / "photographs"
    mask = np.zeros((128, 128), np.uint8)
    mask[40:60, 30:90] = 255
    names = "test/good/0", "test/good/1", "test/cut/0"
    images = {name: rng.integers(0, 256, mask.shape, dtype=np.uint8) for name in names}
    for name, pixels in (images | {"ground_truth/cut/0_mask": mask}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / f"{name}.png"), pixels)
    (folder / CREDIT).write_text("By <somebody>, freely licensed.\n\nMore at length.\n")
    return folder


class PageReader(HTMLParser):
    """Collects what a page refers to, and its open tags."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "line", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass


def test_writes_table_overlays_and_page(
    tiny_bundle: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["demo", "-o", str(out), "--bundle", str(tiny_bundle), "--images", str(photographs), "--threads", "1"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for word in ("0.png", "cut", "score", "decision", "ms", str(out / "index.html"), "of 1 anomaly maps peak inside"):
        assert word in text
    assert "\nBy <somebody>, freely licensed.\n" in text and "at length" not in text
    assert sorted(path.name for path in (out / "overlays").iterdir()) == ["cut-0.png", "good-0.png", "good-1.png"]
    page = (out / "index.html").read_text(encoding="utf-8")
    reader = PageReader()
    reader.feed(page)
    assert not reader.open
    assert len(reader.references) == 3 and all(value.startswith("data:image/jpeg") for value in reader.references)
    assert not re.search(r"@[a-z]+@|https?://", page.split("<details>")[0])
    assert page.count("By &lt;somebody&gt;") == 2 and page.count("More at length.") == 1
    assert main(arguments) == 0  # over its own files


def test_a_wrong_decision_is_said(
    tiny_bundle: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = Path(shutil.copytree(tiny_bundle, tmp_path / "tiny.ndp")), tmp_path / "out"
    assert main(["set-threshold", str(bundle), "1.0"]) == 0  # nothing reaches it: the cut is missed
    assert main(["demo", "-o", str(out), "--bundle", str(bundle), "--images", str(photographs), "--threads", "1"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"cut +0\.\d+ +good \(wrong\)", text) and ": 2 of 3 decisions as they should be." in text
    page = (out / "index.html").read_text(encoding="utf-8")
    assert page.count("<b>WRONG</b>") == 1 and "0 of 1</b>defective photographs found" in page
    assert "of 1</b>anomaly maps peak" in page


def test_says_so_when_its_photographs_are_missing(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-o", str(tmp_path), "--bundle", str(tiny_bundle), "--images", str(tmp_path)]) == 1
    assert "expected a folder 'test', got nothing" in capsys.readouterr().err


def test_the_packages_own_demo_finds_real_defects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path)]) == 0
    text, count = capsys.readouterr().out, len(list_samples(IMAGES))
    found = {what: int(share) for share, what in re.findall(r"(\d+) of \d+ (decisions|anomaly maps)", text)}
    assert found["decisions"] >= 0.8 * count
    defects = [sample for sample in list_samples(IMAGES) if not sample.is_good]
    assert found["anomaly maps"] >= 0.8 * len(defects) and all(sample.mask_paths for sample in defects)
    assert len(list((tmp_path / "overlays").iterdir())) == count
    assert "CC BY 4.0" in text


def test_the_packages_demo_is_small_and_names_its_source() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) <= 8e6
    credit = find_credit(IMAGES)
    for word in ("Bianconi", "PIPED", "CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/", "changed", "github"):
        assert word in credit


def test_no_demo_image_was_trained_on() -> None:
    """The bundle carries good images of its training folder; those of the demo are others."""
    bundle = open_bundle(BUNDLE)
    known = bundle.calibration_images()
    assert known is not None and len(known) >= 4
    shown = np.empty(known.shape[1:], np.float32)
    for sample in list_samples(IMAGES):
        preprocess(read_image(sample.path), bundle.manifest.input, shown)
        assert min(float(np.abs(shown - one / 255.0).mean()) for one in known) > 0.01, sample.path.name
