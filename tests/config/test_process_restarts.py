"""Processes that die are started again, with a delay that grows while they die soon."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from config.children.restarts import Restarts
from tests.config.test_supervisor import find_children, model_settings, wait_until_written
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, ROOT, Server, holdline
from tests.streams import ask

SUPERVISED = """
import os, sys, signal, threading
from pathlib import Path
from config import supervisor
from config.listener import listen
from config.supervisor import Supervisor

supervisor.GIVE_UP_S = float(sys.argv[2])
starts = Path(sys.argv[1])

def serve(listener, channel):
    with starts.open("a") as file:
        file.write("start\\n")
    if starts.read_text().count("start") <= int(sys.argv[3]):
        os._exit(3)
    channel.report_ready()
    signal.pause()

def stop():
    os.kill(os.getpid(), signal.SIGTERM)

status = Supervisor(serve, listen("127.0.0.1", 0), 1, [], 0).run(stop, print)
sys.exit(status + 10)
"""


async def supervise(starts: Path, give_up_s: float, failures: int) -> tuple[int, str]:
    """Run a supervisor whose worker dies at its first starts; return its exit status and log."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISED, str(starts), str(give_up_s), str(failures),
        cwd=ROOT, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        _, log = await process.communicate()
    assert process.returncode is not None
    return process.returncode - 10, log.decode()


def test_the_delay_after_a_short_life_doubles_to_30_s() -> None:
    restarts, now, delays = Restarts(), 1000.0, []
    for _ in range(9):
        restarts.note_start(now)
        now += 9.9
        delays.append(restarts.note_death(now))
        now = restarts.due_at
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_process_that_lived_ten_seconds_is_restarted_at_once() -> None:
    restarts = Restarts()
    restarts.note_start(0)
    assert restarts.note_death(1) == 0.5
    restarts.note_start(2)
    assert (restarts.note_death(12), restarts.due_at) == (0, 12)
    restarts.note_start(12)
    assert restarts.note_death(13) == 0.5


async def test_a_worker_that_fails_to_start_is_started_again(tmp_path: Path) -> None:
    status, log = await supervise(tmp_path / "starts", 300, failures=2)
    assert status == 0
    assert "died (exit status 3); replacing it in 0.5 s" in log
    assert "died (exit status 3); replacing it in 1 s" in log
    assert (tmp_path / "starts").read_text().count("start") == 3


async def test_the_server_exits_if_no_worker_becomes_ready(tmp_path: Path) -> None:
    status, log = await supervise(tmp_path / "starts", 1, failures=1000)
    assert status == 1
    assert "no worker has become ready for 1 s" in log
    assert 2 <= (tmp_path / "starts").read_text().count("start") <= 4


async def wait_for_log(server: Server, text: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while text not in server.read_log():
            await asyncio.sleep(0.02)


async def freeze_redis(server: Server) -> tuple[int, Path]:
    """Freeze the embedded Redis; return its process id, and the file to which it appends."""
    (redis,) = find_children(server.process.pid, "redis")
    os.kill(redis, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE_S):  # an fsync ends first
        while psutil.Process(redis).status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.02)
    # A rewrite that begins may have created a file that its manifest does not name yet.
    folder = server.home / "data" / "redis" / "appendonlydir"
    files = re.findall(
        r"^file (\S+) seq \d+ type i",
        (folder / "appendonly.aof.manifest").read_text(),
        re.MULTILINE,
    )
    return redis, folder / files[-1]


async def wait_for_ready(client: httpx.AsyncClient, status: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get("/readyz")).status_code != status:
            await asyncio.sleep(0.02)


async def test_an_embedded_redis_that_cannot_start_is_tried_again(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(**model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await ask(client, upstream, question, "stored")
        await wait_until_written(server)
        workers = find_children(server.process.pid, "python")
        redis, log = await freeze_redis(server)
        intact = log.read_bytes()
        with log.open("ab") as file:
            file.write(b"damaged\r\nby a failing disk\r\n")
        os.kill(redis, signal.SIGKILL)
        await wait_for_log(server, "embedded Redis cannot start: Redis exited")
        await wait_for_log(server, "(next try in 1 s)")
        assert (await client.get("/readyz")).status_code == 503
        assert find_children(server.process.pid, "python") == workers
        log.write_bytes(intact)
        await wait_for_ready(client, 200)
        (conversation,) = (await client.get("/api/conversations/")).json()["conversations"]
        assert conversation["title"] == question


async def test_a_server_whose_redis_cannot_start_still_stops(upstream: ScriptedUpstream) -> None:
    async with holdline(**model_settings(upstream)) as server:
        redis, log = await freeze_redis(server)
        with log.open("ab") as file:
            file.write(b"damaged\r\nby a failing disk\r\n")
        os.kill(redis, signal.SIGKILL)
        await wait_for_log(server, "embedded Redis cannot start")
        assert await server.stop() == 0


@pytest.mark.parametrize("lifetime_s", [0.0, 9.99])
def test_a_short_life_is_less_than_ten_seconds(lifetime_s: float) -> None:
    restarts = Restarts()
    restarts.note_start(0)
    assert restarts.note_death(lifetime_s) > 0
