"""The counts against counting by hand, and docs/kernels.md against what they give."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_rt.bench.kernel_work import GPUS, Gpu, Work, count_preprocess, count_steps, time_floor_us
from ndp_rt.bundle import open_bundle
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.op import CountedOp, Params
from ndp_rt.kernels.rbfrm import launch
from ndp_rt.kernels.registry import find_op
from ndp_rt.kernels.smooth.launch import count_smooth_tiles
from ndp_rt.program.program import AssetSpec, DecisionRules, Program, Step
from ndp_rt.program.tensors import TensorSpec
from ndp_rt.runtime.cuda_steps import CudaSteps
from tests.bricks import BRICKS

PAGE = Path(__file__).parents[2] / "docs" / "kernels.md"
SIDE_PX, WIDTH, DTYPE = 256, 64, "float16"  # preset paper
ROUND = Gpu(tensor_tflops=100, fp32_tflops=10, memory_gb_per_s=1000, source="round figures")


def test_the_longer_of_moving_and_computing_is_the_floor() -> None:
    assert time_floor_us(ROUND, Work(moved_bytes=10**6, flop_count=10**6)) == pytest.approx(1.0)
    assert time_floor_us(ROUND, Work(moved_bytes=10**6, flop_count=10**8)) == pytest.approx(10.0)
    assert time_floor_us(ROUND, Work(moved_bytes=10**6, flop_count=10**9, on_tensor_cores=True)) == pytest.approx(10.0)


def make_steps(reads: Sequence[TensorSpec], *steps: Step, rules: DecisionRules, assets: Any = None) -> CudaSteps:
    """Return a program's steps of one engine, which writes what is read, and ops; the map is the last of these'."""
    program = Program(steps=(Step(engine="all"), *steps), outputs={"map": steps[-1].writes[0] if steps else "map"})
    image = TensorSpec(name="image", shape=(reads[0].shape[0], 3, 8, 8))
    engine: Any = SimpleNamespace(inputs={"image": image}, outputs={spec.name: spec for spec in reads})
    manifest: Any = SimpleNamespace(decision=rules, assets=assets or {})
    size = reads[0].fixed_shape[0]
    return CudaSteps(manifest, program, size, {"all": engine}, lambda number: {}, KernelSet())


NO_RULES = DecisionRules(smooth="none")


def count_lookup(
    op: str, shape: tuple[int, ...], remembered: tuple[int, ...], dtype: str, params: Params | None = None
) -> Work:
    """Return the work of an op that reads features and a part of an asset."""
    asset = AssetSpec(file="m", tensors={"part": TensorSpec(name="part", shape=remembered)})
    features = TensorSpec(name="f", shape=shape, dtype=dtype)
    step = Step(op=op, params=params or {}, reads=("f", "memory.part"), writes=("y",))
    steps = make_steps([features], step, rules=NO_RULES, assets={"memory": asset})
    return count_steps(steps, NO_RULES)[f"{op} y"]


def test_rbfrm_is_two_products_and_three_arrays(rng: np.random.Generator) -> None:
    features, reference = rng.random((2, 3, 8, 12)), rng.random((1, 3, 16, 4))
    patches, others = np.empty((2 * 4 * 6, 12)), np.empty((8 * 2, 12))
    work = count_lookup("rbfrm", features.shape, reference.shape, "float16", {"patch_size": 2})
    assert work.moved_bytes == 2 * (2 * features.size + reference.size)
    assert work.flop_count == 2 * (2 * patches.shape[0] * others.shape[0] * 12)
    assert work.on_tensor_cores
    work = count_lookup("rbfrm", features.shape, reference.shape, "float32", {"patch_size": 2})
    assert not work.on_tensor_cores


def test_a_memory_is_read_once_whatever_the_batch(rng: np.random.Generator) -> None:
    features, samples, patches = rng.random((2, 3, 4, 6)), rng.random((5, 3, 4, 6)), rng.random((7, 3))
    work = count_lookup("nearest_sample", features.shape, samples.shape, "float16")
    assert work.moved_bytes == 2 * (2 * features.size + samples.size)
    assert work.flop_count == 2 * 2 * samples.size and not work.on_tensor_cores
    work = count_lookup("nearest_neighbour", features.shape, patches.shape, "float32")
    assert work.moved_bytes == 4 * (features.size + 2 * 4 * 6 + patches.size)
    assert work.flop_count == 2 * (2 * 4 * 6) * 7 * 3


def test_an_op_that_does_not_say_what_it_computes_counts_as_what_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        name = "silent"

        def infer(self, params: Params, reads: Sequence[TensorSpec]) -> list[TensorSpec]:
            return [TensorSpec(name="y", shape=reads[0].shape)]

        def make_cuda(self, params: Params, reads: Sequence[TensorSpec], dtype: str) -> Any:
            return SimpleNamespace(scratch_bytes=0, prepared={})

    for module in ("ndp_rt.runtime.cuda_steps", "ndp_rt.bench.kernel_work"):
        monkeypatch.setattr(f"{module}.find_op", lambda name: Silent())
    features = TensorSpec(name="f", shape=(2, 1, 4, 4))
    steps = make_steps([features], Step(op="silent", reads=("f",), writes=("y",)), rules=NO_RULES)
    assert count_steps(steps, NO_RULES)["silent y"] == Work(moved_bytes=4 * 2 * 32, flop_count=0)


def test_every_op_of_our_own_says_what_it_computes() -> None:
    for name in (path.parent.name for path in (PAGE.parents[1] / "kernels").glob("*/op.py")):
        assert isinstance(find_op(name), CountedOp), name


@pytest.mark.parametrize("score", ["max", "top_k_mean"])
def test_the_decision_moves_each_array_once(score: str) -> None:
    n, h, w = 3, 16, 32
    rules = DecisionRules(smooth_size_px=3, score=score, k=4)
    works = count_steps(make_steps([TensorSpec(name="map", shape=(n, 1, h, w))], rules=rules), rules)
    assert works["smooth"] == Work(moved_bytes=4 * n * 2 * h * w, flop_count=(2 + 2 + 1) * n * h * w)
    value_count = n * h * w if score == "top_k_mean" else n * count_smooth_tiles(h, w)
    assert works["score"] == Work(moved_bytes=4 * (value_count + n), flop_count=value_count)


def test_what_smoothing_takes_over_counts_with_it() -> None:
    n, h, w = 3, 16, 32
    levels = [TensorSpec(name=f"am{level}", shape=(n, 1, h >> level, w >> level)) for level in range(3)]
    step = Step(op="fuse_maps", reads=tuple(spec.name for spec in levels), writes=("map",))
    works = count_steps(make_steps(levels, step, rules=DecisionRules()), DecisionRules())
    assert works["smooth"].moved_bytes == 4 * n * (16 * 32 + 8 * 16 + 4 * 8 + h * w)
    assert works["smooth"].flop_count == (24 + 9) * n * h * w
    alone = count_steps(make_steps(levels, step, rules=NO_RULES), NO_RULES)
    assert alone["fuse_maps map"].flop_count == 24 * n * h * w and "smooth" not in alone


def test_preprocessing_moves_each_image_once() -> None:
    n, h, w = 3, 16, 32
    work = count_preprocess((n, h, w, 4), 2, h, w, "float16")
    assert (work.moved_bytes, work.flop_count) == (n * h * w * (4 * 2 + 3 * 2), n * h * w * 3)
    resized = count_preprocess((n, 2 * h, 2 * w, 3), 1, h, w, "float32")
    assert resized.moved_bytes == n * h * w * (4 * 3 + 3 * 4)
    assert resized.flop_count == n * h * w * (2 * 4 * 3 + 3)


def count_inspection(n: int) -> dict[str, Work]:
    """Return the work of every kernel of an inspection by NDP-Net's program in preset paper."""
    _, program = open_bundle(BRICKS).manifest.find_program("cuda", "staged")
    steps = [step for step in program.steps if step.op]
    shapes = {f"f{level}": (c, SIDE_PX >> (level - 1)) for level, c in ((3, 4 * WIDTH), (4, 8 * WIDTH), (5, 8 * WIDTH))}
    reads = [TensorSpec(name=name, shape=(n, c, side, side), dtype=DTYPE) for name, (c, side) in shapes.items()]
    sides = {name: SIDE_PX >> level for level, name in enumerate(steps[-1].reads)}
    reads += [TensorSpec(name=name, shape=(n, 1, side, side)) for name, side in sides.items()]
    parts = {name: TensorSpec(name=name, shape=(1, c, side, side)) for name, (c, side) in shapes.items()}
    made = make_steps(reads, *steps, rules=DecisionRules(), assets={"reference": AssetSpec(file="r", tensors=parts)})
    preprocess = count_preprocess((n, SIDE_PX, SIDE_PX, 3), 1, SIDE_PX, SIDE_PX, DTYPE)
    return {"preprocess": preprocess, **count_steps(made, DecisionRules())}


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
    calls = count_inspection(n)
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
    for name, op, remember in (
        ("nearest_sample, 30 images", "nearest_sample", lambda level: (30, *level)),
        ("nearest_neighbour, 512 patches", "nearest_neighbour", lambda level: (512, level[0])),
    ):
        for n in (1, 32):
            works = [count_lookup(op, (n, *level), remember(level), DTYPE) for level in levels]
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
