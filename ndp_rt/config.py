"""The one place that reads the environment."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ndp_rt.errors import HostError, InputError, StorageError

LOADER_PATH = "LD_LIBRARY_PATH"
MAX_SIDE_PX = 16384
MAX_IMAGE_PX = 2**28
MAX_IMAGE_BYTES = 2**30  # 16384 x 16384 pixels in grey of 16 bits, or in RGB of 8


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    """The largest image files that are decoded; a larger one is an ImageFileError before anything is allocated."""

    max_side_px: int = MAX_SIDE_PX
    max_image_px: int = MAX_IMAGE_PX
    max_image_bytes: int = MAX_IMAGE_BYTES  # of the file, and of its decoded pixels

    def __post_init__(self) -> None:
        given = (self.max_side_px, self.max_image_px, self.max_image_bytes)
        if min(given) < 1:
            raise InputError(f"image limits: expected 1 or more, got {', '.join(map(str, given))}.")


def wants_colour() -> bool:
    """Tell whether stdout is a terminal on which colours are shown and welcome (https://no-color.org)."""
    if sys.stdout is None or sys.platform == "win32" or not sys.stdout.isatty():
        return False
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def find_cache_dir() -> Path:
    """Return where engines are cached: NDP_RT_CACHE, else XDG_CACHE_HOME/ndp-rt, else ~/.cache/ndp-rt.

    Raises:
        StorageError: none of them is set, and there is no home folder.
    """
    own = os.environ.get("NDP_RT_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared and os.path.isabs(shared):  # the XDG rules say that a relative path is to be ignored
        return Path(shared) / "ndp-rt"
    try:
        return Path.home() / ".cache" / "ndp-rt"
    except RuntimeError as error:  # a container's user without a home
        raise StorageError(f"no home folder for the engine cache ({error}). Set NDP_RT_CACHE to a folder.") from error


def find_build_limit_s() -> float:
    """Return how long a builder of engines may take, in seconds: NDP_RT_BUILD_LIMIT_S, else two hours.

    Raises:
        InputError: it is no number above 0.
    """
    return _read_number("NDP_RT_BUILD_LIMIT_S", 7200.0)


def find_build_memory_bytes() -> int:
    """Return how much memory a builder of engines for the CPU may take: NDP_RT_BUILD_MEMORY_MB, else 0.9 of all.

    Raises:
        InputError: it is no number above 0.
    """
    try:
        all_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        all_bytes = 2**63
    with contextlib.suppress(OSError, ValueError):  # a container's limit; "max" where it has none
        all_bytes = min(all_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return int(_read_number("NDP_RT_BUILD_MEMORY_MB", 0.9 * all_bytes / 1e6) * 1e6)


def _read_number(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise InputError(f"{name}: expected a number above 0, got {text!r}.")
    return value


@contextlib.contextmanager
def shield_environment() -> Iterator[None]:
    """Drop what is written to the environment meanwhile, such as by an import.

    With a plain dict in its place nothing reaches that of the process, which a C host's threads may be reading and its
    children inherit.
    """
    environment = os.environ
    os.environ = dict(environment)  # type: ignore[assignment]  # noqa: B003
    try:
        yield
    finally:
        os.environ = environment  # noqa: B003


def child_environment() -> dict[str, str]:
    """Return the environment for a child process of ours (the engine builder, a benchmark's contender)."""
    environment = dict(os.environ)
    before = environment.pop(f"{LOADER_PATH}_ORIG", None)  # PyInstaller's programs have their own libraries first
    if is_frozen():
        environment.pop(LOADER_PATH, None)
        environment |= {} if before is None else {LOADER_PATH: before}
    return environment


def is_frozen() -> bool:
    """Tell whether a program of PyInstaller or the like runs this: its executable is no Python."""
    return bool(getattr(sys, "frozen", False))


def find_python() -> str | None:
    """Return the interpreter for child processes: the one that runs this, else that of NDP_RT_PYTHON, else None.

    Another program, frozen or with Python inside, is never started for one: it would start itself, time and again.
    """
    if not is_frozen() and Path(sys.executable or "").name.lower().startswith(("python", "pypy")):
        return sys.executable
    return os.environ.get("NDP_RT_PYTHON") or None


def child_command(module: str) -> list[str]:
    """Return the start of a command that calls `main(arguments)` of one of our modules and exits with what it returns.

    The child imports what this process would; with NDP_RT_PYTHON, what is installed there. With -m the working
    directory came first, and a user's queue.py in place of Python's.

    Raises:
        HostError: there is no interpreter, as `find_python` finds it.
    """
    python = find_python()
    if python is None:
        raise HostError(
            f"Python: expected an interpreter for a process of its own, got {sys.executable or 'none'}. Set "
            "NDP_RT_PYTHON to a Python with ndp-rt installed."
        )
    call = f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    if python != sys.executable:
        version = sys.modules["ndp_rt"].__version__  # importing it would point up the ladder
        wrong = f"{python}: expected ndp-rt {version}, as in this program, got "
        check = f"import ndp_rt; ndp_rt.__version__ == {version!r} or sys.exit({wrong!r} + ndp_rt.__version__); "
        return [python, "-I", "-c", f"import sys; {check}{call}"]
    # Both are set in a C host, whose PYTHONHOME may be another Python's.
    flags = [flag for flag, is_set in (("-I", sys.flags.isolated), ("-B", sys.dont_write_bytecode)) if is_set]
    start = f"import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); {call}"
    return [python, *flags, "-c", start, "\n".join(sys.path)]


def set_ray_defaults() -> None:
    """Have Ray send no statistics of its use and give its workers full priority, unless the environment has others."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that we start; Ray's own default is 15


def find_compiler() -> list[str]:
    """Return the C compiler's command: CC, as make and setuptools read it, else cc."""
    return shlex.split(os.environ.get("CC", "")) or ["cc"]


def find_cuda_graphs() -> str:
    """Return what NDP_RT_CUDA_GRAPHS says of who makes CUDA graphs of a GPU's work; "capture" if it says nothing.

    "capture": we do, of all steps; "engine": TensorRT-RTX does, of each of its engines; "off": nobody.

    Raises:
        InputError: it says something else.
    """
    text = os.environ.get("NDP_RT_CUDA_GRAPHS") or "capture"
    if text not in ("capture", "engine", "off"):
        raise InputError(f"NDP_RT_CUDA_GRAPHS: expected capture, engine or off, got '{text}'.")
    return text
