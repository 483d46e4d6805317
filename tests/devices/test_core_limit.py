"""Quotas of CPU time: both versions of control groups, nested ones, and files that are not there or not understood."""

from pathlib import Path

import pytest

from ndp_rt.devices.core_limit import count_usable_cores, find_cpu_quota
from ndp_rt.devices.machine import find_cpu


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_v2(root: Path, group: str, **limits: str) -> None:
    """Write a group's path and, by folder below the mount ("." for itself), the content of cpu.max."""
    write(root, **{"proc/self/cgroup": f"0::{group}\n"})
    write(root, **{f"sys/fs/cgroup/{folder}/cpu.max": text for folder, text in limits.items()})


def test_version_2_gives_its_quota_over_its_period(tmp_path: Path) -> None:
    make_v2(tmp_path, "/box", box="150000 100000\n")
    assert find_cpu_quota(tmp_path) == 1.5


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    make_v2(tmp_path, "/slice/box", **{"slice": "50000 100000\n", "slice/box": "max 100000\n"})
    assert find_cpu_quota(tmp_path) == 0.5


def test_inside_a_container_the_mount_is_its_own_group(tmp_path: Path) -> None:
    make_v2(tmp_path, "/docker/abc", **{".": "200000 100000\n"})
    assert find_cpu_quota(tmp_path) == 2.0


def test_version_1_gives_its_quota_over_its_period(tmp_path: Path) -> None:
    write(tmp_path, **{"proc/self/cgroup": "5:cpuset:/\n4:cpu,cpuacct:/box\n1:name=systemd:/\n"})
    folder = "sys/fs/cgroup/cpu,cpuacct/box"
    write(tmp_path, **{f"{folder}/cpu.cfs_quota_us": "300000\n", f"{folder}/cpu.cfs_period_us": "100000\n"})
    assert find_cpu_quota(tmp_path) == 3.0


@pytest.mark.parametrize("text", ["max 100000", "", "1 2 3", "one two", "100000 0"])
def test_no_limit_and_what_is_not_understood_are_none(tmp_path: Path, text: str) -> None:
    make_v2(tmp_path, "/box", box=text)
    assert find_cpu_quota(tmp_path) is None


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert find_cpu_quota(tmp_path) is None
    assert count_usable_cores(tmp_path) == find_cpu().usable_core_count


@pytest.mark.parametrize(("quota", "count"), [("50000 100000", 1), ("100000 100000", 1), ("199999 100000", 1)])
def test_part_of_a_core_is_no_core_but_one_is_always_there(tmp_path: Path, quota: str, count: int) -> None:
    make_v2(tmp_path, "/", **{".": quota})
    assert count_usable_cores(tmp_path) == count


def test_a_quota_above_the_cores_changes_nothing(tmp_path: Path) -> None:
    make_v2(tmp_path, "/", **{".": "100000000 100000"})
    assert count_usable_cores(tmp_path) == find_cpu().usable_core_count
