"""Every kernel compiles for every architecture without a GPU, within its budget of registers and shared memory."""

import os
import re
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from _pytest.mark.structures import ParameterSet

from ndp_rt.kernels.flags import SHARED_LIMIT_BYTES, Variant, make_options
from ndp_rt.kernels.source import FOLDER, read_source
from tests.kernels.nvrtc import REMEDY, Usage, compile_kernels, find_toolkit, parse_usage
from tests.kernels.variants import describe, list_variants

VARIANTS = list_variants()
needs_nvrtc = pytest.mark.skipif(find_toolkit() is None, reason=REMEDY)


Key = tuple[str, tuple[tuple[str, int], ...], int]  # file, macros, architecture


def find_key(variant: Variant, architecture: int) -> Key:
    return variant.file, tuple(sorted(variant.defines.items())), architecture


def list_cases() -> Iterator[ParameterSet]:
    """Return every variant with every architecture; `make test` takes one for each source, another for each in turn."""
    sources: dict[Hashable, int] = {}
    for variant in VARIANTS:
        turn = sources.setdefault(find_key(variant, 0), len(sources))
        for index, architecture in enumerate(variant.architectures):
            marks = () if index == turn % len(variant.architectures) else pytest.mark.nightly
            yield pytest.param(variant, architecture, id=f"{describe(variant)}-sm{architecture}", marks=marks)


def compile_file(file: str, macros: tuple[tuple[str, int], ...], architecture: int) -> dict[str, Usage]:
    source = read_source(file)
    return compile_kernels(source.text, make_options(dict(macros), source.sha256), architecture)


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> Iterator[dict[Key, Future[dict[str, Usage]]]]:
    """What the selected tests need, each file once for the same macros and architecture, on all cores."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    cases = [call.params for call in calls if call is not None and "variant" in call.params]
    pool = ThreadPoolExecutor(os.cpu_count())  # NVRTC runs outside of Python's lock
    yield {key: pool.submit(compile_file, *key) for key in dict.fromkeys(find_key(**case) for case in cases)}
    pool.shutdown(cancel_futures=True)


@needs_nvrtc
@pytest.mark.parametrize(("variant", "architecture"), list(list_cases()))
def test_a_kernel_compiles_within_its_budget(
    compiled: dict[Key, Future[dict[str, Usage]]], variant: Variant, architecture: int
) -> None:
    used = compiled[find_key(variant, architecture)].result()[variant.entry]
    assert used.spill_bytes == 0
    assert used.registers <= variant.max_registers
    assert used.static_shared_bytes <= 48 * 1024  # static memory has no larger limit on any architecture
    assert used.static_shared_bytes + variant.dynamic_shared_bytes <= SHARED_LIMIT_BYTES[architecture]


def test_every_kernel_has_a_launcher() -> None:
    written = {
        (path.relative_to(FOLDER).as_posix(), entry)
        for path in FOLDER.rglob("*.cu")
        for entry in re.findall(
            r'extern "C" __global__ void\s+(?:__launch_bounds__\([^\n]*\)\s+)?(\w+)\(', path.read_text()
        )
    }
    assert written == {(variant.file, variant.entry) for variant in VARIANTS}
    assert {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.cu")} == {file for file, _ in written}


def test_every_architecture_has_a_kernel_of_every_entry() -> None:
    for entry in {variant.entry for variant in VARIANTS}:
        reached = {a for variant in VARIANTS if variant.entry == entry for a in variant.architectures}
        assert reached == set(SHARED_LIMIT_BYTES), entry


SPILLS = """
__device__ float f(int i);
extern "C" __global__ void __launch_bounds__(1024) spills(float* x) {
    __shared__ float kept[100];
    float values[128];
#pragma unroll
    for (int i = 0; i < 128; ++i) values[i] = x[i * 1024 + threadIdx.x];
    kept[threadIdx.x % 100] = values[0];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 128; ++i) x[(127 - i) * 1024 + threadIdx.x] = values[i] + kept[i % 100];
}
"""


@needs_nvrtc
def test_spills_registers_and_shared_memory_are_seen() -> None:
    used = compile_kernels(SPILLS, ("-std=c++17",), 90)["spills"]
    assert used.spill_bytes > 0
    assert 32 < used.registers <= 64
    assert used.static_shared_bytes == 400


@needs_nvrtc
@pytest.mark.parametrize("code", ["broken", '#include "not_there.h"', "__device__ int f() { int unused; return 1; }"])
def test_a_source_with_errors_or_warnings_is_refused(code: str) -> None:
    with pytest.raises(AssertionError, match=r"error|warning"):
        compile_kernels(code, (), 75)


def test_a_log_without_kernels_tells_nothing() -> None:
    assert parse_usage("ptxas info    : 0 bytes gmem\n") == {}
