"""Check the append-only folder of Redis 7 before a start with only a part of its data.

A manifest lists the files that Redis loads: at most one base (type b), then increments (type i).
Files of the type h are those that the last rewrite replaced, which Redis removes. Redis does not
load other files, and the next rewrites write over them. The rules are those of Redis's src/aof.c,
from 7.0 on. A kill at any moment may leave:

- The files of the first start, without data and without a manifest.
- A new increment that is not listed yet. It has 0 bytes.
- A new base that is not listed yet. The old base and its increments are still listed.
- Files of the type h, or their lines alone.
- A line of the file of Redis 6.2, which is still in the folder above.
"""

import shlex
from pathlib import Path
from typing import NamedTuple

from config.children.redis_binary import EmbeddedRedisError

_MANIFEST = "appendonly.aof.manifest"

_FILE_OF_REDIS_6 = "appendonly.aof"
"""It may have 0 bytes, unlike the base files that a rewrite makes."""

_EMPTY_BASE_BYTES = 128
"""Maximum size of a base file without data: 89 bytes with Redis 7.0."""


class DataLostError(EmbeddedRedisError):
    """Redis would start without its data, or a part of it, and overwrite it."""


class _Listed(NamedTuple):
    """A line of the manifest."""

    name: str
    kind: str


def check_append_only_folder(home: Path) -> None:
    """Raise DataLostError if Redis would start without some of the data in the folder.

    A manifest that Redis itself rejects is left to Redis.
    """
    folder = home / "appendonlydir"
    if not (folder / _MANIFEST).exists():
        _check_unlisted_files(folder)
        return
    listed = _read_manifest(folder / _MANIFEST)
    if listed is not None and (problem := _find_problem(home, folder, listed)):
        raise DataLostError(
            f"{folder} is damaged: {problem}. Redis would start with a part of the data, and "
            "overwrite the rest. Copy the folder first, and then restore a backup "
            "(docs/operations.md, Damaged data)"
        )


def _check_unlisted_files(folder: Path) -> None:
    bases, increments = folder.glob("*.base.*"), folder.glob("*.incr.aof")
    if any(one.stat().st_size > _EMPTY_BASE_BYTES for one in bases) or any(
        one.stat().st_size for one in increments
    ):
        raise DataLostError(
            f"{folder} has data, but not the file {_MANIFEST}, which lists its files: "
            "Redis would start empty, and overwrite them. Restore the folder from a backup"
        )


def _read_manifest(path: Path) -> list[_Listed] | None:
    """Return the lines of the manifest; None if one of them ends the start of Redis."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("#"):
            continue
        try:
            words = shlex.split(line)
        except ValueError:  # a quotation mark without its pair
            return None
        fields = {key.lower(): value for key, value in zip(words[::2], words[1::2], strict=False)}
        name, kind = fields.get("file", ""), fields.get("type", "")[:1]
        if not name or kind not in ("b", "h", "i"):
            return None
        found.append(_Listed(name, kind))
    return found


def _find_problem(home: Path, folder: Path, listed: list[_Listed]) -> str:
    """Return the first gap in the folder or in the manifest, "" if there is none."""
    for name, kind in listed:
        path = folder / name
        if kind == "h" or (name == _FILE_OF_REDIS_6 and (home / name).exists()):
            continue
        if not path.exists():
            return f"the file {name}, which {_MANIFEST} lists, is missing"
        if kind == "b" and name != _FILE_OF_REDIS_6 and not path.stat().st_size:
            return f"the file {name} has 0 bytes"
    kinds = {one.kind for one in listed}
    is_complete = {"b", "i"} <= kinds  # otherwise, files of the type h may be all that is left
    known = {one.name for one in listed if one.kind != "h" or is_complete}
    files = list(folder.glob("appendonly.aof.*.incr.aof"))
    if "b" not in kinds:
        files += [*folder.glob("appendonly.aof.*.base.*"), *folder.glob(_FILE_OF_REDIS_6)]
    for path in sorted(files):
        if path.name not in known and path.stat().st_size:
            return f"the file {path.name} has data, but {_MANIFEST} does not list it"
    return ""
