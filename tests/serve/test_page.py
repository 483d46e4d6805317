"""What the page for people asks for, and what is kept for it in bounded memory."""

import json
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ndp_rt import Inspector, Result
from ndp_rt.bundle import open_bundle
from ndp_rt.cli.demo_page import BUNDLE, IMAGES
from ndp_rt.decide.regions import Defect
from ndp_rt.images.read import read_image
from ndp_rt.serve.drift import FIRST_COUNT, LAST_COUNT, Drift
from ndp_rt.serve.history import PICTURE_COUNT, ROW_COUNT, History, Row, measure_rate
from ndp_rt.serve.monitor import ModelWatch, Monitor
from ndp_rt.serve.nearest_good import find_nearest, list_good
from ndp_rt.serve.page import FILES, describe_nearest
from ndp_rt.serve.pictures import Drawn, draw
from tests.serve.conftest import Served, describe_image, make_image

TINY = "model=tiny&version=2"
IMAGE = make_image(0, 40, 50)


def make_result(score: float = 0.5, threshold: float = 0.6, *, has_map: bool = False, **more: Any) -> Result:
    is_defect = score >= threshold
    box = Defect(x_px=10, y_px=20, width_px=5, height_px=10, area_px=50, peak=score)
    defects = (box,) if is_defect else ()
    size = (40, 50) if has_map else (0, 0)
    anomaly_map = np.zeros(size, np.float32)
    anomaly_map[20:30, 10:15] = score
    values = dict(score=score, threshold=threshold, is_defect=is_defect, defects=defects, anomaly_map=anomaly_map)
    return Result(**{**values, "timings_ms": {"total": 2.0}, **more})


def ask(served: Served, path: str, **headers: str) -> Any:
    status, body = served.ask("GET", path, **headers)
    assert status == 200, body
    return json.loads(body)


def ask_for_picture(served: Served, document: dict[str, Any]) -> dict[str, Any]:
    """Send images while a page is open until one has been drawn with its map, and return what is told of it."""
    after = ask(served, f"/page/data?{TINY}")["image_count"]
    while True:
        assert served.infer(document)[0] == 200
        drawn = ask(served, f"/page/data?{TINY}&pictures_after={after}")["pictures"]
        if with_heat := [one for one in drawn if one["has_heat"]]:
            return with_heat[-1]


def test_rows_and_figures_are_those_of_the_answers(served: Served) -> None:
    before = ask(served, f"/page/data?{TINY}")
    status, answer = served.infer(describe_image(np.stack([IMAGE, make_image(1, 40, 50)])))
    assert status == 200
    scores, threshold, decisions = (answer["outputs"][index]["data"] for index in range(3))
    found = ask(served, f"/page/data?{TINY}&after={before['image_count']}&pictures_after=99999999")
    assert [row[2] for row in found["rows"]] == scores and found["threshold"] == threshold[0]
    assert [bool(row[4]) for row in found["rows"]] == decisions and found["pictures"] == []
    assert [row[0] for row in found["rows"]] == [before["image_count"] + 1, before["image_count"] + 2]
    assert found["image_count"] == before["image_count"] + 2
    assert found["defect_count"] - before["defect_count"] == sum(decisions)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["p99"] and found["id"] == before["id"]


def test_pictures_are_those_of_the_images(served: Served) -> None:
    found = ask_for_picture(served, describe_image(IMAGE))
    assert (found["width_px"], found["height_px"]) == (50, 40) and found["score"] is not None
    assert found["brightness"] == pytest.approx(IMAGE.mean() / 255)
    for kind in ("image", "heat"):
        status, jpeg = served.ask("GET", f"/page/picture?{TINY}&number={found['number']}&kind={kind}")
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert status == 200 and picture.shape == (240, 300, 3)
        if kind == "image":
            shown = cv2.resize(picture, (50, 40), interpolation=cv2.INTER_AREA)[:, :, ::-1]
            assert np.corrcoef(shown.ravel(), IMAGE.ravel())[0, 1] > 0.9
    number, own = found["number"], ask(served, f"/page/data?{TINY}")["id"]
    for kind in ("picture", "nearest"):  # of the service that counted it, and no other
        for id, expected in ((own, 200), ("another", 404)):
            assert served.ask("GET", f"/page/{kind}?{TINY}&number={number}&id={id}")[0] == expected
    nearest = ask(served, f"/page/nearest?{TINY}&number={number}")
    assert nearest == {"source": "", "good_count": 0, "places": []}  # its reference is no picture


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/page/data?model=other&version=1", 404),
        ("/page/data?model=tiny&version=9", 404),
        ("/page/data", 404),
        (f"/page/data?{TINY}&after=-1", 400),
        (f"/page/data?{TINY}&after=1e3", 400),
        (f"/page/data?{TINY}&pictures_after={'9' * 400}", 400),
        (f"/page/picture?{TINY}&number=9007199254740991", 404),
        (f"/page/picture?{TINY}&number=x", 400),
        (f"/page/nearest?{TINY}&number=9007199254740991", 404),
        ("/page/picture", 404),
        ("/page/../data", 404),
        ("/page/page.html", 404),
    ],
)
def test_what_the_page_cannot_have_is_told(served: Served, path: str, expected: int) -> None:
    status, body = served.ask("GET", path)
    assert status == expected and json.loads(body)["error"]


def test_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    files = {path.name: path.read_text() for path in FILES.iterdir()}
    for name, text in files.items():
        assert set(re.findall(r"https?://[^\"' )]+", text)) <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), name
        assert "style=" not in text and not re.search(r"\son[a-z]+=", text), name  # the policy forbids both
        status, body = served.ask("GET", "/" if name == "page.html" else f"/page/{name}")
        assert status == 200 and body == text.encode()
    import http.client

    connection = http.client.HTTPConnection(served.address, timeout=120)
    connection.request("GET", "/")
    policy = connection.getresponse().getheader("content-security-policy") or ""
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    connection.close()


def test_the_token_guards_what_was_inspected(bundle_path: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret\n")
    with Served([str(bundle_path), "--token-file", str(tmp_path / "token")], cache) as one:
        assert one.ask("GET", "/")[0] == 200 and one.ask("GET", "/page/page.js")[0] == 200
        for path in ("/page/models", "/page/data?model=tiny&version=1", "/page/picture", "/page/nearest"):
            assert one.ask("GET", path)[0] == 401
            assert one.ask("GET", path, authorization="Bearer a secret")[0] != 401
        assert one.stop() == 0


def test_without_the_page_nothing_of_it_is_there(bundle_path: Path, cache: Path) -> None:
    with Served([str(bundle_path), "--no-page"], cache) as one:
        for path in ("/", "/page/page.js", "/page/models", "/page/data?model=tiny&version=1"):
            assert one.ask("GET", path)[0] == 404
        assert one.infer(describe_image(IMAGE))[0] == 200
        assert one.stop() == 0


def make_watch(offered: list[Callable[[], None]]) -> tuple[Monitor, ModelWatch, History]:
    """Return a monitor that keeps what it is offered, a watch of the demo's bundle and its history."""

    class OfBundle:
        bundle = open_bundle(BUNDLE)

    monitor, history = Monitor(), History()
    monitor.offer = offered.append  # type: ignore[method-assign]
    inspector: Any = OfBundle()
    return monitor, ModelWatch(monitor, history, inspector, Drift(())), history


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, where threads have priorities of their own")
@pytest.mark.parametrize("niceness", [0, 15])
def test_the_monitor_works_where_its_priority_cannot_be_set(niceness: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, is_done = [], threading.Event()

    def refuse(*values: int) -> None:
        asked.append(values[-1])
        raise PermissionError

    monkeypatch.setattr(os, "getpriority", lambda *_: niceness)
    monkeypatch.setattr(os, "setpriority", refuse)
    Monitor().offer(is_done.set)
    assert is_done.wait(60) and asked == [max(10, niceness)]


def test_nothing_is_drawn_while_no_page_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[Callable[[], None]] = []
    monitor, watch, _ = make_watch(offered)
    monkeypatch.setattr("ndp_rt.serve.monitor.time.monotonic", lambda: 1000.0)
    for number in range(10):
        assert not watch.wants_map
        watch.take([IMAGE], [make_result(0.9)], number + 1, 0.0)
    assert len(offered) == 1  # the brightness of the first
    monitor.note_page()
    assert watch.wants_map


def test_while_a_page_is_open_maps_and_defects_are_drawn_at_most_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    offered: list[Callable[[], None]] = []
    monitor, watch, history = make_watch(offered)
    now_s = 1000.0
    monkeypatch.setattr("ndp_rt.serve.monitor.time.monotonic", lambda: now_s)
    monitor.note_page()
    results = [make_result(0.1, has_map=True), make_result(0.9), make_result(0.9), make_result(0.1)]
    watch.take([IMAGE] * 4, results, 1, 0.0)
    watch.take([IMAGE] * 4, results, 5, 0.0)
    assert len(offered) == 3 and not watch.wants_map
    now_s += 0.3
    assert watch.wants_map
    watch.take([IMAGE] * 4, results, 9, 0.0)
    for task in offered:
        task()
    assert [one.number for one in history.list_pictures()] == [1, 2, 9, 10]
    now_s += 60
    assert not watch.wants_map  # the page is closed


def test_a_history_keeps_as_much_as_it_may() -> None:
    history = History()
    for _ in range(ROW_COUNT + 10):
        history.add([make_result(0.9), make_result(0.1)], 0.001, 1e9)
    for number in range(2 * PICTURE_COUNT + 4):
        facts = {"is_defect": number % 2 == 0}
        history.add_picture(Drawn(number=number, picture=b"", heat=None, outlines=(), facts=facts))
    found = history.describe(0, 0)
    assert len(found["rows"]) == ROW_COUNT and found["image_count"] == 2 * ROW_COUNT + 20
    assert found["defect_count"] == ROW_COUNT + 10 and found["last_defect_count"] == LAST_COUNT / 2
    assert len(history.describe(2 * ROW_COUNT + 18, 99)["rows"]) == 2
    assert [one.number for one in history.list_pictures()] == list(range(4, 2 * PICTURE_COUNT + 4))
    history.add_picture(Drawn(number=10**6, picture=b"", heat=None, outlines=(), facts={"is_defect": False}))
    assert history.find_picture(5) is None and history.find_picture(4) is not None


def test_numbers_that_json_lacks_are_none() -> None:
    history = History()
    history.begin(math.inf, Drift((0.1, 0.1)), Drift(()))
    history.add([make_result(0.5, math.inf), make_result(math.nan)], 0.0, 1e9)
    found = json.loads(json.dumps(history.describe(0, 0), allow_nan=False))
    assert found["threshold"] is None and found["score"]["drift"] is None
    assert [row[2:4] for row in found["rows"]] == [[0.5, None], [None, 0.6]]


def test_the_rate_is_that_of_the_last_minute() -> None:
    rows = [Row(number, float(number), 0.0, 1.0, False, 1.0) for number in range(1, 201)]
    assert measure_rate(rows, 0.0, 200.0) == pytest.approx(61 / 60)
    assert measure_rate(rows[:10], 0.0, 20.0) == pytest.approx(0.5) and measure_rate([], 0.0, 20.0) == 0
    fast = [Row(number, 100 + number / 1000, 0.0, 1.0, False, 1.0) for number in range(ROW_COUNT)]
    assert measure_rate(fast, 0.0, 102.0) == pytest.approx(1000)


def test_drift_is_told_in_spreads_of_calibration() -> None:
    drift = Drift([1.0, 2.0, 3.0])
    assert math.isnan(drift.measure())
    for _ in range(LAST_COUNT + 50):
        drift.add(2 + 1.4826 * 3)
    assert drift.measure() == pytest.approx(3) and drift.source == "calibration"
    assert len(drift.list_values()[1]) == LAST_COUNT
    assert math.isnan(Drift([1.0, 1.0]).measure())
    narrow = Drift([0.5, 0.5], least_spread=0.01)
    narrow.add(0.52)
    assert narrow.measure() == pytest.approx(2)


def test_without_calibration_the_first_values_stand_for_it() -> None:
    drift = Drift([7.0])
    assert drift.source == "first"
    for number in range(FIRST_COUNT):
        assert math.isnan(drift.measure()) and drift.list_values()[0] == []
        drift.add(number % 2)
    assert drift.measure() == 0


def test_outlines_are_shares_of_the_sides() -> None:
    manifest = open_bundle(BUNDLE).manifest
    for has_map in (True, False):
        drawn = draw(7, IMAGE, make_result(0.9, has_map=has_map), 0.01, manifest)
        assert (drawn.heat is not None) == has_map and len(drawn.outlines) == 1
        points = np.reshape(drawn.outlines[0], (-1, 2)) * (50, 40)
        np.testing.assert_allclose(points.min(axis=0), (10, 20), atol=0.8)
        np.testing.assert_allclose(points.max(axis=0), (15, 30), atol=0.8)
        assert drawn.facts["defects"][0]["area_px"] == 50 and drawn.facts["waited_ms"] == 10


@pytest.mark.parametrize("shape", [(1, 1), (300, 7), (40, 50, 1), (40, 50, 3), (900, 1200)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_images_of_every_form_are_drawn(shape: tuple[int, ...], kind: type[Any]) -> None:
    image = np.full(shape, np.iinfo(kind).max // 3, kind)
    image.setflags(write=False)
    anomaly_map = np.full(shape[:2], 0.9, np.float32)
    result = make_result(0.9, anomaly_map=anomaly_map)
    drawn = draw(1, image, result, 0.0, open_bundle(BUNDLE).manifest)
    assert drawn.facts["brightness"] == pytest.approx(1 / 3)
    picture = cv2.imdecode(np.frombuffer(drawn.picture, np.uint8), cv2.IMREAD_COLOR)
    assert max(picture.shape) <= 512 and np.abs(picture.astype(int) - 85).max() <= 2 and drawn.heat is not None


def test_the_nearest_good_patch_is_found() -> None:
    rng = np.random.default_rng(3)
    good = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image[20:40, 30:50] = good[1][5:25, 40:60]
    defect = Defect(x_px=35, y_px=25, width_px=10, height_px=10, area_px=100, peak=1.0)
    found = find_nearest(image, (64, 64), defect, good)
    assert found.good_index == 1 and found.difference == 0
    np.testing.assert_array_equal(found.here, found.good)
    corner = Defect(x_px=0, y_px=0, width_px=64, height_px=1, area_px=64, peak=1.0)
    assert find_nearest(image, (64, 64), corner, good).here.shape == (10, 38, 3)
    assert find_nearest(image[:1, :1], (1, 1), corner, [one[:1, :1] for one in good]).here.shape == (1, 1, 3)


def test_good_patches_come_from_the_reference_or_the_calibration_images(bundle_path: Path, tmp_path: Path) -> None:
    assert list_good(open_bundle(bundle_path)) == ("", [])  # its picture is none
    bundle = open_bundle(BUNDLE)
    own = open_bundle(shutil.copytree(bundle_path, tmp_path / "own.ndp"))
    cv2.imwrite(str(own.path / "reference.png"), np.full((64, 64, 3), (1, 2, 3), np.uint8))
    source, good = list_good(own)
    assert source == "reference" and good[0][0, 0].tolist() == [3, 2, 1]
    source, good = list_good(bundle)
    assert source == "calibration" and len(good) == 8 and good[0].shape == (256, 256, 3)
    image = read_image(next((IMAGES / "test" / "impurity").glob("*.png")))
    with Inspector.open(BUNDLE, threads=1) as inspector:
        drawn = draw(1, image, inspector.inspect(image), 0.0, bundle.manifest)
    found = describe_nearest(drawn, source, good)
    assert found["source"] == "calibration" and found["good_count"] == 8 and found["places"]
    assert all(place["good"].startswith("data:image/jpeg;base64,") for place in found["places"])
