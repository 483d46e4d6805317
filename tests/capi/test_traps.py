"""What a host's process can be like: without environment, with another Python, forked, ended early."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ndp_rt
from ndp_rt.capi.build import BRIDGE_NAME, PYTHON_VERSION, read_header
from tests.capi.programs import Run, run_program, run_steps

PACKAGE = Path(ndp_rt.__file__).parent


@pytest.fixture(scope="module")
def make_interpreter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes virtual environments whose packages are those given: names here, or (name, content of __init__.py)."""

    def make(*packages: str | tuple[str, str]) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", folder], check=True)
        target = folder / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
        for package in packages:
            if isinstance(package, tuple):
                (target / package[0]).mkdir()
                (target / package[0] / "__init__.py").write_text(package[1])
            else:
                found = __import__(package).__file__
                place = Path(found).parent if found.endswith("__init__.py") else Path(found)
                (target / place.name).symlink_to(place)
        return folder / "bin" / "python"

    return make


def test_a_host_without_environment_starts(run: Run, score: str) -> None:
    assert run("start", "open", "inspect") == ["start: OK", "open: OK", "inspect: OK", score]
    described = run("describe", environment={"NDP_RT_CACHE": ""})
    assert described[1] == f"ndp-rt {ndp_rt.__version__}" and described[2].endswith(sys.executable)


def test_variables_of_another_python_are_ignored(run: Run, score: str, tmp_path: Path) -> None:
    nonsense = {name: "/nonsense" for name in ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONPLATLIBDIR")}
    nonsense |= {"PYTHONMALLOC": "nonsense", "PYTHONUTF8": "7", "PYTHONHASHSEED": "x", "PYTHONINSPECT": "1"}
    nonsense |= {"NDP_RT_CACHE": str(tmp_path)}  # an empty one, so that the builder's process is started too
    assert run("open", "inspect", environment=nonsense) == ["open: OK", "inspect: OK", score]


def test_where_there_is_no_interpreter_the_next_start_may_name_one(run: Run) -> None:
    paths = ["/nowhere/python", "/tmp", "python3", __file__, "x/" * 5000]
    lines = run(*(f"start={path}" for path in paths), "open", environment={"NDP_RT_PYTHON": "/nowhere"})
    assert all(line.startswith("start: RUNTIME python: expected the path of a Python ") for line in lines[:-1]), lines
    assert all(line.endswith("where there is no program.") for line in lines)
    assert lines[-1].startswith("open: RUNTIME NDP_RT_PYTHON: expected ") and "got '/nowhere'" in lines[-1]
    lines = run("start=/nowhere", "start=", "open")
    assert lines[1:] == ["start: OK", "open: OK"]


@pytest.mark.nightly
def test_another_program_for_an_interpreter_is_a_status_and_the_next_start_works(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    for path in [str(script), *find_pythons()[:2]]:
        lines = run(f"start={path}", "open", "inspect", environment={"NDP_RT_PYTHON": path})
        assert all(f"got {path}, which has no ndp_rt" in line for line in lines[:2]), lines
        assert lines[2].startswith("inspect: HANDLE") and len(lines) == 3
        lines = run(f"start={path}", "remember", "start", "compare", "open")
        assert lines[0].startswith("start: RUNTIME") and lines[1:] == ["start: OK", "compared", "open: OK"]


def test_missing_packages_are_named_and_the_next_start_may_name_another_interpreter(
    run: Run, make_interpreter: Callable[..., Path]
) -> None:
    names = ["ndp_rt", "_cffi_backend", "numpy", "cv2"]
    pythons = [make_interpreter(*names[:index], *names[index + 1 :]) for index in range(4)]
    lines = run(*(f"start={python}" for python in [*pythons, *pythons, sys.executable]), "open")
    for line, python, missing in zip(lines, pythons * 2, names * 2, strict=False):
        assert f"got {python}, which has no {missing}." in line, lines
        assert line.endswith(f"{python} -m pip install ndp-rt")
    assert lines[8:] == ["start: OK", "open: OK"]


def test_a_package_that_fails_to_load_stays_until_the_process_is_started_again(
    run: Run, make_interpreter: Callable[..., Path]
) -> None:
    broken = ("numpy", "raise ImportError('libfortune.so.3: cannot open shared object file')")
    python = make_interpreter("ndp_rt", "cv2", "_cffi_backend", broken)
    lines = run(f"start={python}", f"start={sys.executable}", "open", "all", f"start={python}")
    assert f"Python {PYTHON_VERSION} at {python} cannot load" in lines[0]
    assert "ImportError: libfortune.so.3" in lines[0] and lines[0].endswith("-m pip install ndp-rt.")
    assert lines[1].endswith(f"start this process again to have it use {sys.executable}.")
    refused = [line for line in lines if line.split()[1] in ("RUNTIME", "HANDLE", "INPUT")]
    assert len(refused) == len(lines) - 2  # no failed start looks like success; but these two need none:
    assert {"ndp_rt_log_set: OK", "ndp_rt_inspector_close: OK"} <= set(lines)


def test_a_library_of_another_version_is_refused(run: Run, make_interpreter: Callable[..., Path]) -> None:
    python = make_interpreter("numpy", "cv2", "_cffi_backend", ("ndp_rt", "__version__ = '9.9'\n"))
    package = next(python.parent.parent.glob("lib/*/site-packages/ndp_rt"))
    (package / "capi").mkdir()
    for name in ("capi/start.py", "config.py", "errors.py"):
        shutil.copy(PACKAGE / name, package / name)
    lines = run(f"start={python}")
    assert lines[0].startswith("start: RUNTIME libndp_rt.so: expected version 9.9, which ndp-rt has, got ")
    assert ndp_rt.__version__ in lines[0] and "ndp-rt capi build" in lines[0]
    assert not list(package.rglob("__pycache__"))  # a start writes nothing where packages lie


@pytest.mark.parametrize("is_link", [False, True])
def test_a_python_that_is_gone_is_named_and_not_replaced_by_the_builders(
    steps: Path, library_path: Path, tmp_path: Path, is_link: bool
) -> None:
    folder = tmp_path / "lib" / f"python{PYTHON_VERSION}" / "site-packages" / "ndp_rt" / "capi"
    folder.mkdir(parents=True)
    for name in (library_path.name, BRIDGE_NAME):
        shutil.copy(library_path.parent / name, folder)
    python = tmp_path / "bin" / f"python{PYTHON_VERSION}"
    python.parent.mkdir()
    if is_link:
        python.symlink_to("/nowhere/python")
    [line] = run_steps(steps, folder / library_path.name, ["start"])
    expected = "expected the Python of the environment that libndp_rt.so is installed in, got none"
    assert line.startswith(f"start: RUNTIME {python}: {expected}{': the link there leads nowhere' * is_link}. ")
    assert run_steps(steps, folder / library_path.name, [f"start={sys.executable}"]) == ["start: OK"]


def test_a_forked_child_is_refused_by_every_function_and_the_parent_goes_on(run: Run) -> None:
    lines = run("open", "fork", "all")
    names = {text.split("(")[0] for text in read_header().split("NDP_RT_API ndp_rt_status ")[1:]}
    child = dict(line.removeprefix("child ").split(": ", 1) for line in lines if line.startswith("child "))
    assert child.pop("ended") == "0" and set(child) == names
    assert all(answer.startswith("FORKED this process was forked after") for answer in child.values())
    parent = dict(line.removeprefix("parent ").split(": ", 1) for line in lines if line.startswith("parent "))
    failed = {name for name, answer in parent.items() if answer != "OK"}
    assert set(parent) == names
    assert failed <= {"ndp_rt_inspector_open", "ndp_rt_inspector_set_reference"}  # no bundle; a graph that cannot


@pytest.mark.nightly
def test_a_child_forked_before_the_start_has_a_runtime_of_its_own(run: Run, score: str) -> None:
    one = ["open: OK", "inspect: OK", score]
    lines = run("fork", "open", "inspect")
    assert lines == [f"child {line}" for line in one] + ["child ended: 0"] + [f"parent {line}" for line in one]
    lines = run("start=/nowhere", "fork", "open")  # a start that came to nothing leaves nothing to inherit
    assert lines[1:] == ["child open: OK", "child ended: 0", "parent open: OK"]


@pytest.mark.nightly
def test_the_first_thread_may_end_and_several_may_be_first(run: Run, score: str) -> None:
    assert run("thread=512", "start", "open", "inspect", "thread=0", "inspect", "close") == [
        *("start: OK", "open: OK", "inspect: OK", score, "inspect: OK", score, "close: OK")
    ]
    assert run("race", "inspect") == ["open: OK"] * 8 + ["inspect: OK", score]


def test_threads_with_a_stack_of_128_kib_may_call_everything(run: Run, tmp_path: Path) -> None:
    lines = run("thread=128", "start", "open", "all", environment={"NDP_RT_CACHE": str(tmp_path)})
    assert {line.split(": ")[1].split()[0] for line in lines} <= {"OK", "BUNDLE"}


@pytest.mark.nightly
@pytest.mark.parametrize("end", ["exit=7", "return"])
def test_a_process_may_end_with_inspectors_open_and_images_in_the_engine(run: Run, end: str) -> None:
    for _ in range(2):
        lines = run("open", "open", "submit", end, exit_code=7 if end == "exit=7" else 0)
        assert lines[:4] == ["open: OK", "open: OK", "submit: OK", "submit: OK"]


def test_a_close_after_the_end_of_main_is_refused(run: Run) -> None:
    lines = run("close-at-exit", "open", "inspect")
    assert lines[-1].startswith("close: CLOSED the process is ending")


def test_a_copied_library_and_a_link_to_it_find_their_bridge(
    run: Run, library_path: Path, tmp_path: Path, score: str
) -> None:
    copy = shutil.copy(library_path, tmp_path / "copy.so")
    link = tmp_path / "link.so"
    link.symlink_to(library_path)
    for library in (Path(copy), link):
        assert run("open", "inspect", library=library) == ["open: OK", "inspect: OK", score]


@pytest.mark.parametrize("part", [None, 0, 50, 0.05, 0.5, 0.99])
def test_a_bridge_that_is_missing_or_cut_short_is_a_status(
    steps: Path, library_path: Path, tmp_path: Path, part: float | None
) -> None:
    bridge = (library_path.parent / BRIDGE_NAME).read_bytes()
    (tmp_path / "libndp_rt.so").write_bytes(library_path.read_bytes())
    if part is None:
        away = library_path.parent.rename(library_path.parent.with_name("away"))
    else:
        (tmp_path / BRIDGE_NAME).write_bytes(bridge[: int(part * len(bridge)) if part < 1 else int(part)])
    try:
        lines = run_steps(steps, tmp_path / "libndp_rt.so", ["start", "open=x.ndp"])
    finally:
        if part is None:
            away.rename(library_path.parent)
    words = "expected it beside libndp_rt.so or in" if part is None else "was cut short"
    assert len(lines) == 2 and all(" RUNTIME " in line and words in line for line in lines), lines


HOST = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.ndp_rt_last_error.restype = ctypes.c_char_p
print(library.ndp_rt_runtime_start(None), library.ndp_rt_last_error().decode())
"""


def find_pythons() -> list[str]:
    """Return interpreters of other versions than this one."""
    names = [f"python3.{minor}" for minor in range(8, 16) if f"3.{minor}" != PYTHON_VERSION]
    found = [shutil.which(name) for name in names]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/3.*/bin/python")]
    others = {path for path in found if path and f"/{PYTHON_VERSION}." not in path}
    return [path for path in sorted(others) if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0]


def test_a_host_that_is_another_python_is_refused(library_path: Path) -> None:
    pythons = find_pythons()
    if not pythons:
        pytest.skip(f"needs a Python that is not {PYTHON_VERSION}, such as: apt install python3, or pyenv install 3.12")
    for python in pythons[:3]:
        lines = run_program([python, "-c", HOST, library_path], os.environ, timeout_s=300)
        assert lines[0].startswith("32 Python: expected ") and " in this process." in lines[0], (
            python,
            lines,
        )


def test_a_host_that_is_the_same_python_is_joined(library_path: Path, make_interpreter: Callable[..., Path]) -> None:
    lines = run_program([sys.executable, "-c", HOST, library_path], {})
    assert lines == ["0 "]
    bare = make_interpreter()
    lines = run_program([bare, "-c", HOST, library_path], {})
    assert lines[0].startswith(f"32 Python {PYTHON_VERSION} at {bare} cannot load"), lines
    assert "No module named '" in lines[0] and f"{bare} -m pip install" in lines[0]
