"""The memory that this process may use: the least of the limits of its cgroups and the machine."""

from pathlib import Path

import pytest

from config.system.memory import choose_redis_maxmemory, read_memory_limit

MIB = 1 << 20


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "67108864"}, 64 * MIB),  # a container with its own namespace
        ("0::/a/b\n", {"a/b/memory.max": "67108864"}, 64 * MIB),  # a service of systemd
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "67108864"}, 64 * MIB),
        ("0::/a/b\n", {"a/b/memory.max": "67108864", "a/memory.max": "33554432"}, 32 * MIB),
        (
            "4:cpu,memory:/a\n1:name=systemd:/a\n",
            {"memory/a/memory.limit_in_bytes": "67108864"},
            64 * MIB,
        ),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "67108864"}, 64 * MIB),
    ],
)
def test_the_limit_is_the_least_of_the_cgroup_and_its_ancestors(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int
) -> None:
    write(tmp_path / "proc/self/cgroup", groups)
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, text)
    assert read_memory_limit(tmp_path) == limit
    assert choose_redis_maxmemory(tmp_path) == int(0.4 * limit)


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        (None, {}),
        ("0::/a\n", {}),
        ("0::/a\n", {"a/memory.max": "max"}),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}),
    ],
)
def test_without_a_cgroup_limit_the_memory_is_that_of_the_machine(
    tmp_path: Path, groups: str | None, files: dict[str, str]
) -> None:
    machine = read_memory_limit(tmp_path)
    if groups is not None:
        write(tmp_path / "proc/self/cgroup", groups)
    for name, text in files.items():
        write(tmp_path / "sys/fs/cgroup" / name, text)
    assert read_memory_limit(tmp_path) == machine > 0


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
