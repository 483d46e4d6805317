"""Limits of the process that builds engines: it ends with its parent, has so much memory, and writes private files."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG, SIGKILL = 1, 9


def limit_process(parent_id: int, memory_bytes: int | None) -> None:
    """Set the limits of this process, which has nothing to do but to build.

    Args:
        parent_id: the process that waits for it; on Linux this one is killed when that one ends, however it does.
        memory_bytes: the most that it may take for data; None, and anywhere but on Unix: no limit.
    """
    os.umask(0o077)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != parent_id:  # it ended before that
            os._exit(1)
    if memory_bytes is not None and sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
