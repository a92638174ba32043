"""Limits of control groups, from made files: versions 1 and 2, nested groups, containers that see their own as root."""

from __future__ import annotations

import math

import pytest

from pixelwise.core.container import core_quota, memory_limit, memory_room

V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = ("32 31 0:29 {root} /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
      "35 31 0:32 {root} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
      "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n")  # fmt: skip


@pytest.fixture
def machine(tmp_path):
    """write(mounts, groups, {path below /sys/fs/cgroup: text}) -> the root folder."""

    def write(mounts, groups, files):
        (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc/self/mountinfo").write_text("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)
        (tmp_path / "proc/self/cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_no_linux_no_limit(tmp_path):
    assert core_quota(tmp_path) == memory_limit(tmp_path) == memory_room(tmp_path) == math.inf


def test_version_2(machine):
    root = machine(V2, "0::/\n", {"cpu.max": "250000 100000\n", "memory.max": "5000000\n",
                                  "memory.current": "4500000\n",
                                  "memory.stat": "anon 3000000\ninactive_file 1000000\n"})  # fmt: skip
    assert core_quota(root) == 2.5
    assert memory_limit(root) == 5_000_000
    assert memory_room(root) == 1_500_000


def test_version_2_without_limits(machine):
    root = machine(V2, "0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n", "memory.current": "4500000\n"})
    assert core_quota(root) == memory_limit(root) == memory_room(root) == math.inf


def test_the_tightest_of_nested_groups_counts(machine):
    """The limit of a slice holds for all below it, whatever they say themselves."""
    root = machine(V2, "0::/user.slice/job\n", {
        "user.slice/cpu.max": "300000 100000\n", "user.slice/job/cpu.max": "800000 100000\n",
        "user.slice/memory.max": "9000000\n", "user.slice/memory.current": "8999999\n",
        "user.slice/job/memory.max": "7000000\n", "user.slice/job/memory.current": "10\n",
    })  # fmt: skip
    assert core_quota(root) == 3
    assert memory_limit(root) == 7_000_000
    assert memory_room(root) == 1


def test_version_1(machine):
    groups = "9:name=systemd:/\n4:memory:/jobs/a\n1:cpu,cpuacct:/jobs/a\n0::/\n"
    root = machine(V1.format(root="/"), groups, {
        "cpu/jobs/a/cpu.cfs_quota_us": "150000\n", "cpu/jobs/a/cpu.cfs_period_us": "100000\n",
        "memory/jobs/a/memory.limit_in_bytes": "3000\n", "memory/jobs/a/memory.usage_in_bytes": "1000\n",
        "memory/jobs/a/memory.stat": "inactive_file 1\ntotal_inactive_file 500\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    assert core_quota(root) == 1.5
    assert memory_limit(root) == 3000
    assert memory_room(root) == 2500


@pytest.mark.parametrize("inner", ["/docker/abc", "/../.."])
def test_a_container_whose_group_is_the_mount(machine, inner):
    """Docker under version 1 shows the host's path in /proc and mounts the group itself; a namespace shows /../.."""
    groups = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n"
    root = machine(V1.format(root=inner), groups, {
        "cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": "2000\n",
    })  # fmt: skip
    assert core_quota(root) == 4
    assert memory_limit(root) == 2000
