"""Find out how much memory this process may use: that of its cgroup, or of the machine."""

import os
from pathlib import Path

_REDIS_SHARE = 0.4
"""Share of the embedded Redis. While it rewrites its file, a copy of itself may need as much."""

_ROOT = Path("/")


def choose_redis_maxmemory(root: Path = _ROOT) -> int:
    """Return the default of REDIS_MAXMEMORY, in bytes."""
    return int(read_memory_limit(root) * _REDIS_SHARE)


def read_memory_limit(root: Path = _ROOT) -> int:
    """Return the memory that this process may use, in bytes: the least of all limits.

    A cgroup is limited by each of its ancestors too, in version 1 and 2. `root` is the directory
    that holds `/proc` and `/sys`.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for mount, group, name in _list_groups(root):
        # In a container the mount may be that of the group itself.
        paths = [mount / group, *(mount / group).parents]
        found += [_read_number(path / name) for path in paths if path.is_relative_to(mount)]
    return min(number for number in found if number)


def _list_groups(root: Path) -> list[tuple[Path, str, str]]:
    """Return the mount, the path and the file with the limit of each cgroup with a memory limit."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups.append((mount, path.strip("/"), "memory.max"))
        elif "memory" in controllers.split(","):
            groups.append((mount / "memory", path.strip("/"), "memory.limit_in_bytes"))
    return groups


def _read_number(path: Path) -> int:
    """Return the number in a file; 0 without one, such as for `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
