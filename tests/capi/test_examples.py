"""examples/: they build as strictly as they say, print what Python finds, and end in order when something is wrong."""

import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ndp_rt import Inspector, Result, read_image
from ndp_rt.capi.build import BRIDGE_NAME, INCLUDE, SOURCE, build_library
from ndp_rt.config import find_compiler
from tests.bricks import BRICK_IMAGES, BRICKS
from tests.capi.cpp import compile_cpp
from tests.capi.library import compile_program

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
GOOD, ERROR, USAGE, DEFECT = 0, 1, 2, 3


def write_pnm(path: Path, array: NDArray[Any], *, comment: str = "") -> Path:
    """Write an array [h, w] or [h, w, 3] as PGM or PPM, 16 bits with the larger byte first."""
    height_px, width_px = array.shape[:2]
    header = f"P{5 if array.ndim == 2 else 6}\n{comment}{width_px} {height_px}\n{np.iinfo(array.dtype).max}\n"
    path.write_bytes(header.encode() + array.astype(array.dtype.newbyteorder(">")).tobytes())
    return path


def format_result(path: Path, result: Result) -> str:
    """Return what the programs print on a result."""
    decision = "defect" if result.is_defect else "good"
    lines = [f"{path}: score {result.score:.6f}, threshold {result.threshold:.6f}: {decision}"]
    for one in result.defects:
        box = f"  x {one.x_px}, y {one.y_px}, {one.width_px} x {one.height_px}"
        lines.append(f"{box}, {one.area_px} pixels, peak {one.peak:.6f}")
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    """All that a program finds in its environment: neither PATH nor HOME."""
    return {"NDP_RT_CACHE": str(folder / "cache"), "NDP_RT_PYTHON": sys.executable}


@pytest.fixture(scope="module")
def images(folder: Path) -> dict[str, tuple[Path, NDArray[Any]]]:
    """The photographs of bricks as PGM, and one in every other form that the programs read."""
    arrays = {path.stem: read_image(path) for path in sorted(BRICK_IMAGES.glob("*.png")) if "mask" not in path.stem}
    grey = arrays["defect_hole"]
    colour = np.stack([grey, np.roll(grey, 3, axis=1), 255 - grey // 2], axis=2)
    arrays |= {"grey16": grey * np.uint16(257), "rgb8": colour, "rgb16": colour * np.uint16(256) + np.uint16(7)}
    arrays["odd"] = np.ascontiguousarray(colour[:77, :41])
    return {
        name: (write_pnm(folder / f"{name}.{'pgm' if array.ndim == 2 else 'ppm'}", array), array)
        for name, array in arrays.items()
    }


@pytest.fixture(scope="module")
def opened() -> Iterator[Inspector]:
    with Inspector.open(BRICKS, batches=[1]) as inspector:
        yield inspector


@pytest.fixture(scope="module")
def programs(library_path: Path, folder: Path) -> dict[str, Path]:
    """inspect in C and in C++, and line, built."""
    built = {
        name: compile_program(library_path, [EXAMPLES / f"c/{name}.c"], folder / name) for name in ("inspect", "line")
    }
    return built | {"inspect++": compile_cpp(library_path, EXAMPLES / "cpp/inspect.cpp", folder / "inspect++")}


def run(program: Path, arguments: Sequence[object], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


inspects = pytest.mark.parametrize("name", ["inspect", "inspect++"])


@pytest.mark.nightly(but=1)
@inspects
def test_inspect_prints_what_python_finds(
    programs: dict[str, Path],
    images: dict[str, tuple[Path, NDArray[Any]]],
    environment: dict[str, str],
    opened: Inspector,
    name: str,
) -> None:
    done = run(programs[name], [BRICKS, *(path for path, _ in images.values())], environment)
    assert (done.returncode, done.stderr) == (DEFECT, "")
    assert done.stdout == "".join(format_result(path, opened.inspect(array)) for path, array in images.values())


@inspects
def test_inspect_writes_the_map_and_takes_a_threshold(
    programs: dict[str, Path],
    images: dict[str, tuple[Path, NDArray[Any]]],
    environment: dict[str, str],
    opened: Inspector,
    folder: Path,
    name: str,
) -> None:
    path, array = images["odd"]
    options = ["--threshold", "0.999", "--device", "cpu", "--precision", "fp32", "--map", folder / "map.pgm"]
    done = run(programs[name], [*options, BRICKS, path], environment)
    assert (done.returncode, done.stderr) == (GOOD, "")
    expected = opened.inspect(array).anomaly_map
    scaled = (expected * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    assert np.array_equal(read_image(folder / "map.pgm"), scaled)


@inspects
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], USAGE, "usage: "),
        (["BUNDLE"], USAGE, "usage: "),
        (["--colour", "red", "BUNDLE", "good.pgm"], USAGE, "usage: "),
        (["--threshold", "high", "BUNDLE", "good.pgm"], USAGE, "usage: "),
        (["--map", "map.pgm", "BUNDLE", "good.pgm", "good.pgm"], USAGE, "usage: "),
        (["BUNDLE", "nowhere.pgm"], ERROR, "nowhere.pgm: No such file"),
        (["BUNDLE", "good.pgm", "short.pgm", "good.pgm"], ERROR, "short.pgm: the file ends before its last pixel"),
        (["--map", "nowhere/map.pgm", "BUNDLE", "good.pgm"], ERROR, "nowhere/map.pgm: No such file"),
        (["--precision", "fp8", "BUNDLE", "good.pgm"], ERROR, "'fp8'"),
        (["nowhere.ndp", "good.pgm"], ERROR, "nowhere.ndp: does not exist"),
    ],
)
def test_inspect_says_in_one_line_what_is_wrong(
    programs: dict[str, Path],
    environment: dict[str, str],
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    arguments: list[str],
    code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    good = write_pnm(Path("good.pgm"), np.zeros((20, 30), np.uint8))
    Path("short.pgm").write_bytes(good.read_bytes()[:-1])
    done = run(programs[name], [str(tiny_bundle) if one == "BUNDLE" else one for one in arguments], environment)
    assert done.returncode == code, done.stderr
    assert reason in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout.count("\n") <= 1  # of the image before


# Prints the size of each file that pnm_read takes and writes its pixels beside it, or prints the problem.
READ_ALL = """
#include "pnm.h"

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char path[4096];
        pnm image;
        const char *problem = pnm_read(argv[i], &image);

        if (problem) {
            printf("%s\\n", problem);
            continue;
        }
        printf("%d %d %d %d\\n", (int)image.width_px, (int)image.height_px, (int)image.channel_count,
               (int)image.value_bytes);
        snprintf(path, sizeof path, "%s.raw", argv[i]);
        FILE *file = fopen(path, "wb");
        fwrite(image.pixels, (size_t)(image.channel_count * image.value_bytes),
               (size_t)image.width_px * (size_t)image.height_px, file);
        fclose(file);
        free(image.pixels);
    }
    return 0;
}
"""


def test_images_are_read_as_their_headers_say(
    library_path: Path, tmp_path: Path, environment: dict[str, str], rng: np.random.Generator
) -> None:
    (tmp_path / "read.c").write_text(READ_ALL)
    program = compile_program(library_path, [tmp_path / "read.c"], tmp_path / "read", f"-I{EXAMPLES}")
    paths, expected = [], []
    for index, (dtype, shape) in enumerate(
        (dtype, shape) for dtype in (np.uint8, np.uint16) for shape in [(1, 1), (7, 5), (1, 1, 3), (6, 9, 3)]
    ):
        array = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
        paths.append(write_pnm(tmp_path / f"{index}.pnm", array, comment="# 3 3\n#\n" if index % 2 else ""))
        expected.append(f"{shape[1]} {shape[0]} {3 if len(shape) == 3 else 1} {array.itemsize}")
    done = run(program, paths, environment)
    assert done.stdout.splitlines() == expected
    assert all(
        path.with_name(f"{path.name}.raw").read_bytes() == read_image(path).tobytes() for path in paths
    )  # read_image gives RGB, and this machine's byte order


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "P5 or P6"),
        (b"P4 1 1 ", "P5 or P6"),
        (b"\x89PNG", "P5 or P6"),
        (b"P5", "no header"),
        (b"P5 # 1 1 255", "no header"),
        (b"P5 1 1 255", "no header"),
        (b"P5 1 x 255 ", "no header"),
        (b"P5 0 1 255 ", "no header"),
        (b"P5 -1 1 255 ", "no header"),
        (b"P5 1 1 0 ", "no header"),
        (b"P5 1 1 65536 ", "no header"),
        (b"P5 2147483648 1 255 ", "no header"),
        (b"P5 65536 32768 255 ", "no header"),
        (b"P5 " + b"9" * 400 + b" 1 255 ", "no header"),
        (b"P5 2 2 255 abc", "ends before"),
        (b"P6 1 1 65535 12345", "ends before"),
    ],
)
def test_images_that_are_none_are_refused(
    programs: dict[str, Path], environment: dict[str, str], tmp_path: Path, data: bytes, reason: str
) -> None:
    """Through line, which reads its frame before it starts the runtime."""
    (tmp_path / "frame.pgm").write_bytes(data)
    done = run(programs["line"], ["nowhere.ndp", tmp_path / "frame.pgm"], environment)
    assert (done.returncode, done.stdout) == (ERROR, "")
    assert done.stderr.startswith(f"line: {tmp_path / 'frame.pgm'}: ") and reason in done.stderr


def read_summary(text: str) -> dict[str, float]:
    """Return the figures that line printed in its last line."""
    first, *pairs = text.splitlines()[-1].split()
    assert first == "summary"
    figures = {name: float(value) for name, _, value in (pair.partition("=") for pair in pairs)}
    assert figures["grabbed"] == figures["inspected"] + figures["dropped"] + figures["failed"]
    assert figures["inspected"] == figures["kept"] + figures["missed"]
    assert figures["dropped"] == figures["no_buffer"] + figures["queue_full"]
    for unit in ("latency_ms", "submit_us"):
        assert 0 <= figures[f"{unit}_p50"] <= figures[f"{unit}_p90"] <= figures[f"{unit}_p99"]
    return figures


@pytest.mark.nightly
def test_line_keeps_a_slow_rate_and_finds_every_spot(
    programs: dict[str, Path], environment: dict[str, str], images: dict[str, tuple[Path, NDArray[Any]]]
) -> None:
    options = ["--fps", 10, "--seconds", 2, "--ring", 64, "--deadline-ms", 60000]
    done = run(programs["line"], [*options, BRICKS, images["good_000"][0]], environment)
    assert (done.returncode, done.stderr) == (0, "")
    figures = read_summary(done.stdout)
    assert 1 <= figures["grabbed"] <= 22 and figures["kept"] == figures["grabbed"]
    assert figures["defects"] == math.ceil(figures["grabbed"] / 10)
    assert done.stdout.startswith("<Inspector bricks.ndp: cpu fp32, threshold 0.431")


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("options", "reason"), [(["--ring", 2], "no_buffer"), (["--ring", 8, "--queue", 2], "queue_full")]
)
def test_line_drops_and_counts_what_comes_too_fast(
    programs: dict[str, Path], environment: dict[str, str], options: list[object], reason: str
) -> None:
    done = run(programs["line"], ["--fps", 2000, "--seconds", 2, "--deadline-ms", 0, *options, BRICKS], environment)
    assert (done.returncode, done.stderr) == (0, "")
    figures = read_summary(done.stdout)
    assert figures["inspected"] > 0 and figures["missed"] == figures["inspected"]
    assert figures["dropped"] == figures[reason] > figures["inspected"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_line_ends_in_order_on_a_signal(
    programs: dict[str, Path], environment: dict[str, str], tiny_bundle: Path, number: signal.Signals
) -> None:
    command = [programs["line"], "--seconds", "0", "--fps", "50", tiny_bundle]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # it is open, and grabs from now on
        process.send_signal(number)
        output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "") and first.startswith("<Inspector")
    read_summary(output)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], USAGE, "usage: "),
        (["--fps", "0", "BUNDLE"], USAGE, "usage: "),
        (["--fps", "nan", "BUNDLE"], USAGE, "usage: "),
        (["--ring", "0", "BUNDLE"], USAGE, "usage: "),
        (["--speed", "9", "BUNDLE"], USAGE, "usage: "),
        (["BUNDLE", "a.pgm", "b.pgm"], USAGE, "usage: "),
        (["BUNDLE", "nowhere.pgm"], ERROR, "nowhere.pgm: No such file"),
        (["--ring", "1000000", "BUNDLE"], ERROR, "queue_capacity"),
        (["--device", "tpu", "BUNDLE"], ERROR, "'tpu'"),
        (["nowhere.ndp"], ERROR, "nowhere.ndp: does not exist"),
    ],
)
def test_line_says_in_one_line_what_is_wrong(
    programs: dict[str, Path],
    environment: dict[str, str],
    tiny_bundle: Path,
    arguments: list[str],
    code: int,
    reason: str,
) -> None:
    done = run(programs["line"], [str(tiny_bundle) if one == "BUNDLE" else one for one in arguments], environment)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert reason in done.stderr and done.stderr.count("\n") == 1


def build_sanitized(folder: Path, sanitizer: str) -> Path:
    """Build the library with a sanitizer, and a bridge without Python beside it; skip where that cannot run."""
    source, flag = folder / "main.c", f"-fsanitize={sanitizer}"
    source.write_text("int main(void) { return 0; }\n")
    compiler = find_compiler()
    done = subprocess.run([*compiler, flag, str(source), "-o", str(folder / "main")], capture_output=True)
    if done.returncode != 0 or subprocess.run([folder / "main"], capture_output=True).returncode != 0:
        pytest.skip(f"needs a compiler and a kernel that {flag} works with: sudo apt install gcc")
    library = build_library(folder, flags=[flag])
    fake = [str(Path(__file__).parent / "hosts" / "fake_bridge.c"), f"-I{INCLUDE}", f"-I{SOURCE}", "-lm", "-lpthread"]
    subprocess.run([*compiler, "-shared", "-fPIC", flag, *fake, "-o", str(folder / BRIDGE_NAME)], check=True)
    return library


@pytest.mark.nightly
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_line_is_free_of_races_and_leaks(library_path: Path, tmp_path: Path, sanitizer: str) -> None:
    library = build_sanitized(tmp_path, sanitizer)
    program = compile_program(library, [EXAMPLES / "c/line.c"], tmp_path / "line", "-g", f"-fsanitize={sanitizer}")
    for queue in ([], ["--queue", 1]):
        done = run(program, ["--fps", 3000, "--seconds", 0.5, "--ring", 4, *queue, "any.ndp"], {})
        assert (done.returncode, done.stderr) == (0, "")
        assert read_summary(done.stdout)["inspected"] > 0


@pytest.mark.parametrize("name", ["inspect", "line"])
def test_clang_takes_the_examples_in_c(
    library_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if shutil.which("clang") is None:
        pytest.skip("needs clang: sudo apt install clang")
    monkeypatch.setenv("CC", "clang")
    compile_program(library_path, [EXAMPLES / f"c/{name}.c"], tmp_path / name)
