"""What only a GPU can tell, from the bundle to the result; the same bodies run on the fake GPU with the tiny bundle.

On a GPU engines are built in this process, once for the whole run, and bricks are inspected with each backend that is
installed. What a test measures it prints, so `pytest -rA -m "gpu or tensorrt"` shows how close each came.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import DeviceError, EngineError, InputError
from ndp_rt.kernels.smooth.definition import smooth
from tests.fakes.fake_streams import CUDARuntimeError
from tests.runtime.lost_device import watch
from tests.runtime.places import (
    EVERY_PLAN,
    EVERY_PRECISION,
    ONE_EACH,
    Place,
    read_photographs,
    report,
    run_beside,
)

ROOT = Path(__file__).parents[2]
MIB = 2**20


def compare_results(place: Place, results: list[Any], what: str) -> None:
    """Compare what inspections of the golden images gave with the golden maps and scores."""
    golden = place.bundle.golden()
    smoothed = smooth(golden.map)
    allowed = [find_tolerance(f"engine.{name}", place.precision).absolute for name in ("map", "score")]
    maps = np.stack([result.anomaly_map for result in results])
    scores = np.array([result.score for result in results])
    rows = np.arange(len(results)) % len(smoothed)
    report(f"{what}, map", float(np.abs(maps - smoothed[rows, 0]).max()), allowed[0])
    report(f"{what}, score", float(np.abs(scores - golden.score[rows]).max()), allowed[1])


@pytest.mark.parametrize("place", EVERY_PLAN, indirect=True)
def test_every_plan_batch_and_precision_gives_the_golden_maps_and_scores(place: Place) -> None:
    images = place.read_golden()
    with place.open() as opened:
        assert opened.batch_sizes == place.batches
        compare_results(place, [opened.inspect(image) for image in images], "one by one")
        batch = [images[n % len(images)] for n in range(3)]
        compare_results(place, opened.inspect_batch(batch), "batch 3")
        compare_results(place, list(opened.stream(batch)), "streamed")


@pytest.mark.nightly
@pytest.mark.parametrize("place", EVERY_PLAN, indirect=True)
def test_every_batch_size_runs_as_a_graph_that_repeats_what_the_steps_give(place: Place) -> None:
    golden = place.bundle.golden().image
    with place.open_executor() as executor:
        program = executor.program
        assert program.captured_sizes == program.batch_sizes == place.batches  # else the log says why
        for size in place.batches:
            # Different batches in turn, so that nothing which an earlier one left passes for this one's.
            batches = [
                np.ascontiguousarray(np.resize(np.roll(golden, n, 0), (size, *golden.shape[1:]))) for n in (0, 1)
            ]
            expected = [program.trace(batch, ("smoothed",))["smoothed"] for batch in batches]
            assert not np.array_equal(*expected)
            differences = []
            for n in range(place.count(on_gpu=200, on_fake=4)):
                program.upload(batches[n % 2])
                program.enqueue(size)
                program.stream.synchronize()
                found = place.read(program.get_tensor(size, "smoothed"))
                differences.append(float(np.abs(found - expected[n % 2]).max()))
            other = sum(difference != 0.0 for difference in differences)
            print(
                f"batch {size}: {other} of {len(differences)} differ from the steps, at most by {max(differences):.2e}"
            )
            # cuDNN is held to algorithms that repeat their bits, TensorRT's engines have one, ours add in one order.
            assert other == 0, f"batch {size}: {other} of {len(differences)} differ, at most by {max(differences):.3e}"


@pytest.mark.nightly
@pytest.mark.parametrize("place", EVERY_PRECISION, indirect=True)
def test_decisions_are_those_of_the_cpu(place: Place, rng: np.random.Generator) -> None:
    images = place.draw_images(rng, 3) if place.is_fake else read_photographs()
    with place.open_on_cpu() as host, place.open() as opened:
        expected, found = ([one.inspect(image) for image in images] for one in (host, opened))
        limits = host.threshold, opened.threshold
    for n, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        print(f"image {n}: {got.score:.4f} (CPU {wanted.score:.4f}), limits {limits[1]:.4f} ({limits[0]:.4f})")
    assert [result.is_defect for result in found] == [result.is_defect for result in expected]
    allowed = find_tolerance("engine.map", place.precision).absolute
    maps = [np.stack([result.anomaly_map for result in results]) for results in (found, expected)]
    report("maps against the CPU's", float(np.abs(maps[0] - maps[1]).max()), allowed)


@pytest.mark.nightly
def test_streamed_frames_equal_inspected_ones_while_other_threads_inspect(
    place: Place, rng: np.random.Generator
) -> None:
    images = place.draw_images(rng, place.count(on_gpu=200, on_fake=8))
    with place.open() as opened:
        singles = [opened.inspect(image).anomaly_map for image in images]
        batches = [result.anomaly_map for result in opened.inspect_batch(images)]
        found = run_beside(
            lambda: [result.anomaly_map for result in opened.stream(images)],
            lambda: [result.anomaly_map for result in opened.stream(images)],
            lambda: [opened.inspect(image).anomaly_map for image in images],
            lambda: [result.anomaly_map for result in opened.inspect_batch(images)],
        )
    names, alone = ("stream", "stream", "inspect", "batch"), (singles, singles, singles, batches)
    for name, maps, expected in zip(names, found, alone, strict=True):
        pairs = enumerate(zip(maps, expected, strict=True))
        wrong = [n for n, (got, wanted) in pairs if not np.array_equal(got, wanted)]
        assert not wrong, f"{name}: frames {wrong[:10]} of {len(images)} differ from those inspected alone"


@pytest.mark.nightly
def test_two_inspectors_at_once_give_what_each_gives_alone(place: Place, rng: np.random.Generator) -> None:
    images = place.draw_images(rng, place.count(on_gpu=100, on_fake=4))
    with place.open() as first, place.open(batches=(1,), precision="fp32") as second:
        expected = [[one.inspect(image).anomaly_map for image in images] for one in (first, second)]
        found = run_beside(
            *(lambda one=one: [one.inspect(image).anomaly_map for image in images] for one in (first, second))
        )
    for name, maps, alone in zip(("first", "second"), found, expected, strict=True):
        assert np.array_equal(maps, alone), f"the {name} inspector's maps changed beside the other"


@pytest.mark.nightly
def test_a_reference_is_swapped_between_frames_that_are_on_their_way(place: Place, rng: np.random.Generator) -> None:
    frame_count = place.count(on_gpu=60, on_fake=9)
    first, second, *images = place.draw_images(rng, frame_count + 2)
    with place.open() as opened:
        expected = []
        for good in (first, second):
            opened.set_reference(good)
            expected.append([opened.inspect(image).anomaly_map for image in images])
        assert not np.array_equal(expected[0][0], expected[1][0])

        def swap_as_they_come() -> Iterator[np.ndarray]:
            for n, image in enumerate(images):
                if n % 3 == 0:  # while the frames before are in the plan
                    opened.set_reference((first, second)[n // 3 % 2])
                yield image

        results = list(opened.stream(swap_as_they_come()))
        wrong = [n for n, one in enumerate(results) if not np.array_equal(one.anomaly_map, expected[n // 3 % 2][n])]
        assert len(results) == frame_count and not wrong, f"frames {wrong} have another reference, or part of one"


@pytest.mark.nightly
def test_a_new_reference_is_the_one_that_the_cpu_would_use(place: Place, rng: np.random.Generator) -> None:
    good, image = place.draw_images(rng, 2)
    with place.open_on_cpu("staged") as host, place.open() as opened:
        before = host.inspect(image).anomaly_map
        for one in (host, opened):
            one.set_reference(good)
        expected, found = host.inspect(image).anomaly_map, opened.inspect(image).anomaly_map
    print(f"the reference moves the map by {np.abs(expected - before).max():.2e}")
    allowed = find_tolerance("engine.map", place.precision).absolute
    report("map with a new reference", float(np.abs(found - expected).max()), allowed)


@pytest.mark.nightly
def test_inspections_leave_no_memory_behind(place: Place, rng: np.random.Generator) -> None:
    images = place.draw_images(rng, 8)
    slack_bytes = 0 if place.is_fake else 4 * MIB  # 2 KiB an inspection would be found; the driver gives 2 MiB at once

    def inspect_all_ways() -> None:
        opened.inspect(images[0], keep_reconstruction=True)
        opened.inspect_batch(images[:4])
        for _ in opened.stream(images[4:]):
            pass
        opened.set_reference(images[1])

    with place.open() as opened:
        for _ in range(place.count(on_gpu=5, on_fake=2)):
            inspect_all_ways()  # kernels and libraries are loaded, slots are made
        before = place.find_free_bytes()
        for _ in range(place.count(on_gpu=100, on_fake=1)):
            inspect_all_ways()
        for n in range(place.count(on_gpu=2000, on_fake=5)):
            opened.inspect(images[n % len(images)])
        lost = before - place.find_free_bytes()
    report("bytes lost", float(lost), slack_bytes)


@pytest.mark.nightly
def test_opening_and_closing_leaves_no_memory_behind(place: Place, rng: np.random.Generator) -> None:
    (image,) = place.draw_images(rng, 1)
    slack_bytes = 0 if place.is_fake else 16 * MIB  # of what the driver keeps; 0.8 MiB an opening would be found
    for n in range(place.count(on_gpu=22, on_fake=2)):
        with place.open() as opened:
            opened.inspect(image)
        if n == place.count(on_gpu=1, on_fake=0):  # contexts and libraries are there for good
            before = place.find_free_bytes()
    report("bytes lost", float(before - place.find_free_bytes()), slack_bytes)


@pytest.mark.nightly
def test_a_device_that_is_not_there_and_what_is_no_image_are_one_clear_error(place: Place) -> None:
    with pytest.raises(DeviceError, match=r"expected one of this machine's \d+ GPUs.* got 'cuda:99'"):
        place.open(device="cuda:99")
    with place.open() as opened:
        for image, words in (
            (np.zeros((8, 8), np.float32), "Floats carry no range"),
            (np.zeros((8, 8, 2), np.uint8), r"\[8, 8, 2\]"),
            (np.zeros((0, 8), np.uint8), r"\[0, 8\]"),
        ):
            with pytest.raises(InputError, match=words):
                opened.inspect(image)
        compare_results(place, [opened.inspect(image) for image in place.read_golden()], "afterwards")


def test_an_engine_that_was_cut_short_is_refused_by_name_and_command(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open(batches=(1,)):
        pass
    cache = tmp_path / "cut"
    for stage in place.bundle.manifest.programs["cuda"][place.pipeline.plan].stages:
        folder = find_engine_folder(place, stage)
        shutil.copytree(folder, cache / "engines" / folder.name)
    monkeypatch.setenv("NDP_RT_CACHE", str(cache))
    with place.open(batches=(1,), build=False):
        pass  # the copy is whole
    largest = max(cache.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    os.truncate(largest, largest.stat().st_size // 2)
    for may_build in (False, True):
        with pytest.raises(EngineError, match=r"(?s)it is not used.*ndp-rt build-engine .* --rebuild"):
            place.open(batches=(1,), build=may_build)
    assert largest.is_file()  # never a silent rebuild


@pytest.mark.parametrize("place", ONE_EACH[1:], indirect=True)
def test_engines_are_built_in_a_process_of_their_own(
    place: Place, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ndp_rt import Inspector

    monkeypatch.undo()
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path))
    settings = {**place.settings, "threshold": 0.55}
    with Inspector.open(tiny_bundle, batches=(1,), **settings) as opened:
        score = opened.inspect(np.zeros((64, 64), np.uint8)).score
    with Inspector.open(tiny_bundle, build=False, **settings) as again:
        assert again.inspect(np.zeros((64, 64), np.uint8)).score == score


def find_engine_folder(place: Place, stage: str) -> Path:
    """Return where the cache holds an engine of batch 1."""
    engines, fingerprint = Path(os.environ["NDP_RT_CACHE"]) / "engines", place.bundle.fingerprint[:12]
    (folder,) = engines.glob(f"{fingerprint}-{stage}-{place.pipeline.backend}-{place.precision}-b1-*")
    return folder


def run_child(*words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, which may break its CUDA context or crash."""
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.nightly
def test_after_a_device_was_lost_errors_are_clear_closing_works_and_the_cpu_goes_on(
    place: Place, tiny_bundle: Path
) -> None:
    pytest.importorskip("openvino", reason="the CPU takes over with OpenVINO: pip install ndp-rt")
    exit_code = 0
    if place.gpu is not None:
        machine = place.gpu.machine
        error = CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")
        seen = watch(str(tiny_bundle), {**place.settings, "threshold": 0.55}, lambda: setattr(machine, "lost", error))
    else:
        done = run_child("-m", "tests.runtime.lost_device", str(tiny_bundle), place.pipeline.backend, place.precision)
        assert done.stdout, f"the process ended with {done.returncode} and said nothing: {done.stderr[-3000:]}"
        exit_code, seen = done.returncode, json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(seen, indent=2))
    for kind, text in (*seen["errors"], seen["stream_error"]):
        assert kind == "DeviceError" and "device='cpu'" in text
    assert "cudaErrorIllegalAddress" in seen["errors"][0][1]
    assert seen["closed"][0] == "ClosedError"
    assert seen["after"] == [seen["cpu"]] * 4
    assert exit_code == 0


CUT_PLAN = """
import dataclasses, sys
from pathlib import Path
from ndp_rt.devices.cuda.driver import CudaDevice
from ndp_rt.engines.backends.tensorrt.backend import load_plan
from ndp_rt.engines.backends.tensorrt.plan_manifest import PLAN_FILE, PlanManifest
from ndp_rt.errors import EngineError
CudaDevice(0).activate()
artifact, kind = Path(sys.argv[1]), sys.argv[2]
manifest, content = PlanManifest.read(artifact), bytearray((artifact / PLAN_FILE).read_bytes())
if kind == "cut":
    content = content[: len(content) // 2]
else:
    content[: len(content) // 2] = bytes(len(content) // 2)
(artifact / PLAN_FILE).write_bytes(content)
try:
    load_plan(artifact / PLAN_FILE, dataclasses.replace(manifest, plan_bytes=len(content)))
except EngineError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("kind", ["cut", "blanked"])
@pytest.mark.parametrize("place", ONE_EACH[2:], indirect=True)
def test_tensorrt_itself_refuses_a_plan_that_is_none(place: Place, tmp_path: Path, kind: str) -> None:
    """The cache compares hashes before; this is what stands behind it, in a process that may crash."""
    with place.open(batches=(1,)):
        pass
    shutil.copytree(find_engine_folder(place, "tail"), tmp_path / "engine")
    done = run_child("-c", CUT_PLAN, str(tmp_path / "engine"), kind)
    assert done.returncode == 0, f"the process ended with {done.returncode}: {done.stderr[-3000:]}"
    assert "refused:" in done.stdout and "TensorRT refuses the engine" in done.stdout
