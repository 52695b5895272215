"""Redis does not start with a part of its data, and starts after a kill at any moment."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from config.children.append_only_folder import DataLostError, check_append_only_folder
from config.children.embedded_redis import EmbeddedRedis, RedisStartError
from tests.config.conftest import find_server
from tests.processes import PATIENCE_S

MANIFEST = "appendonly.aof.manifest"
BASE, INCREMENT = "appendonly.aof.2.base.rdb", "appendonly.aof.2.incr.aof"


@pytest.fixture
def folder(data_dir: Path, install_only: Callable[..., None]) -> Path:
    """Return the folder of a Redis 7 that has stopped: `BASE` and `INCREMENT` have a key each."""
    install_only(find_server(lambda version: version >= (7,)))
    folder = data_dir / "redis" / "appendonlydir"
    with EmbeddedRedis(data_dir) as redis, Redis.from_url(redis.url) as client:
        client.set("in base", "text" * 10)
        client.bgrewriteaof()
        until = time.monotonic() + PATIENCE_S
        while {path.name for path in folder.iterdir()} != {BASE, INCREMENT, MANIFEST}:
            assert time.monotonic() < until
            time.sleep(0.005)
        client.set("in increment", "text")
    return folder


def edit_manifest(folder: Path, pattern: str, replacement: str = "") -> None:
    text = (folder / MANIFEST).read_text()
    edited = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    assert edited != text
    (folder / MANIFEST).write_text(edited)


def move_to_history(folder: Path) -> None:
    edit_manifest(folder, "type [bi]$", "type h")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty base": (lambda folder: os.truncate(folder / BASE, 0), f"{BASE} has 0 bytes"),
    "no base": (lambda folder: (folder / BASE).unlink(), f"{BASE}, which .* lists, is missing"),
    "no increment": (
        lambda folder: (folder / INCREMENT).unlink(),
        f"{INCREMENT}, which .* lists, is missing",
    ),
    "an unlisted base": (
        lambda folder: edit_manifest(folder, r"^.* type b\n"),
        f"{BASE} has data, but .* does not list it",
    ),
    "an unlisted increment": (
        lambda folder: edit_manifest(folder, r"^.* type i\n"),
        f"{INCREMENT} has data, but .* does not list it",
    ),
    "a comment alone": (
        lambda folder: (folder / MANIFEST).write_text("# no file\n"),
        f"{BASE} has data, but .* does not list it",
    ),
    "a base as history": (
        lambda folder: edit_manifest(folder, "type b$", "type h"),
        f"{BASE} has data, but .* does not list it",
    ),
    "an increment as history": (
        lambda folder: edit_manifest(folder, "type i$", "type h"),
        f"{INCREMENT} has data, but .* does not list it",
    ),
    "history alone": (move_to_history, "has data, but .* does not list it"),
    "an increment of another folder": (
        lambda folder: shutil.copy(folder / INCREMENT, folder / "appendonly.aof.3.incr.aof"),
        "appendonly.aof.3.incr.aof has data, but .* does not list it",
    ),
}
"""For each damage: how it is done, and what the line says."""


@pytest.mark.parametrize(("damage", "problem"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_folder_that_would_lose_a_part_of_its_data_is_not_used(
    folder: Path, data_dir: Path, damage: Callable[[Path], object], problem: str
) -> None:
    damage(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataLostError, match=problem) as caught:
        EmbeddedRedis(data_dir).start()
    line = str(caught.value)
    assert line.startswith(f"{folder} is damaged: ")
    assert "Copy the folder first" in line
    assert "\n" not in line
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def leave_new_base(folder: Path) -> None:
    shutil.copy(folder / BASE, folder / "appendonly.aof.3.base.rdb")
    leave_new_increment(folder)


def leave_new_increment(folder: Path) -> None:
    (folder / "appendonly.aof.3.incr.aof").touch()


def leave_history(folder: Path, *, with_files: bool) -> None:
    with (folder / MANIFEST).open("a") as manifest:
        for name in ("1.base.rdb", "1.incr.aof"):
            manifest.write(f"file appendonly.aof.{name} seq 1 type h\n")
            if with_files:
                (folder / f"appendonly.aof.{name}").write_bytes(b"replaced")


LEFT_BY_A_KILL: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "a new increment": leave_new_increment,
    "a new base": leave_new_base,
    "history": lambda folder: leave_history(folder, with_files=True),
    "lines of removed history": lambda folder: leave_history(folder, with_files=False),
    "a temporary manifest": lambda folder: (folder / f"temp-{MANIFEST}").write_text("file app"),
    "later fields": lambda folder: edit_manifest(folder, "type i$", "type i startoffset 0"),
    "quotation marks": lambda folder: edit_manifest(folder, rf"file ({BASE})", r'file "\1"'),
}
"""The states of a folder that Redis itself may leave, by its src/aof.c."""


@pytest.mark.parametrize("leave", LEFT_BY_A_KILL.values(), ids=LEFT_BY_A_KILL.keys())
def test_a_folder_that_a_kill_may_leave_is_used(
    folder: Path, data_dir: Path, leave: Callable[[Path], object]
) -> None:
    leave(folder)
    with EmbeddedRedis(data_dir) as redis, Redis.from_url(redis.url) as client:
        assert set(client.keys()) == {b"in base", b"in increment"}


def test_an_upgrade_from_redis_6_that_was_killed_is_continued(tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (tmp_path / "appendonly.aof").touch()  # before its first write
    (folder / MANIFEST).write_text("file appendonly.aof seq 1 type b\n")
    check_append_only_folder(tmp_path)
    (tmp_path / "appendonly.aof").rename(folder / "appendonly.aof")
    check_append_only_folder(tmp_path)
    (folder / "appendonly.aof").unlink()
    with pytest.raises(DataLostError, match=r"appendonly\.aof, which .* is missing"):
        check_append_only_folder(tmp_path)


def test_a_redis_that_is_killed_while_it_rewrites_starts_with_its_data(
    folder: Path, data_dir: Path
) -> None:
    for _ in range(12):
        with EmbeddedRedis(data_dir) as redis, Redis.from_url(redis.url) as client:
            assert client.exists("in base", "in increment") == 2
            until = time.monotonic() + random.uniform(0, 0.1)
            while time.monotonic() < until:
                client.incr("number")
                with suppress(ResponseError):  # a rewrite that runs
                    client.bgrewriteaof()
            assert redis.pid
            os.kill(redis.pid, signal.SIGKILL)
            with pytest.raises(RedisConnectionError):
                while True:
                    client.ping()


def flip(path: Path, at: float) -> None:
    """Invert a byte of a file, at a share of its size."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0xFF
    path.write_bytes(data)


def insert(path: Path, at: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:at] + b"by a failing disk\r\n" + data[at:])


REPAIRABLE = "its data is damaged in the middle: copy .*redis-check-aof, or restore a backup"
UNREPAIRABLE = "its data is damaged, and cannot be repaired: copy .* restore a backup"


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda folder: insert(folder / INCREMENT, 0), REPAIRABLE),
        (lambda folder: insert(folder / INCREMENT, 30), REPAIRABLE),
        (lambda folder: (folder / INCREMENT).write_bytes(bytes(4096)), REPAIRABLE),
        *(
            (lambda folder, at=at: flip(folder / BASE, at), UNREPAIRABLE)
            for at in (0.05, 0.3, 0.6, 0.99)
        ),
        *(
            (lambda folder, size=size: os.truncate(folder / BASE, size), UNREPAIRABLE)
            for size in (9, 20, 80)
        ),
        (lambda folder: insert(folder / BASE, 20), UNREPAIRABLE),
    ],
)
def test_a_damaged_file_ends_the_start_with_one_line(
    folder: Path, data_dir: Path, damage: Callable[[Path], object], cause: str
) -> None:
    damage(folder)
    with pytest.raises(RedisStartError, match=cause) as caught:
        EmbeddedRedis(data_dir).start()
    assert "\n" not in str(caught.value)
