"""Deleted text leaves the disk: the embedded Redis rewrites its append-only file."""

import asyncio
import errno
import functools
import logging
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis

from config.children import append_only_file
from config.children.embedded_redis import EmbeddedRedis
from config.children.restarts import Children
from sessions.client.connection import connect
from sessions.probe.requirements import try_commands
from tests import installed
from tests.config.conftest import find_server
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, ROOT, holdline
from tests.streams import ask

REDIS_CLI = shutil.which("redis-cli") or ""  # a test changes the PATH

REMOVALS: dict[str, Callable[[Redis, str], object]] = {
    "UNLINK": lambda client, key: client.unlink(key),
    "DEL": lambda client, key: client.delete(key),
    "a script": lambda client, key: client.eval("redis.call('UNLINK', KEYS[1])", 1, key),
    # A key that expires before its EXPIRE ends is not counted as expired.
    "an expiry": lambda client, key: client.pexpire(key, 100),
}


def find_text(folder: Path, text: str) -> list[Path]:
    """Return the files below a folder that contain a text."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # Redis has removed it meanwhile
            if path.is_file() and text.encode() in path.read_bytes():
                found.append(path)
    return found


def is_gone(folder: Path, text: str) -> bool:
    return not find_text(folder, text)


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition, such as a write that Redis delays while it syncs the file."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def poll_until(redis: EmbeddedRedis, condition: Callable[[], bool]) -> None:
    """Poll Redis, as the supervisor does, until a condition holds."""
    wait_until(lambda: redis.poll() is not None or condition())
    assert redis.poll() is None


def count_forks(client: Redis) -> int:
    """Return the number of rewrites: nothing else forks this Redis."""
    return int(client.info("stats")["total_forks"])


def is_idle(client: Redis) -> bool:
    return not client.info("persistence")["aof_rewrite_in_progress"]


@pytest.fixture
def secret() -> str:
    """Return a text that Redis does not compress."""
    return secrets.token_urlsafe(32)


@pytest.fixture
def is_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rewrite begin whenever it is needed."""
    for name in ("CHECK_INTERVAL_S", "MIN_INTERVAL_S", "RETRY_INTERVAL_S"):
        monkeypatch.setattr(append_only_file, name, 0)
    monkeypatch.setattr(append_only_file, "MAX_BYTES_PER_S", 1 << 40)


@pytest.fixture(params=[6, 7])
def redis(
    data_dir: Path, install_only: Callable[..., None], request: pytest.FixtureRequest
) -> Iterator[EmbeddedRedis]:
    """Yield an embedded Redis 6.2, which has one file, and then a Redis 7, which has several."""
    install_only(find_server(lambda version: version[:1] == (request.param,)))
    with EmbeddedRedis(data_dir) as redis:
        yield redis


@pytest.fixture
def client(redis: EmbeddedRedis) -> Iterator[Redis]:
    with Redis.from_url(redis.url) as client:
        yield client


@pytest.mark.usefixtures("is_eager")
def test_text_that_is_removed_in_any_way_leaves_every_file(
    redis: EmbeddedRedis, client: Redis, data_dir: Path, secret: str
) -> None:
    client.set("kept", f"kept {secret}")
    for name, remove in REMOVALS.items():
        client.set("removed", f"{name} {secret}")
        wait_until(functools.partial(find_text, data_dir, f"{name} {secret}"))
        remove(client, "removed")
        poll_until(redis, functools.partial(is_gone, data_dir, f"{name} {secret}"))
        assert find_text(data_dir, f"kept {secret}")
    redis.stop()
    redis.start()
    assert client.get("kept") == f"kept {secret}".encode()


async def try_as_readyz_does(url: str) -> None:
    async with aclosing(connect(url)) as client:
        await try_commands(client, with_removals=False)


@pytest.mark.usefixtures("is_eager")
def test_the_file_is_not_rewritten_while_nothing_is_removed(
    redis: EmbeddedRedis, client: Redis
) -> None:
    poll_until(redis, lambda: count_forks(client) == 1 and is_idle(client))  # that of the start
    for number in range(50):
        client.set(f"key {number}", "text")
        client.append("log", "text")
        assert redis.poll() is None
    asyncio.run(try_as_readyz_does(redis.url))
    assert redis.poll() is None
    assert count_forks(client) == 1
    client.unlink("log")
    poll_until(redis, lambda: count_forks(client) == 2)


def test_the_interval_between_two_rewrites_grows_with_the_size(
    redis: EmbeddedRedis, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def remove_and_poll(seconds: float) -> int:
        """Remove a key, and poll some seconds later; return the number of rewrites so far."""
        nonlocal now
        client.set("removed", "text")
        client.unlink("removed")
        now += seconds
        assert redis.poll() is None
        while not is_idle(client):
            os.sched_yield()
        return count_forks(client)

    assert remove_and_poll(0) == 1
    assert remove_and_poll(append_only_file.MIN_INTERVAL_S - 0.1) == 1
    assert remove_and_poll(append_only_file.CHECK_INTERVAL_S) == 2
    client.set("large", secrets.token_bytes(10 << 20))
    assert remove_and_poll(append_only_file.MIN_INTERVAL_S) == 3
    assert remove_and_poll(39) == 3  # 10 MiB are 40 s
    assert remove_and_poll(append_only_file.CHECK_INTERVAL_S) == 4


def test_a_stop_removes_what_was_deleted_just_before(
    redis: EmbeddedRedis, client: Redis, data_dir: Path, secret: str
) -> None:
    assert redis.poll() is None
    client.set("removed", secret)
    client.unlink("removed")
    redis.stop()
    assert not find_text(data_dir, secret)


@pytest.mark.usefixtures("is_eager")
def test_a_start_removes_what_a_killed_redis_has_left(
    redis: EmbeddedRedis, client: Redis, data_dir: Path, secret: str
) -> None:
    client.set("removed", secret)
    client.unlink("removed")
    (data_dir / "redis" / "temp-rewriteaof-bg-1.aof").write_text(secret)
    (data_dir / "redis" / "temp-1.rdb").write_text(secret)
    wait_until(lambda: not client.info("persistence")["aof_buffer_length"])  # it is written
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGKILL)
    wait_until(lambda: redis.poll() is not None)
    redis.stop()
    assert find_text(data_dir, secret)
    redis.start()
    poll_until(redis, lambda: is_gone(data_dir, secret))


@pytest.mark.usefixtures("is_eager")
def test_a_failed_rewrite_is_reported_and_repeated(
    redis: EmbeddedRedis,
    client: Redis,
    data_dir: Path,
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.set("removed", secret)
    client.unlink("removed")
    client.set("kept", "text")
    client.config_set("rdb-key-save-delay", 60_000_000)  # holds the process that rewrites
    process = psutil.Process(redis.pid)
    poll_until(redis, lambda: bool(process.children()))
    for child in process.children():
        child.kill()
    with caplog.at_level(logging.WARNING, "holdline"):
        poll_until(redis, lambda: "could not be rewritten" in caplog.text)
    assert find_text(data_dir, secret)
    client.config_set("rdb-key-save-delay", 0)
    for child in process.children():  # the next one may have begun
        child.kill()
    poll_until(redis, lambda: is_gone(data_dir, secret))


@pytest.mark.parametrize(
    ("removed", "consequence"),
    [
        ("", "all conversations will be lost when it stops"),
        ("redis", "all conversations will be lost when it stops"),
        ("redis/redis.sock", "Redis accepts no new connections"),
    ],
)
def test_files_that_are_removed_while_the_server_runs_are_reported(
    redis: EmbeddedRedis,
    client: Redis,
    data_dir: Path,
    removed: str,
    consequence: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    client.ping()
    (data_dir / removed).rename(data_dir.with_name("removed"))
    with caplog.at_level(logging.WARNING, "holdline"):
        for _ in range(3):
            assert redis.poll() is None
            now += append_only_file.CHECK_INTERVAL_S
    assert [consequence in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_files_out_of_reach_are_reported_and_do_not_end_the_supervisor(
    redis: EmbeddedRedis,
    number: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(os, "stat", fail)
        if number == errno.EMFILE:
            failing.setattr(socket, "socket", fail)
        Children([redis]).restart_dead(lambda: False)
    assert [f"({os.strerror(number)}): Redis may accept no" in one for one in caplog.messages] == [
        True
    ]


def test_a_stop_without_a_free_descriptor_ends_redis(redis: EmbeddedRedis) -> None:
    process = psutil.Process(redis.pid)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            socket.socket(socket.AF_UNIX)
        redis.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not process.is_running()


@pytest.mark.usefixtures("is_eager")
def test_a_rejected_info_is_not_taken_for_a_failed_rewrite(
    redis: EmbeddedRedis, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("removed", "text")
    client.unlink("removed")
    assert redis.poll() is None
    client.config_set("maxclients", 1)  # the connection of `client`
    with caplog.at_level(logging.WARNING, "holdline"):
        for _ in range(3):
            assert redis.poll() is None
        client.config_set("maxclients", 100)
        poll_until(redis, lambda: is_idle(client))
        assert redis.poll() is None
    assert caplog.messages == []


def test_a_snapshot_of_a_running_redis_is_restored(
    redis: EmbeddedRedis, client: Redis, data_dir: Path, tmp_path: Path
) -> None:
    """As in docs/operations.md."""
    client.set("before", "text", ex=1000)
    snapshot = tmp_path / "backup.rdb"
    path = client.connection_pool.connection_kwargs["path"]
    installed.require("redis-cli", REDIS_CLI)
    command = [REDIS_CLI, "-s", path, "--rdb", str(snapshot)]
    subprocess.run(command, check=True, capture_output=True)
    assert not (data_dir / "redis" / "dump.rdb").exists()  # or deleted text would stay in it
    client.set("after", "text")
    redis.stop()
    (data_dir / "redis").rename(data_dir / "redis.old")
    (data_dir / "redis").mkdir(0o700)
    (data_dir / "redis" / "appendonly.aof").write_bytes(snapshot.read_bytes())
    for _ in range(2):
        redis.start()
        assert client.keys() == [b"before"]
        assert 0 < client.ttl("before") <= 1000
        redis.stop()


def test_the_documented_program_copies_every_key_with_its_expiry(
    redis: EmbeddedRedis, client: Redis, data_dir: Path
) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    program = re.search(r"<<'EOF'\n(.*?)EOF\n", text, re.DOTALL)
    assert program
    client.set("holdline:instance", "\0\xff")
    client.hset("holdline:{owner}:conversation:c", mapping={"title": "t"})
    client.expire("holdline:{owner}:conversation:c", 1000)
    client.zadd("holdline:running:2", {"member": 1.5})
    client.set("other", "program")
    names = {name: client.dump(name) for name in client.keys("holdline:*")}
    with EmbeddedRedis(data_dir / "target") as second, Redis.from_url(second.url) as target:
        command = [sys.executable, "-c", program[1], redis.url, second.url]
        subprocess.run(command, check=True)
        assert {name: target.dump(name) for name in target.scan_iter()} == names
        assert 0 < target.ttl("holdline:{owner}:conversation:c") <= 1000
        assert target.ttl("holdline:instance") == -1


async def test_no_file_of_a_server_contains_the_words_of_a_deleted_conversation(
    upstream: ScriptedUpstream, question: str
) -> None:
    words = [f"{kind} {secrets.token_urlsafe(32)}" for kind in ("title", "system", "answer")]
    title, system, answer = words
    async with (
        holdline(OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m") as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        kept = await ask(client, upstream, f"to keep: {secrets.token_urlsafe(32)}", "yes")
        fields = {"title": title, "system": system}
        made = (await client.post("/api/conversations/", json=fields)).json()
        await ask(client, upstream, question, answer)
        for text in (*words, question):
            wait_until(functools.partial(find_text, server.home, text))
        assert (await client.delete(f"/api/conversations/{made['id']}")).status_code == 204
        await server.stop()
        assert [text for text in (*words, question) if find_text(server.home, text)] == []
        assert find_text(server.home, kept[0].id.partition(".")[0])
