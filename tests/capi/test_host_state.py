"""What a host may have set or loaded in its process: signals, streams, locale, floating point, allocators, limits."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ndp_rt.config import find_compiler
from tests.bricks import BRICKS
from tests.capi.cpp import STRICT
from tests.capi.programs import Run, read_environment, run_program


def test_a_host_keeps_its_signals_locale_folder_streams_and_environment(run: Run, score: str) -> None:
    for first in ([], ["handlers"], ["ignore-children"]):
        lines = run(*first, "remember", "open", "inspect", "compare", "close", "compare", environment={"A": "b=c"})
        assert lines == ["open: OK", "inspect: OK", score, "compared", "close: OK", "compared"]
    assert run("handlers", "open", "raise", "raise") == ["open: OK", "raise: 1", "raise: 2"]
    with pytest.raises(AssertionError, match="ended with -2"):
        run("open", "raise")  # SIGINT still ends a host that has left it alone


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("first", ["handlers", "ignore-children"])
def test_engines_are_built_whatever_the_host_does_with_children(run: Run, first: str, tmp_path: Path) -> None:
    assert run(first, "remember", "open", "compare", environment={"NDP_RT_CACHE": str(tmp_path)}) == [
        "open: OK",
        "compared",
    ]


@pytest.mark.nightly
def test_a_host_may_have_closed_its_streams(run: Run, score: str, tmp_path: Path) -> None:
    words = ["close-streams", "remember", "open", "inspect", "compare"]
    expected = ["open: OK", "inspect: OK", score, "compared"]
    assert run(*words) == expected
    assert run(*words, environment={"NDP_RT_CACHE": str(tmp_path)}) == expected  # and builds


@pytest.fixture
def commas(tmp_path: Path) -> dict[str, str]:
    """An environment with the locale de_DE.UTF-8, which writes decimal commas, and an empty cache."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("needs localedef and the locales' sources: apt install locales")
    command = ["localedef", "-f", "UTF-8", "-i", "de_DE", str(tmp_path / "de_DE.UTF-8")]
    subprocess.run(command, check=True, capture_output=True)
    return {"LOCPATH": str(tmp_path), "NDP_RT_CACHE": str(tmp_path / "cache")}


@pytest.mark.nightly
def test_a_locale_with_decimal_commas_changes_nothing(run: Run, score: str, commas: dict[str, str]) -> None:
    changed = run(f"open={BRICKS}", "reference", "inspect")
    assert changed[1] == "reference: OK"
    words = ["locale=de_DE.UTF-8", "remember", "open", "inspect", f"open={BRICKS}", "reference", "inspect"]
    lines = run(*words, "compare", environment=commas)
    expected = [score, *changed]
    assert lines == [
        *("locale: ,", "open: OK", "inspect: OK"),
        *(line.replace(".", ",") if line.startswith("score") else line for line in expected),
        "compared",
    ]


@pytest.fixture(scope="module")
def cpp_locale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of hosts/cpp_locale.cpp, whose functions change the global C++ locale."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++: apt install g++")
    library = tmp_path_factory.mktemp("locale") / "cpp_locale.so"
    source = Path(__file__).parent / "hosts" / "cpp_locale.cpp"
    subprocess.run(["g++", *STRICT, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library


@pytest.mark.nightly
@pytest.mark.parametrize(("change", "number"), [("group_digits", "1,234.5"), ("write_commas", "1234,5")])
def test_a_cpp_locale_that_changes_numbers_is_named_and_inspections_go_on(
    run: Run, score: str, cpp_locale: Path, change: str, number: str
) -> None:
    changing, back = f"call={cpp_locale}:{change}", f"call={cpp_locale}:be_classic"
    bricks = run(f"open={BRICKS}", "inspect")[2]
    lines = run(changing, "open", "start", back, "open", "inspect", changing, "inspect", "close")
    refused = [f"HOST C++ locale: expected numbers to be written as 1234.5, got '{number}', because this program has"]
    assert lines.pop(0).startswith(f"open: {refused[0]} called std::locale::global. ")
    assert lines == ["start: OK", "open: OK", "inspect: OK", score, "inspect: OK", score, "close: OK"]
    words = ["threads=2", f"open={BRICKS}", "inspect", changing, "inspect", "batch", "reference", back, "batch"]
    lines = run(*words)
    assert lines[:5] == ["open: OK", "inspect: OK", bricks, "inspect: OK", bricks]
    assert lines[5].startswith(f"batch: {refused[0]}") and lines[6].startswith(f"reference: {refused[0]}")
    assert lines[7:] == ["batch: OK", bricks]


ALLOCATORS = {
    "libjemalloc.so.2": "libjemalloc2",
    "libtcmalloc_minimal.so.4": "libtcmalloc-minimal4",
    "libtbbmalloc_proxy.so.2": "libtbbmalloc2",
}


def need_allocator(name: str) -> None:
    """Skip the test where a library cannot be preloaded."""
    done = subprocess.run(["true"], env={"LD_PRELOAD": name}, capture_output=True, text=True)
    if done.stderr:
        pytest.skip(f"needs {name}: apt install {ALLOCATORS[name]}")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ALLOCATORS)
def test_another_allocator_changes_nothing(run: Run, score: str, tmp_path: Path, name: str) -> None:
    need_allocator(name)
    expected = run(f"open={BRICKS}", "reference", "inspect")
    words = ["open", "inspect", f"open={BRICKS}", "reference", "inspect"]
    lines = run(*words, environment={"LD_PRELOAD": name, "NDP_RT_CACHE": str(tmp_path)})  # and builds with it
    assert lines == ["open: OK", "inspect: OK", score, *expected]


# What hosts do before their first call, and the library that they preload.
KINDS = {
    "locale": (["locale=de_DE.UTF-8"], None),
    "floats": (["floats"], None),
    "signals": (["handlers", "ignore-children"], None),
    "streams": (["close-streams"], None),
    "threads": (["thread=256"], None),
    **{name: ([], name) for name in ALLOCATORS},
    "all": (["locale=de_DE.UTF-8", "floats", "handlers", "close-streams", "thread=256"], "libjemalloc.so.2"),
}


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_host_gets_the_same_answers(run: Run, commas: dict[str, str], kind: str) -> None:
    words, preloaded = KINDS[kind]
    calls = ["threads=2", f"open={BRICKS}", "inspect", "batch", "reference", "inspect", "batch", "submit", "close"]
    expected = run(*calls)
    if preloaded is not None:
        need_allocator(preloaded)
    lines = run(*words, *calls, environment=commas | ({"LD_PRELOAD": preloaded} if preloaded else {}))  # builds, too
    shown = [line.replace(",", ".") for line in lines if not line.startswith("locale:")]
    assert len(expected) == 13 and shown == expected


@pytest.mark.nightly
def test_another_openvino_in_the_process_is_named_before_ours_is_loaded(run: Run, score: str, tmp_path: Path) -> None:
    other = tmp_path / "libopenvino.so.2600"
    (tmp_path / "other.c").write_text("void nothing(void) {}\n")
    subprocess.run([*find_compiler(), "-shared", "-fPIC", tmp_path / "other.c", "-o", other], check=True)
    for words in (["open"], ["start", "open"]):
        lines = run(f"call={other}:nothing", *words, environment={"NDP_RT_CACHE": str(tmp_path)})
        assert lines[-1].startswith("open: HOST libopenvino.so: expected the one in "), lines
        assert f", got {other}, which this process has loaded. " in lines[-1]
    assert run("open", "inspect", f"call={other}:nothing", "inspect") == ["open: OK", *["inspect: OK", score] * 2]


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize(("hidden", "is_refused"), [(("/proc", "/sys"), True), (("/proc",), False), (("/sys",), False)])
def test_without_the_kernels_lists_of_cores_nothing_spins(
    steps: Path, library_path: Path, tiny_bundle: Path, score: str, hidden: tuple[str, ...], is_refused: bool
) -> None:
    hide = " && ".join(f"mount -t tmpfs none {folder}" for folder in hidden)
    wrapper = ["unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*wrapper, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs unshare and the right to mount: run as root")
    command = [*wrapper, steps, library_path, f"open={tiny_bundle}", "inspect"]
    lines = run_program(command, {**read_environment(), "PATH": os.defpath}, timeout_s=120)
    if is_refused:
        assert lines[0].startswith("open: HOST cores: expected them to be listed in /proc/cpuinfo or /sys/devices/")
    else:
        assert [line.rstrip() for line in lines] == ["open: OK", "inspect: OK", score]


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("has_engine", [False, True])
@pytest.mark.parametrize("how", ["deny-code", "filter-code"])
def test_memory_that_may_not_be_executable_is_named(run: Run, tmp_path: Path, has_engine: bool, how: str) -> None:
    run("open", environment={"NDP_RT_CACHE": str(tmp_path)} if has_engine else None)
    lines = run(how, "open", environment={"NDP_RT_CACHE": str(tmp_path)})
    if lines[0] == f"{how}: missing":
        pytest.skip("needs PR_SET_MDWE (Linux 6.3)" if how == "deny-code" else "needs seccomp on x86-64")
    assert lines[0].startswith("open: HOST memory: expected that it may be made executable, ")
    assert "MemoryDenyWriteExecute=no" in lines[0]


def test_a_limit_of_address_space_is_named(run: Run, score: str) -> None:
    lines = run("address=600", "open", "address=6000", "open", "inspect")
    assert lines[0].startswith("open: HOST address space: expected at least 1024 MiB for the libraries and engines, ")
    assert "got a limit of 600 MiB (ulimit -v, " in lines[0]
    assert lines[1:] == ["open: OK", "inspect: OK", score]


@pytest.mark.nightly(but=4)
@pytest.mark.parametrize("mib", [120, 180, 60, 140, 20, 40, 80, 100, 160, 200, 220, 240])
def test_too_little_address_space_for_openvino_is_named_wherever_it_runs_out(run: Run, mib: int) -> None:
    lines = run("start", f"address-left={mib}", "open")
    found = re.match(r"open: (HOST|NO_MEMORY) address space: expected enough for the libraries and", lines[1])
    assert found is not None, lines


@pytest.mark.nightly
def test_traps_and_rounding_of_the_host_change_nothing(run: Run, score: str, tmp_path: Path) -> None:
    changed = run(f"open={BRICKS}", "reference", "inspect")
    words = ["floats", "remember", "open", "inspect", f"open={BRICKS}", "reference", "inspect", "compare"]
    lines = run(*words, environment={"NDP_RT_CACHE": str(tmp_path)})  # an empty one: engines are built, too
    assert lines == ["open: OK", "inspect: OK", score, *changed, "compared"]


def test_a_thread_that_is_cancelled_while_it_waits_leaves_the_library_whole(run: Run, score: str) -> None:
    lines = run("open", "cancel", "inspect", "close")
    assert lines == ["open: OK", "submit: OK", "submit: OK", "cancel: cancelled", "inspect: OK", score, "close: OK"]
