"""Find out from the log of the embedded Redis why it could not start."""

import os
import re
from pathlib import Path

_REMEDY = "install the newer one, or restore a backup"

_COPY = "copy {home} first, and then "
_SEE = "restore a backup (docs/operations.md, Damaged data)"

_CAUSES = (
    (
        r"Can't handle RDB format version ([1-9]\d{0,2})\b",
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
    (
        r"Bad file format|file is not the last file|Unexpected end of file",
        "its data is damaged in the middle: "
        + _COPY
        + "repair it with redis-check-aof, or "
        + _SEE,
    ),
    (
        r"Internal error in RDB|RDB (preamble|checksum|format)|Short read or OOM|BUG REPORT START",
        "its data is damaged, and cannot be repaired: " + _COPY + _SEE,
    ),
)
"""Patterns in Redis's log, each with the cause of the failure."""


def find_cause(log: str, home: Path, version: str) -> str:
    """Return the cause of a failed start, from the log of this start; "" if it has none."""
    for pattern, cause in _CAUSES:
        if found := re.search(pattern, log):
            return cause.format(found=found[found.re.groups], home=home, version=version)
    is_full = os.statvfs(home).f_bavail == 0  # then the log has no room either
    return f"the disk of {home} is full" if is_full else ""
