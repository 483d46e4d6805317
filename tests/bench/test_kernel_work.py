"""The counts against counting by hand, and docs/kernels.md against what they give."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ndp_rt.bench.kernel_work import (
    GPUS,
    Gpu,
    Work,
    count_inspection,
    count_nearest_neighbour,
    count_nearest_sample,
    count_preprocess,
    count_rbfrm,
    count_retrieval,
    count_score,
    count_smooth_levels,
    time_floor_us,
)
from ndp_rt.errors import InputError
from ndp_rt.kernels.rbfrm import launch
from ndp_rt.program.manifest import InputContract
from ndp_rt.program.program import AssetSpec, Program, Step
from ndp_rt.program.tensors import TensorSpec

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
SIDE_PX, WIDTH, DTYPE = 256, 64, "float16"  # preset paper
ROUND = Gpu(tensor_tflops=100, fp32_tflops=10, memory_gb_per_s=1000, source="round figures")


def test_the_longer_of_moving_and_computing_is_the_floor() -> None:
    assert time_floor_us(ROUND, Work(moved_bytes=10**6, flop_count=10**6)) == pytest.approx(1.0)
    assert time_floor_us(ROUND, Work(moved_bytes=10**6, flop_count=10**8)) == pytest.approx(10.0)
    assert time_floor_us(ROUND, Work(moved_bytes=10**6, flop_count=10**9, on_tensor_cores=True)) == pytest.approx(10.0)


def test_rbfrm_is_two_products_and_three_arrays(rng: np.random.Generator) -> None:
    features, reference = rng.random((2, 3, 8, 12)), rng.random((1, 3, 16, 4))
    patches, others = np.empty((2 * 4 * 6, 12)), np.empty((8 * 2, 12))
    work = count_rbfrm(features.shape, reference.shape, 2, "float16")
    assert work.moved_bytes == 2 * (2 * features.size + reference.size)
    assert work.flop_count == 2 * (2 * patches.shape[0] * others.shape[0] * 12)
    assert work.on_tensor_cores
    assert not count_rbfrm(features.shape, reference.shape, 2, "float32").on_tensor_cores


def test_a_memory_is_read_once_whatever_the_batch(rng: np.random.Generator) -> None:
    features, samples, patches = rng.random((2, 3, 4, 6)), rng.random((5, 3, 4, 6)), rng.random((7, 3))
    work = count_nearest_sample(features.shape, 5, "float16")
    assert work.moved_bytes == 2 * (2 * features.size + samples.size)
    assert work.flop_count == 2 * 2 * samples.size and not work.on_tensor_cores
    work = count_nearest_neighbour(features.shape, 7, "float32")
    assert work.moved_bytes == 4 * (features.size + 2 * 4 * 6 + patches.size)
    assert work.flop_count == 2 * (2 * 4 * 6) * 7 * 3


def test_the_steps_of_a_program_that_look_up_are_counted() -> None:
    steps = tuple(
        Step(op=op, reads=("image", f"memory.{op}"), writes=(op[-3:],))
        for op in ("nearest_sample", "nearest_neighbour")
    )
    shapes = {"nearest_sample": (4, 3, 64, 64), "nearest_neighbour": (9, 3)}
    asset = AssetSpec(file="m", tensors={name: TensorSpec(name=name, shape=shape) for name, shape in shapes.items()})
    manifest = SimpleNamespace(input=InputContract(height_px=64, width_px=64), assets={"memory": asset}, stages={})
    program = Program(steps=steps, outputs={"map": "our"})
    assert count_retrieval(manifest, program, 2, "float16") == {  # type: ignore[arg-type]
        "nearest_sample ple": count_nearest_sample((2, 3, 64, 64), 4, "float16"),
        "nearest_neighbour our": count_nearest_neighbour((2, 3, 64, 64), 9, "float16"),
    }


def test_other_kernels_move_each_array_once() -> None:
    n, h, w = 3, 16, 32
    levels = n * (16 * 32 + 8 * 16 + 4 * 8)
    assert count_smooth_levels(n, h, w).moved_bytes == 4 * (levels + n * h * w)
    assert count_score(n, 128).moved_bytes == 4 * n * 129
    work = count_preprocess((n, h, w, 4), 2, h, w, "float16")
    assert (work.moved_bytes, work.flop_count) == (n * h * w * (4 * 2 + 3 * 2), n * h * w * 3)
    resized = count_preprocess((n, 2 * h, 2 * w, 3), 1, h, w, "float32")
    assert resized.moved_bytes == n * h * w * (4 * 3 + 3 * 4)
    assert resized.flop_count == n * h * w * (2 * 4 * 3 + 3)


def test_an_inspection_has_every_kernel_once_and_its_levels_shapes() -> None:
    calls = count_inspection(2, 64, 128, 16, "float16")
    repaired = [f"rbfrm r{level}k{size}" for level in (3, 4, 5) for size in (2, 4)]
    assert list(calls) == ["preprocess", *repaired, "smooth_levels", "score"]
    assert calls["rbfrm r3k4"] == count_rbfrm((2, 64, 16, 32), (1, 64, 16, 32), 4, "float16")
    assert calls["rbfrm r5k2"] == count_rbfrm((2, 128, 4, 8), (1, 128, 4, 8), 2, "float16")


def test_types_that_no_kernel_has_are_refused() -> None:
    with pytest.raises(InputError, match="float64"):
        count_rbfrm((1, 1, 4, 4), (1, 1, 4, 4), 2, "float64")


def make_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def format_figure(value: float) -> str:
    """Write three significant digits without an exponent."""
    if value < 1e-4:
        return "< 0.0001"
    digits = f"{value:#.3g}"
    return f"{float(digits):.0f}" if "e" in digits else digits.rstrip(".")


def make_floor_table(n: int) -> str:
    """Return the floors of an inspection of n images, preset paper, in Markdown."""
    calls = count_inspection(n, SIDE_PX, SIDE_PX, WIDTH, DTYPE)
    repaired = [work for name, work in calls.items() if name.startswith("rbfrm")]
    rows = [make_row([f"batch {n}", "MB", "GFLOP", *(f"{name}, µs" for name in GPUS)])]
    rows.append("|---" + "|--:" * (2 + len(GPUS)) + "|")
    for name, works in [*((name, [work]) for name, work in calls.items()), ("rbfrm, all six", repaired)]:
        moved, flops = sum(work.moved_bytes for work in works), sum(work.flop_count for work in works)
        floors = [sum(time_floor_us(gpu, work) for work in works) for gpu in GPUS.values()]
        rows.append(make_row([name, *(format_figure(v) for v in (moved / 1e6, flops / 1e9, *floors))]))
    return "\n".join(rows)


def make_memory_table() -> str:
    """Return the floors of what MemSeg's preset paper looks up, three levels together, in Markdown."""
    levels = [(c, SIDE_PX >> shift, SIDE_PX >> shift) for c, shift in ((64, 2), (128, 3), (256, 4))]
    rows = [make_row(["float16", "n", "MB", "GFLOP", *(f"{name}, µs" for name in GPUS)])]
    rows.append("|---" + "|--:" * (3 + len(GPUS)) + "|")
    for name, count, size in (
        ("nearest_sample, 30 images", count_nearest_sample, 30),
        ("nearest_neighbour, 512 patches", count_nearest_neighbour, 512),
    ):
        for n in (1, 32):
            works = [count((n, *level), size, DTYPE) for level in levels]
            moved, flops = sum(work.moved_bytes for work in works), sum(work.flop_count for work in works)
            floors = [sum(time_floor_us(gpu, work) for work in works) for gpu in GPUS.values()]
            rows.append(make_row([name, str(n), *(format_figure(v) for v in (moved / 1e6, flops / 1e9, *floors))]))
    return "\n".join(rows)


def make_gpu_table() -> str:
    rows = [make_row(["GPU", "tensor TFLOP/s", "fp32 TFLOP/s", "GB/s", "source"]), "|---|--:|--:|--:|---|"]
    for name, gpu in GPUS.items():
        figures = (gpu.tensor_tflops, gpu.fp32_tflops, gpu.memory_gb_per_s)
        rows.append(make_row([name, *(f"{value:g}" for value in figures), gpu.source]))
    return "\n".join(rows)


def make_layout_table() -> str:
    """Return how the launcher lays out rbfrm at batch 1 and 32, preset paper, in Markdown."""
    head = [
        "level, K",
        "N = M",
        "L",
        "n",
        "`rbfrm_weights`",
        "parts",
        "`rbfrm_rebuild`",
        "exp(cosine), MB",
        "scratch, MB",
    ]
    rows = [make_row(head), "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for level, c in ((3, 4 * WIDTH), (4, 8 * WIDTH), (5, 8 * WIDTH)):
        side = SIDE_PX >> (level - 1)
        for size in launch.PATCH_SIZES:
            count = (side // size) ** 2
            for n in (1, 32):
                work = launch.lay_out((n, c, side, side), count, size, DTYPE)
                rows.append(
                    make_row(
                        [
                            *(f"{level}, {size}", str(count), str(c * size * size), str(n)),
                            f"{work.weights_tile_count} of {work.weights_tile}²",
                            str(work.part_count),
                            f"{work.rebuild_tile_count} of {work.rebuild_tile}²",
                            format_figure(work.row_count * work.weights_pitch * 2 / 1e6),
                            format_figure(work.scratch_bytes / 1e6),
                        ]
                    )
                )
    return "\n".join(rows)


@pytest.mark.parametrize(
    "make",
    [make_gpu_table, lambda: make_floor_table(1), lambda: make_floor_table(32), make_layout_table, make_memory_table],
)
def test_the_page_has_what_the_code_gives(make) -> None:
    table = make()
    assert table in PAGE.read_text(encoding="utf-8"), f"docs/kernels.md lacks this table:\n{table}"


def test_the_page_names_every_kernel() -> None:
    names = {path.stem for path in (PAGE.parents[1] / "kernels").rglob("*.cu")}
    page = PAGE.read_text(encoding="utf-8")
    assert all(re.search(rf"`{name}`", page) for name in names), sorted(names)
