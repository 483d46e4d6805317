"""rbfrm: the BLAS and CUDA forms against the definition, and the definition against the equations."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ndp_rt.errors import InputError
from ndp_rt.graphs.half_types import narrow, widen
from ndp_rt.kernels.checks import HELD_AS
from ndp_rt.kernels.load import KernelSet
from ndp_rt.kernels.rbfrm import launch
from ndp_rt.kernels.rbfrm.definition import NORM_EPS, join_patches, rbfrm, split_patches
from ndp_rt.kernels.rbfrm.host import RbfrmHost
from ndp_rt.kernels.rbfrm.launch import RbfrmCuda
from tests.interpreter.barriers import assert_every_barrier_is_needed, on_every_architecture
from tests.interpreter.interpreter import Interpreter
from tests.interpreter.memory import make_empty
from tests.kernels.conftest import CupyDevice, Device, InterpretedDevice
from tests.kernels.rbfrm.devices import on_every_device
from tests.tolerances import assert_close

SHAPES = [(1, 1, 4, 4), (1, 8, 8, 12), (3, 5, 16, 8), (2, 32, 16, 16)]
SIZES = (2, 4)
DTYPES = ("float32", "float16", "bfloat16")
# Features [n, c, h, w], and the sides of the reference. Odd channels and patch counts, several images, several tiles in
# both directions, a reference of another size; the last two have their sums over a patch cut into parts.
CASES = [
    ((1, 1, 4, 4), (4, 4)),
    ((3, 5, 16, 8), (4, 20)),
    ((2, 33, 12, 20), (28, 8)),
    ((1, 6, 40, 64), (32, 68)),
    ((1, 137, 8, 8), (12, 8)),
    ((2, 132, 24, 8), (24, 24)),
]
PAPER_LEVEL_5 = ((1, 512, 16, 16), (16, 16))
LARGE = ((1, 40, 24, 64), (48, 36))  # two rows and columns of large tiles, filled in part


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 4])
def test_joining_undoes_splitting(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> None:
    features = rng.normal(size=shape)
    assert np.array_equal(join_patches(split_patches(features, size), size, *shape[2:]), features)


@pytest.mark.parametrize("size", [2, 4])
def test_the_definition_follows_equations_3_to_5(rng: np.random.Generator, size: int) -> None:
    features, reference = rng.normal(size=(2, 3, 8, 12)), rng.normal(size=(1, 3, 16, 4))
    out = rbfrm(features, reference, size)
    patches = [reference[0, :, y : y + size, x : x + size] for y in range(0, 16, size) for x in range(0, 4, size)]
    for image in range(2):
        for y in range(0, 8, size):
            for x in range(0, 12, size):
                p = features[image, :, y : y + size, x : x + size]
                cosines = [float((p * b).sum() / np.sqrt((p * p).sum() * (b * b).sum())) for b in patches]
                shares = np.exp(cosines) / np.exp(cosines).sum()
                expected = sum(share * b for share, b in zip(shares, patches, strict=True))
                assert_close(out[image, :, y : y + size, x : x + size], expected, "rbfrm", "float32")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [2, 4])
def test_the_host_form_equals_the_definition(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> None:
    features = rng.normal(size=shape).astype(np.float32)
    reference = rng.normal(size=(1, *shape[1:])).astype(np.float32)
    features[0, :, :size, :size] = 0  # a patch of zeros has cosine 0 with everything
    out = np.full_like(features, np.nan)
    form = RbfrmHost(shape[1:], reference.shape, size)
    prepared = form.prepare([reference])
    form.run(prepared, [features], [out])
    assert_close(out, rbfrm(features, reference, size), "rbfrm", "float32")
    first = out.copy()
    form.run(prepared, [features], [out])
    assert np.array_equal(out, first)


def test_one_form_runs_with_any_prepared_reference(rng: np.random.Generator) -> None:
    features, *references = (rng.normal(size=(1, 4, 8, 8)).astype(np.float32) for _ in range(3))
    form, out = RbfrmHost((4, 8, 8), (1, 4, 8, 8), 2), np.empty_like(features)
    prepared = [form.prepare([reference]) for reference in references]
    for one, reference in zip(prepared, references, strict=True):
        form.run(one, [features], [out])
        assert_close(out, rbfrm(features, reference, 2), "rbfrm", "float32")


def test_the_reference_may_have_another_size_than_the_features(rng: np.random.Generator) -> None:
    features, reference = (rng.normal(size=s).astype(np.float32) for s in ((1, 4, 8, 8), (1, 4, 16, 4)))
    out = np.empty_like(features)
    form = RbfrmHost((4, 8, 8), reference.shape, 2)
    form.run(form.prepare([reference]), [features], [out])
    assert_close(out, rbfrm(features, reference, 2), "rbfrm", "float32")


def test_arrays_that_do_not_fit_the_host_form_are_refused() -> None:
    form, fine = RbfrmHost((3, 8, 8), (1, 3, 8, 8), 4), np.ones((1, 3, 8, 8), np.float32)
    with pytest.raises(InputError, match=r"reference: .*got float32 \[1, 3, 8, 4\]"):
        form.prepare([fine[..., :4].copy()])
    prepared = form.prepare([fine])
    with pytest.raises(InputError, match=r"features: .*got float32 \[1, 2, 8, 8\]"):
        form.run(prepared, [fine[:, :2].copy()], [fine.copy()])
    with pytest.raises(InputError, match="out: .*got float64"):
        form.run(prepared, [fine], [fine.astype(np.float64)])  # type: ignore[list-item]


def prepare(device: Device, form: RbfrmCuda, held: np.ndarray) -> dict[str, Any]:
    patches = {name: device.make_empty(spec.with_batch(1), held.dtype) for name, spec in form.prepared.items()}
    form.prepare(device.kernels, [device.copy(held)], patches, stream=None)
    return patches


def run(device: Device, features: np.ndarray, held: np.ndarray, size: int, dtype: str) -> np.ndarray:
    """Return the rebuilt features, as held; every byte of the outputs and of the scratch memory is NaN before."""
    form = RbfrmCuda(features.shape, held.shape, size, dtype)
    patches = prepare(device, form, held)
    out, scratch = device.make_empty(features.shape, features.dtype), device.make_empty((form.scratch_bytes,), np.uint8)
    form.enqueue(device.kernels, [device.copy(features)], patches, [out], scratch, stream=None)
    rebuilt: np.ndarray = out.get()
    return rebuilt


def make_case(
    rng: np.random.Generator, shape: tuple[int, ...], sides: tuple[int, int], size: int, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return features and a reference, as held: as after a ReLU, with a patch of zeros in each."""
    features = np.maximum(rng.normal(size=shape), 0)
    made = np.maximum(rng.normal(size=(1, shape[1], *sides)), 0)
    features[-1, :, -size:, :size] = 0
    if sides > (size, size):
        made[0, :, :size, -size:] = 0
    return narrow(features.astype(np.float32), dtype), narrow(made.astype(np.float32), dtype)


def assert_equals_definition(device: Device, case: tuple[np.ndarray, np.ndarray], size: int, dtype: str) -> None:
    out = run(device, *case, size, dtype)
    expected = rbfrm(*(widen(held, dtype) for held in case), size)
    assert_close(widen(out, dtype), expected, "rbfrm_cuda", dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("size", SIZES)
@on_every_device(*DTYPES)
def test_the_cuda_form_equals_the_definition(
    rng: np.random.Generator, device: Device, dtype: str, size: int, case: tuple[Any, Any]
) -> None:
    assert_equals_definition(device, make_case(rng, *case, size, dtype), size, dtype)


@pytest.mark.parametrize("size", SIZES)
def test_level_5_of_the_paper_equals_the_definition(rng: np.random.Generator, device: Device, size: int) -> None:
    assert_equals_definition(device, make_case(rng, *PAPER_LEVEL_5, size, "float16"), size, "float16")


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("size", SIZES)
@on_every_device("float16", "bfloat16")
def test_large_tiles_equal_the_definition(
    rng: np.random.Generator, device: Device, monkeypatch: pytest.MonkeyPatch, dtype: str, size: int
) -> None:
    monkeypatch.setattr(launch, "MIN_LARGE_TILES", 1)
    for case in (*CASES[:2], LARGE):
        assert_equals_definition(device, make_case(rng, *case, size, dtype), size, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("level", [3, 4, 5])
def test_the_levels_of_the_paper_equal_the_definition_at_batch_1_and_32(
    rng: np.random.Generator, level: int, size: int, dtype: str
) -> None:
    c, side = {3: (256, 64), 4: (512, 32), 5: (512, 16)}[level]
    features, held = make_case(rng, (1, c, side, side), (side, side), size, dtype)
    expected = rbfrm(widen(features, dtype), widen(held, dtype), size)
    for n in (1, 32):
        out = run(CupyDevice(), features.repeat(n, axis=0), held, size, dtype)
        assert_close(widen(out, dtype), expected.repeat(n, axis=0), "rbfrm_cuda", dtype)


@pytest.mark.parametrize(("dtype", "case"), [("float16", LARGE), ("bfloat16", CASES[-1]), ("float32", CASES[2])])
def test_every_schedule_and_every_run_gives_the_same_bits(
    rng: np.random.Generator, interpreter: Interpreter, dtype: str, case: tuple[Any, Any]
) -> None:
    device, inputs = InterpretedDevice(KernelSet(interpreter.make_module)), make_case(rng, *case, 2, dtype)
    first = run(device, *inputs, 2, dtype)
    for seed in (0, 1, 2, 3):
        interpreter.seed = seed
        assert np.array_equal(run(device, *inputs, 2, dtype), first)


@pytest.mark.parametrize(("dtype", "tile"), [("float32", 64), ("float16", 64), ("float16", 128)])
@on_every_architecture
def test_every_barrier_is_needed(
    rng: np.random.Generator, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch, dtype: str, tile: int
) -> None:
    if tile == launch.LARGE_TILE:
        monkeypatch.setattr(launch, "MIN_LARGE_TILES", 1)
    device, inputs = (
        InterpretedDevice(KernelSet(interpreter.make_module)),
        make_case(rng, (1, 48, 16, 16), (20, 16), 2, dtype),
    )
    right = run(device, *inputs, 2, dtype)
    assert_every_barrier_is_needed(interpreter, lambda: np.array_equal(run(device, *inputs, 2, dtype), right))


@on_every_device(*DTYPES)
def test_nan_stays_in_its_patch(rng: np.random.Generator, device: Device, dtype: str) -> None:
    features, held = make_case(rng, (2, 5, 8, 8), (8, 12), 2, dtype)
    expected = widen(run(device, features, held, 2, dtype), dtype)
    features[0, 3, 5, 6] = narrow(np.float32([np.nan]), dtype)[0]
    expected[0, :, 4:6, 6:8] = np.nan
    assert np.array_equal(widen(run(device, features, held, 2, dtype), dtype), expected, equal_nan=True)


@pytest.mark.parametrize("size", SIZES)
@on_every_device(*DTYPES)
def test_patches_are_kept_as_they_are_and_at_length_1(
    rng: np.random.Generator, device: Device, dtype: str, size: int
) -> None:
    held = make_case(rng, (1, 7, 4, 4), (12, 8), size, dtype)[1]
    prepared = prepare(device, RbfrmCuda(held.shape, held.shape, size, dtype), held)
    patches, unit_patches = (widen(prepared[name].get(), dtype) for name in ("raw", "unit"))
    expected = split_patches(widen(held, dtype), size)[0]
    length = expected.shape[1]
    assert np.array_equal(patches[:, :length], expected)
    assert not patches[:, length:].any() and not unit_patches[:, length:].any()
    norms = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), NORM_EPS)
    assert_close(unit_patches[:, :length], expected / norms, "rbfrm_cuda", dtype)


class Recorder:
    """A KernelSet that launches nothing: it notes each launch's entry, tile and grid."""

    def __init__(self) -> None:
        self.launches: list[tuple[str, int, tuple[int, ...]]] = []

    def function(self, file: str, entry: str, defines: dict[str, int]) -> Any:
        def note(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], stream: Any) -> None:
            self.launches.append((entry, defines["NDP_RT_TILE"], grid))

        return note


def list_launches(shape: tuple[int, int, int, int], size: int, dtype: str) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return the launches for features and a reference of the same sides."""
    recorder, address = Recorder(), iter(range(2**32, 2**40, 2**32))
    form = RbfrmCuda(shape, (1, *shape[1:]), size, dtype)

    def make_array(own_shape: tuple[int, ...], held: str = HELD_AS[dtype]) -> Any:
        pointer, flags = SimpleNamespace(ptr=next(address)), SimpleNamespace(c_contiguous=True)
        return SimpleNamespace(shape=own_shape, dtype=np.dtype(held), data=pointer, flags=flags)

    patches = {name: make_array(spec.with_batch(1)) for name, spec in form.prepared.items()}
    scratch = make_array((form.scratch_bytes,), "uint8")
    form.enqueue(recorder, [make_array(shape)], patches, [make_array(shape)], scratch, stream=None)  # type: ignore[arg-type]
    return recorder.launches


def test_tiles_and_parts_fill_the_gpu() -> None:
    # Level 3 of the paper, K = 2: 16 x 16 small tiles for one image, enough large ones for 32.
    assert list_launches((1, 256, 64, 64), 2, "float16") == [
        ("rbfrm_weights", 64, (256, 1)),
        ("rbfrm_rebuild", 64, (256,)),
    ]
    assert list_launches((32, 256, 64, 64), 2, "bfloat16") == [
        ("rbfrm_weights", 128, (2048, 1)),
        ("rbfrm_rebuild", 128, (2048,)),
    ]
    # Level 5, K = 4: one tile of weights, its sum over 8192 elements in 32 parts of 4 steps of 64.
    assert list_launches((1, 512, 16, 16), 4, "float16") == [
        ("rbfrm_weights", 64, (1, 32)),
        ("rbfrm_combine", 64, (8,)),
        ("rbfrm_rebuild", 64, (128,)),
    ]
    # float32 has small tiles and steps of 32.
    assert list_launches((32, 512, 16, 16), 4, "float32") == [
        ("rbfrm_weights", 64, (8, 16)),
        ("rbfrm_combine", 64, (256,)),
        ("rbfrm_rebuild", 64, (1024,)),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [1, 2, 7, 32, 64])
def test_no_part_is_empty_and_scratch_memory_is_bounded(n: int, size: int, dtype: str) -> None:
    for c, side in ((1, 4), (3, 8), (256, 64), (512, 32), (512, 16), (200, 36)):
        count = (side // size) ** 2
        layout = launch.lay_out((n, c, side, side), count, size, dtype)
        steps = layout.pitch // (64 if layout.weights_tile == 64 and dtype != "float32" else 32)
        assert (layout.part_count - 1) * layout.part_steps < steps <= layout.part_count * layout.part_steps
        weights_bytes = n * count * (-(-count // 64) * 64) * (4 if dtype == "float32" else 2)
        assert weights_bytes <= layout.scratch_bytes <= weights_bytes + 2**21 + 2**15


SHAPE, REFERENCE_SHAPE = (2, 3, 8, 8), (1, 3, 8, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "dtype: expected one of .*, got 'float64'"),
        ({"size": 3}, "patch size K: expected 2 or 4, got 3"),
        ({"shape": (2, 3, 8, 6)}, r"features: .*multiples of 4, got \[2, 3, 8, 6\]"),
        ({"shape": (2, 3, 8)}, r"features: expected \[n, c, h, w\], .*got \[2, 3, 8\]"),
        ({"shape": (0, 3, 8, 8)}, r"features: .*got \[0, 3, 8, 8\]"),
        ({"reference_shape": (1, 3, 8, 10)}, r"reference: .*multiples of 4, got \[1, 3, 8, 10\]"),
    ],
)
def test_a_form_of_another_kind_is_refused(change: dict[str, Any], message: str) -> None:
    fine = {"shape": SHAPE, "reference_shape": REFERENCE_SHAPE, "size": 4, "dtype": "float16"}
    with pytest.raises(InputError, match=message):
        RbfrmCuda(**{**fine, **change})


class Arguments:
    """Arrays that fit features [2, 3, 8, 8] and a reference [1, 3, 8, 12], K = 4, but for those that are given."""

    def __init__(self, dtype: str = "float16", **others: Any) -> None:
        held = HELD_AS[dtype]
        self.form = RbfrmCuda(SHAPE, REFERENCE_SHAPE, 4, dtype)
        self.arrays = {
            "reference": make_empty(REFERENCE_SHAPE, held),
            "features": make_empty(SHAPE, held),
            "raw": make_empty((6, 64), held),
            "unit": make_empty((6, 64), held),
            "out": make_empty(SHAPE, held),
            "scratch": make_empty((self.form.scratch_bytes,), np.uint8),
        } | others

    def prepare(self, kernels: KernelSet) -> None:
        self.form.prepare(kernels, [self.arrays["reference"]], self.arrays, stream=None)

    def enqueue(self, kernels: KernelSet) -> None:
        one = self.arrays
        self.form.enqueue(kernels, [one["features"]], one, [one["out"]], one["scratch"], stream=None)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("features", make_empty(SHAPE, np.float32), r"features: expected float16 .*got float32 \[2, 3, 8, 8\], dense"),
        ("features", make_empty((2, 3, 8, 16), np.float16)[..., ::2], "features: .*not dense"),
        ("features", make_empty((2, 7, 8, 8), np.float16), r"features: expected float16 \[2, 3, 8, 8\], dense"),
        ("features", make_empty((385,), np.float16)[1:].reshape(*SHAPE), "a multiple of 8 bytes"),
        ("out", make_empty(SHAPE, np.float32), "out: .* got float32"),
        ("raw", make_empty((6, 48), np.float16), r"raw: expected float16 \[6, 64\].*got float16 \[6, 48\]"),
        ("unit", make_empty((5, 64), np.float16), r"unit: expected float16 \[6, 64\].*got float16 \[5, 64\]"),
        ("scratch", make_empty((1023,), np.uint8), "scratch: expected 1024 bytes, got 1023"),
        ("scratch", make_empty((1024,), np.float16), "scratch: .* got float16"),
    ],
)
def test_arrays_of_another_kind_are_refused(kernels: KernelSet, name: str, array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Arguments(**{name: array}).enqueue(kernels)


def test_bfloat16_is_told_how_it_is_held(kernels: KernelSet) -> None:
    with pytest.raises(InputError, match=r"features: expected bfloat16 \(held as uint16\)"):
        Arguments("bfloat16", features=make_empty(SHAPE, np.float16)).enqueue(kernels)


@pytest.mark.parametrize(("name", "other"), [("out", "scratch"), ("features", "scratch"), ("raw", "out")])
def test_overlapping_arrays_are_refused(kernels: KernelSet, name: str, other: str) -> None:
    arguments, both = Arguments(), make_empty((8 * 1024,), np.uint8)
    for key in (name, other):
        one = arguments.arrays[key]
        arguments.arrays[key] = both[: one.nbytes].view(one.dtype).reshape(*one.shape)
    with pytest.raises(InputError, match="share memory"):
        arguments.enqueue(kernels)


def test_a_reference_that_does_not_fit_its_patches_is_refused(kernels: KernelSet) -> None:
    with pytest.raises(InputError, match=r"raw: expected float16 \[6, 64\].*got float16 \[24, 64\]"):
        Arguments(raw=make_empty((24, 64), np.float16)).prepare(kernels)
    with pytest.raises(InputError, match=r"reference: .*got float16 \[2, 3, 8, 12\]"):
        Arguments(reference=make_empty((2, 3, 8, 12), np.float16)).prepare(kernels)
    patches = make_empty((6, 64), np.float16)
    with pytest.raises(InputError, match="unit and raw share memory"):
        Arguments(raw=patches, unit=patches).prepare(kernels)
