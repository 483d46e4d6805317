"""`ndp-rt demo`: table, overlays, and a page that needs no other file."""

import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from ndp_rt.cli import main
from ndp_rt.cli.demo_page import BUNDLE, IMAGES


@pytest.fixture
def photographs(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("good_000", "good_001", "defect_scratch", "mask_scratch"):
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 256, (128, 128), dtype=np.uint8))
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
    for word in ("good_000.png", "painted scratch", "score", "decision", "ms", str(out / "index.html"), "painted in"):
        assert word in text
    assert sorted(path.name for path in (out / "overlays").iterdir()) == [
        "defect_scratch.png",
        "good_000.png",
        "good_001.png",
    ]
    page = (out / "index.html").read_text(encoding="utf-8")
    reader = PageReader()
    reader.feed(page)
    assert not reader.open
    assert len(reader.references) == 3 and all(value.startswith("data:image/jpeg") for value in reader.references)
    assert not re.search(r"@[a-z]+@|https?://", page.split("<details>")[0])
    assert main(arguments) == 0  # over its own files


def test_says_so_when_its_photographs_are_missing(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "-o", str(tmp_path), "--bundle", str(tiny_bundle), "--images", str(tmp_path)]) == 1
    assert "expected photographs good_*.png and defect_*.png" in capsys.readouterr().err


@pytest.mark.skipif(not BUNDLE.is_dir(), reason="the package's demo bundle is missing: see ndp_rt/data")
def test_the_packages_own_demo_tells_good_from_painted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "-o", str(tmp_path)]) == 0
    count = len(list(IMAGES.glob("good_*.png"))) + len(list(IMAGES.glob("defect_*.png")))
    right = int(capsys.readouterr().out.split(" decisions as they should be")[0].split()[-3])  # "... 8 of 9"
    assert right >= 0.8 * count
    assert len(list((tmp_path / "overlays").iterdir())) == count
