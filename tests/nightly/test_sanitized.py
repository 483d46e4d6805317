"""The library under AddressSanitizer, UndefinedBehaviorSanitizer, ThreadSanitizer and valgrind; see fuzz/README.md."""

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ndp_rt.capi.build import build_library
from tests.capi.programs import add_fake_bridge, compile_host, link_host, read_environment, run_program

ADDRESS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1")
THREAD = ("-fsanitize=thread", "-O1")
HARNESS = ("../fuzz/harness.c", "../fuzz/structs.c", "../fuzz/replay.c")
FOLDER = Path(__file__).parents[1] / "capi"
# GCC 13 and older take what lies before some blocks of dynamic thread-local memory for a header of glibc before 2.25,
# follow it, and fall ("Tracer caught signal 11"); whether a block lies so depends on the machine.
# https://github.com/google/sanitizers/issues/1409
NO_TLS_HEADERS = {"ASAN_OPTIONS": "intercept_tls_get_addr=0"}
LEAKS_OF_OTHERS = {"LSAN_OPTIONS": f"suppressions={FOLDER / 'leaks.supp'}:print_suppressions=0"}
NO_RANDOM_ADDRESSES = ["setarch", "--addr-no-randomize"]


def check_sanitizer(folder: Path, flags: tuple[str, ...]) -> None:
    """Skip where the compiler cannot build with a sanitizer, or the program cannot run."""
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    try:
        run_program([compile_host([str(folder / "empty.c")], folder / "empty", *flags)])
    except AssertionError as error:
        pytest.skip(f"needs GCC's sanitizers (apt install gcc libasan8 libubsan1 libtsan2): {str(error)[-300:]}")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libndp_rt.so and its bridge with AddressSanitizer and UndefinedBehaviorSanitizer; fake/ has it without Python."""
    folder = tmp_path_factory.mktemp("address")
    check_sanitizer(folder, ADDRESS)
    library = build_library(folder, flags=ADDRESS)
    add_fake_bridge(library, folder / "fake", *ADDRESS)
    return folder


@pytest.fixture(scope="module")
def thread(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Builds a host on the fake bridge with ThreadSanitizer, and runs it."""
    folder = tmp_path_factory.mktemp("thread")
    check_sanitizer(folder, THREAD)
    library = add_fake_bridge(build_library(folder, flags=THREAD), folder / "fake", *THREAD)

    def run(source: str, *words: str | int) -> list[str]:
        host = link_host(library, [source], library.parent / Path(source).stem, *THREAD)
        try:
            return run_program([host, *words])
        except AssertionError as error:
            if "unexpected memory mapping" not in str(error):
                raise
        if subprocess.run([*NO_RANDOM_ADDRESSES, "true"], capture_output=True).returncode != 0:
            pytest.skip("needs a kernel with vm.mmap_rnd_bits of 28 or less, or the right to call setarch")
        return run_program([*NO_RANDOM_ADDRESSES, host, *words])

    return run


@pytest.fixture(scope="module")
def check_with_valgrind(library_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """Builds a host on the fake bridge, and runs it under valgrind: no error, and nothing lost."""
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind: apt install valgrind")
    library = add_fake_bridge(library_path, tmp_path_factory.mktemp("valgrind"))
    command = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]

    def run(sources: list[str], *words: str | int) -> list[str]:
        host = link_host(library, sources, library.parent / Path(sources[0]).stem, "-O1")
        return run_program([*command, host, *words])

    return run


def run_with_address(
    command: Sequence[str | int | Path], environment: Mapping[str, str] | None = None, **options: Any
) -> list[str]:
    """Run a program built with AddressSanitizer: no error, and nothing lost but what leaks.supp names."""
    return run_program(command, {**NO_TLS_HEADERS, **LEAKS_OF_OTHERS, **(environment or {})}, **options)


def test_hostile_arguments_touch_nothing_that_is_not_theirs(address: Path) -> None:
    replay = link_host(address / "fake" / "libndp_rt.so", HARNESS, address / "fake" / "replay", *ADDRESS)
    assert run_with_address([replay, 4000, 1]) == ["as ndp_rt.h says"]


def test_hostile_arguments_to_the_real_bridge_touch_nothing_that_is_not_theirs(
    address: Path, tiny_bundle: Path
) -> None:
    sources = [*HARNESS, "plain_dlopen.c"]
    replay = link_host(address / "libndp_rt.so", sources, address / "replay", *ADDRESS, "-rdynamic")
    assert (
        run_with_address([replay, 5, 3], {**read_environment(), "FUZZ_BUNDLE": str(tiny_bundle)})[0]
        == "as ndp_rt.h says"
    )


def test_threads_and_jobs_leak_nothing(address: Path, tiny_bundle: Path) -> None:
    library = address / "fake" / "libndp_rt.so"
    crowd = link_host(library, ["crowd.c"], address / "fake" / "crowd", *ADDRESS)
    assert run_with_address([crowd, "x", 16, 100])[0].startswith("compared ")
    turmoil = link_host(library, ["turmoil.c"], address / "fake" / "turmoil", *ADDRESS)
    for seed in range(4):
        assert run_with_address([turmoil, "x", 8, 3000, seed])[0].startswith("accepted ")
    sources = ["crowd.c", "plain_dlopen.c"]
    crowd = link_host(address / "libndp_rt.so", sources, address / "crowd", *ADDRESS, "-rdynamic")
    assert run_with_address([crowd, tiny_bundle, 4, 10], read_environment())[0].startswith("compared ")


def test_a_lost_block_is_found_beside_thread_local_memory_of_a_library(address: Path) -> None:
    library = compile_host(["dynamic_tls.c"], address / "tls.so", "-DLIBRARY", "-fPIC", "-shared")
    host = compile_host(["dynamic_tls.c"], address / "tls", *ADDRESS)
    assert run_with_address([host, library]) == []
    with pytest.raises(AssertionError, match="12 byte.s. leaked in 1 allocation"):
        run_with_address([host, library, "twelve bytes"])


def test_no_two_threads_meet_in_the_same_memory(thread: Callable[..., list[str]]) -> None:
    assert thread("crowd.c", "x", 8, 60)[0].startswith("compared ")
    for seed in range(4):
        assert thread("turmoil.c", "x", 8, 2000, seed)[0].startswith("accepted ")


def test_valgrind_finds_no_error_and_nothing_lost(check_with_valgrind: Callable[..., list[str]]) -> None:
    assert check_with_valgrind(["crowd.c"], "x", 3, 10)[0].startswith("compared ")
    assert check_with_valgrind(["turmoil.c"], "x", 4, 300, 1)[0].startswith("accepted ")
    assert check_with_valgrind(list(HARNESS), 60, 1) == ["as ndp_rt.h says"]
