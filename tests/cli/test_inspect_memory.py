"""Memory that runs out while an image is inspected costs that image, in every way to inspect; the others are done."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt.cli import main
from ndp_rt.folders import recording
from ndp_rt.images.preprocess import Preprocessor
from ndp_rt.inspector import Inspector
from ndp_rt.runtime.session import Session
from tests.cli.test_inspect import read_csv, write_noise

HUGE_PX = 77  # the side of images that are too large for the memory there is
NAMES = ("a.png", "b.png", "c-huge.png", "d-huge.png", "e-bad.png", "f.png", "g-bad.png", "h-huge.png")


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "in").mkdir()
    for name in NAMES:
        write_noise(tmp_path / "in" / name, rng, HUGE_PX if "huge" in name else 70)
        if "bad" in name:
            (tmp_path / "in" / name).write_bytes(b"no image")
    return tmp_path / "in"


def fail_where(is_huge: Callable[..., bool], function: Any, error: Callable[[], Exception]) -> Any:
    """Return the function with an error where it is given a huge image."""

    def call(*arguments: Any, **settings: Any) -> Any:
        if is_huge(*arguments):
            raise error()
        return function(*arguments, **settings)

    return call


def make_cv2_error() -> Exception:
    error = cv2.error("Insufficient memory")
    error.code = cv2.Error.StsNoMem
    return error


def has_huge(*arguments: Any) -> bool:
    return any(isinstance(one, np.ndarray) and one.shape[:1] == (HUGE_PX,) for one in arguments) or any(
        one[:1] == (HUGE_PX,) for one in arguments if isinstance(one, tuple)
    )


PLACES = {
    "preprocessing": (Preprocessor, "convert"),
    "results": (Session, "make_result"),
    "tiles": (Inspector, "inspect_large"),
    "overlays": (recording, "draw_overlay"),
}
WAYS = {
    "stream": ([], ("preprocessing", "results")),
    "batches": (["--batch", "3"], ("preprocessing", "results")),
    "tiles": (["--tiles"], ("tiles",)),
    "overlays": (["--overlays"], ("overlays",)),
}


@pytest.mark.nightly(but=3)
@pytest.mark.parametrize("error", [MemoryError, make_cv2_error])
@pytest.mark.parametrize(("way", "place"), [(way, place) for way, (_, places) in WAYS.items() for place in places])
def test_memory_that_runs_out_costs_one_image(
    tiny_bundle: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    place: str,
    error: Callable[[], Exception],
) -> None:
    options, out = WAYS[way][0], tmp_path / "out"
    arguments = ["inspect", str(tiny_bundle), str(folder), "-o", str(out), "--threads", "1", *options]
    assert main([*arguments, "--overwrite"]) == 4
    expected = {row["path"]: row["score"] for row in read_csv(out / "results.csv") if "huge" not in row["path"]}
    owner, name = PLACES[place]
    monkeypatch.setattr(owner, name, fail_where(has_huge, getattr(owner, name), error))
    assert main([*arguments, "--overwrite"]) == 4
    rows = read_csv(out / "results.csv")
    assert [Path(row["path"]).name for row in rows] == list(NAMES)
    for row in rows:
        if "huge" in row["path"]:
            assert row["status"] == "error" and "expected enough memory to inspect it" in row["error"]
        else:
            assert (
                row["status"] == ("error" if "bad" in row["path"] else "ok") and row["score"] == expected[row["path"]]
            )


def test_another_error_ends_the_run(
    tiny_bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = fail_where(has_huge, Session.make_result, lambda: ZeroDivisionError("a mistake"))
    monkeypatch.setattr(Session, "make_result", broken)
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        main(["inspect", str(tiny_bundle), str(folder), "-o", str(tmp_path / "out"), "--threads", "1"])
