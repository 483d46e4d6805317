"""Counts the cores that this process may use: those that affinity leaves, and the container's quota of CPU time."""

from collections.abc import Iterator
from pathlib import Path

from ndp_rt.devices.machine import find_cpu

ROOT = Path("/")


def count_usable_cores(root: Path = ROOT) -> int:
    """Return how many threads can run at the same time for long, 1 at least.

    A quota of 1.5 cores is one: a second thread would be stopped for half of each period.

    Args:
        root: where `proc` and `sys` lie; for tests.
    """
    usable, quota = find_cpu().usable_core_count, find_cpu_quota(root)
    return usable if quota is None else max(1, min(usable, int(quota)))


def find_cpu_quota(root: Path = ROOT) -> float | None:
    """Return the CPU time that the control groups of this process allow, in cores; None: no limit is set."""
    quotas = [quota for folder in _list_group_folders(root) if (quota := _read_quota(folder)) is not None]
    return min(quotas, default=None)


def _list_group_folders(root: Path) -> Iterator[Path]:
    """Return the folders of this process's groups and of all above them, of both versions of control groups."""
    mount = root / "sys" / "fs" / "cgroup"
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = controllers.split(",")
        if controllers == "":  # version 2
            bases = [mount]
        elif "cpu" in names:
            bases = [mount / controllers, mount / "cpu"]
        else:
            continue
        for base in bases:
            group = base / path.lstrip("/")
            # In a container the path may be the host's, which is not there; the container's own group is the mount's.
            yield from (folder for folder in (group, *group.parents) if folder == base or base in folder.parents)


def _read_quota(folder: Path) -> float | None:
    """Return one group's limit in cores."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
            )
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
