"""Find out why the embedded Redis cannot use its data, before it starts and from its log."""

import os
import re
from pathlib import Path

from config.children.redis_binary import EmbeddedRedisError

_EMPTY_BASE_BYTES = 128
"""Maximum size of a base file without data: 89 bytes with Redis 7.0."""

_REMEDY = "install the newer one, or restore a backup"

_CAUSES = (
    (
        r"Can't handle RDB format version (\d+)",
        "its data was written by a newer Redis than {version} (RDB format {found}): " + _REMEDY,
    ),
    (
        r"Unknown command '([^']{1,40})' reading the append only file",
        "its data was written by a newer Redis than {version} (command {found}): " + _REMEDY,
    ),
    (r"No space left on device|Disk quota exceeded", "the disk of {home} is full"),
    (
        r"(AOF manifest|AOF MANIFEST|Unable to obtain the AOF file)",
        "{home}/appendonlydir is damaged: restore it from a backup",
    ),
)
"""Patterns in Redis's log, each with the cause of the failure."""


class DataLostError(EmbeddedRedisError):
    """Redis would start without its data, and overwrite it."""


def check_append_only_folder(home: Path) -> None:
    """Raise DataLostError if the append-only folder has data, but not the list of its files.

    Redis 7 would start empty and write over these files. Files without data are left by a Redis
    that was killed during its first start.
    """
    folder = home / "appendonlydir"
    if (folder / "appendonly.aof.manifest").exists():
        return
    bases, increments = folder.glob("*.base.*"), folder.glob("*.incr.aof")
    if any(one.stat().st_size > _EMPTY_BASE_BYTES for one in bases) or any(
        one.stat().st_size for one in increments
    ):
        raise DataLostError(
            f"{folder} has data, but not the file appendonly.aof.manifest, which lists its files: "
            "Redis would start empty, and overwrite them. Restore the folder from a backup"
        )


def find_cause(log: str, home: Path, version: str) -> str:
    """Return the cause of a failed start, from the log of this start; "" if it has none."""
    for pattern, cause in _CAUSES:
        if found := re.search(pattern, log):
            return cause.format(found=found[found.re.groups], home=home, version=version)
    is_full = os.statvfs(home).f_bavail == 0  # then the log has no room either
    return f"the disk of {home} is full" if is_full else ""
