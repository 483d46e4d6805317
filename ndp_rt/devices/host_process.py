"""What a process may have loaded, set or limited so that engines cannot run in it. Standard library alone."""

import contextlib
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

from ndp_rt.errors import HostError

try:
    import resource  # here, because it cannot be loaded once memory has run out
except ImportError:  # Windows
    HAS_LIMITS = False
else:
    HAS_LIMITS = True

ROOT = Path("/")
CORE_FILES = ("sys/devices/system/cpu/online", "sys/devices/system/cpu/cpu0/topology/core_id")
# What the loader, the C library, Python, OpenVINO and its code generator say when they are given no memory; the last is
# said of a thread that gets no stack.
MEMORY_WORDS = (
    *("failed to map segment", "cannot allocate memory", "can't alloc", "bad_alloc", "out of memory"),
    "resource temporarily unavailable",
)


def check_cores_listed(root: Path = ROOT) -> None:
    """Check that the kernel's list of cores can be read; OpenVINO looks for it without end.

    Args:
        root: where `proc` and `sys` lie; for tests.

    Raises:
        HostError: it is in neither place.
    """
    if sys.platform != "linux" or all((root / name).is_file() for name in CORE_FILES):
        return
    with contextlib.suppress(OSError):
        if "processor" in (root / "proc" / "cpuinfo").read_text(encoding="utf-8", errors="replace"):
            return
    raise HostError(
        f"cores: expected them to be listed in {root / 'proc' / 'cpuinfo'} or {root / 'sys/devices/system/cpu'}, got "
        "neither. Mount /proc or /sys in this container or chroot."
    )


def check_only_copy(name: str, folder: Path, loaded: Iterable[str] | None = None) -> None:
    """Check that no other copy of a library is loaded: two would share their symbols, and the process would abort.

    Args:
        name: the beginning of its file's name: "libopenvino.so".
        folder: where ours lies.
        loaded: paths of the process's libraries; None: they are asked for.

    Raises:
        HostError: there is another; the message has its path.
    """
    for path in list_libraries() if loaded is None else loaded:
        if Path(path).name.startswith(name) and Path(path).resolve().parent != folder.resolve():
            raise HostError(
                f"{name}: expected the one in {folder}, got {path}, which this process has loaded. Link the program "
                "without it, or inspect in a process of its own."
            )


def list_libraries() -> list[str]:
    """Return the paths of the files that are mapped into this process, its libraries among them; none without /proc.

    The loader's own list (dl_iterate_phdr) is not asked: it is locked while it calls back into Python, which then
    waits for a thread that loads a library and waits for the list.
    """
    try:
        text = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    mapped = (line.split(maxsplit=5)[5:] for line in text.splitlines())  # address, rights, offset, device, inode, path
    return sorted({path for line in mapped for path in line if path.startswith("/")})


def explain_failure(text: str) -> HostError | None:
    """Return the limit of this process that made a library fail, or None where there is no such limit.

    Args:
        text: what the library said.
    """
    if not _may_make_code():
        return HostError(
            "memory: expected that it may be made executable, which engines need for the code that they generate, got "
            "a refusal. In a systemd unit, set MemoryDenyWriteExecute=no; elsewhere look for PR_SET_MDWE, seccomp or "
            "SELinux (execmem)."
        )
    limit_mib = find_address_limit_mib()
    if limit_mib is not None and any(word in text.lower() for word in MEMORY_WORDS):
        return HostError(
            f"address space: expected enough for the libraries and engines, got a limit of {limit_mib} MiB (ulimit -v, "
            "LimitAS= in a systemd unit). Raise or remove it; a control group (MemoryMax=) limits the memory itself."
        )
    return None


def find_address_limit_mib() -> int | None:
    """Return the limit of this process's address space, or None where there is none."""
    if not HAS_LIMITS:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit // 2**20


def _may_make_code() -> bool:
    if sys.platform != "linux":
        return True
    try:
        mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
    except PermissionError:
        return False
    except OSError:  # there is no memory at all
        return True
    return True
