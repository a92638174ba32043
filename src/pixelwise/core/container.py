"""What a container allows this process: processor time and memory of its control groups (cgroups), versions 1 and 2.

A limit may stand in the process's own group or in any above it; the smallest counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def core_quota(root: Path = ROOT) -> float:
    """Cores' worth of time that the process may use, perhaps not a whole number; inf without a limit.

    root   where /proc and the groups' mounts are looked for
    """
    least = math.inf
    for folder in _folders("cpu", root):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and words[0] not in ("max", "-1"):
            least = min(least, int(words[0]) / int(words[1]))
    return least


def memory_limit(root: Path = ROOT) -> float:
    """Bytes that the process's groups may hold; inf without a limit."""
    return min((_limit(folder) for folder in _folders("memory", root)), default=math.inf)


def memory_room(root: Path = ROOT) -> float:
    """Bytes below the limit that can still be had; file pages that can be dropped count. inf without a limit."""
    least = math.inf
    for folder in _folders("memory", root):
        limit = _limit(folder)
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        if limit < math.inf and used:
            stat = _words(folder / "memory.stat")
            table = dict(zip(stat[::2], stat[1::2]))
            pages = table.get("total_inactive_file", table.get("inactive_file", "0"))
            least = min(least, max(0.0, limit - int(used[0]) + int(pages)))
    return least


def _limit(folder: Path) -> float:
    words = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
    if not words or words[0] in ("max", "-1") or int(words[0]) >= 1 << 60:  # version 1 writes "none" as 2^63, rounded
        return math.inf
    return float(words[0])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:  # no such group, or not ours to read
        return []


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the groups that the process is in and that limit this, from its own one up to the mount."""
    groups = _groups(root / "proc/self/cgroup")
    for mount, inner, controllers in _mounts(root / "proc/self/mountinfo"):
        found = groups.get("") if controllers is None else groups.get(controller)
        if found is None or (controllers is not None and controller not in controllers):
            continue
        own = root / mount.lstrip("/")
        path = PurePosixPath(found)  # as the host sees it; a container may see its own group as the mount's root
        below = path.relative_to(inner) if path.is_relative_to(inner) and ".." not in path.parts else PurePosixPath()
        for depth in range(len(below.parts), -1, -1):
            yield own.joinpath(*below.parts[:depth])


def _groups(path: Path) -> dict[str, str]:
    """Controller -> group, of lines like 4:memory:/some/group; version 2 has the empty controller."""
    found: dict[str, str] = {}
    for line in _lines(path):
        _, controllers, group = line.split(":", 2)
        found |= dict.fromkeys(controllers.split(","), group)
    return found


def _mounts(path: Path) -> Iterator[tuple[str, str, list[str] | None]]:
    """(where it is mounted, which group that is, its controllers; None for version 2) of every mount of groups."""
    for line in _lines(path):
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            yield fields[4], fields[3], None if kind == "cgroup2" else options.split(",")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # no Linux
        return []
