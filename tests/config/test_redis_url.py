"""A server whose Redis rejects it, at the start or later, or is down."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from sessions import keys
from sessions.client.errors import TOTAL_TIMEOUT_S
from tests.config.test_process_restarts import wait_for_log, wait_for_ready
from tests.config.test_supervisor import find_children, model_settings
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S, ROOT, holdline
from tests.proxy import redis_proxy
from tests.streams import ask

PASSWORD = "a-secret-of-the-test"
RIGHTS = ("reset", "on", f">{PASSWORD}", "~holdline:*", "resetchannels", "&holdline:*", "+@all")


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[OwnRedis]:
    """Yield a Redis with a user `hold` that has the documented rights."""
    async with own_redis() as started:
        await set_user(started, *RIGHTS)
        yield started


def url_of(redis: OwnRedis, password: str = PASSWORD) -> str:
    """Return the URL of the user `hold`."""
    return f"{redis.url.replace('unix://', 'unix://hold@')}?password={password}"


async def set_user(redis: OwnRedis, *rules: str) -> None:
    """Change the rights of the user."""
    admin: Any = redis.admin
    await admin.execute_command("ACL", "SETUSER", "hold", *rules)


async def wait_for_reason(client: httpx.AsyncClient, reason: str) -> None:
    """Return when /readyz is a 503 with this reason."""
    async with asyncio.timeout(PATIENCE_S):
        while reason not in (ready := await client.get("/readyz")).json().get("reason", ""):
            await asyncio.sleep(0.05)
    assert (ready.status_code, ready.json()["status"]) == (503, "Redis is unavailable")
    assert PASSWORD not in ready.text


async def test_a_start_that_redis_rejects_ends_with_one_line(
    redis: OwnRedis, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "server.py"),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PORT": "0", "REDIS_URL": url_of(redis, "wrong-secret")},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE_S):
        printed, log = await process.communicate()
    assert (process.returncode, printed) == (1, b"")
    lines = [line for line in log.decode().splitlines() if " INFO " not in line]
    (line,) = lines
    assert line == (
        "holdline: cannot use REDIS_URL: Redis rejects the user or the password of REDIS_URL: "
        "correct them, with special characters percent-encoded"
    )


async def test_a_server_starts_while_redis_is_down_and_names_the_reason(
    redis: OwnRedis, upstream: ScriptedUpstream, question: str
) -> None:
    async with redis_proxy(redis.url) as proxy:
        proxy.refuse_connections()
        async with (
            holdline(REDIS_URL=proxy.url, **model_settings(upstream)) as server,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            assert "Redis refuses connections: the server starts" in server.read_log()
            await wait_for_reason(client, "Redis refuses connections")
            rejected = await client.post("/api/chat_stream/", json={"message": question})
            assert rejected.text.startswith("retry: 5000")
            await proxy.recover()
            await wait_for_ready(client, 200)
            await ask(client, upstream, question, "answered")
            redis.freeze()
            await wait_for_ready(client, 503)
            began = time.monotonic()
            ready = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
            assert time.monotonic() - began < TOTAL_TIMEOUT_S  # that of a command
            assert {one.json()["reason"] for one in ready} == {"Redis does not reply"}
            redis.thaw()
            await wait_for_ready(client, 200)


async def test_what_redis_may_lose_is_logged_once_it_serves(
    redis: OwnRedis, upstream: ScriptedUpstream
) -> None:
    warning = "with maxmemory-policy allkeys-lru, Redis deletes conversations"
    await redis.admin.config_set("maxmemory-policy", "allkeys-lru")
    settings = model_settings(upstream)
    async with redis_proxy(redis.url) as proxy:
        for is_down in (True, False):
            if is_down:
                proxy.refuse_connections()
            async with holdline(REDIS_URL=proxy.url, WORKERS="2", **settings) as server:
                if is_down:
                    assert warning not in server.read_log()
                    await proxy.recover()
                await wait_for_log(server, warning)
                async with asyncio.timeout(PATIENCE_S):
                    while (await redis.admin.pubsub_numsub(keys.stops()))[0][1] < 2:
                        await asyncio.sleep(0.02)
                assert await server.stop() == 0
                assert server.read_log().count(warning) == 1


REVOKED: dict[str, tuple[list[str], list[str], str]] = {
    "channels": (["resetchannels"], ["&holdline:*"], "rejects a channel"),
    "keys": (["resetkeys"], ["~holdline:*"], "rejects a key"),
    "user": (["off"], ["on"], "rejects the user or the password"),
    "password": (["resetpass", ">x"], [">" + PASSWORD], "rejects the user or the password"),
    **{
        name: ([f"-{name}"], [f"+{name}"], f"rejects the command {name}")
        for name in (
            "append", "evalsha", "publish", "subscribe", "zrangebyscore",
        )
    },
    "all commands": (["-@all"], ["+@all"], "rejects the command"),
}  # fmt: skip
"""For each right: the rules that revoke it and give it back, and the reason that is reported."""


LOGGED = {
    "channels": "holdline.batch: Redis unavailable (Redis's ACL rejects a channel",
    "keys": "cannot look for expired leases (Redis's ACL rejects a key",
    "evalsha": "cannot look for expired leases (Redis's ACL rejects the command evalsha",
    "subscribe": "lost the Redis pub/sub connection (Redis's ACL rejects the command subscribe",
}
"""The line that a background task logs while it does not have a right."""


async def test_a_right_that_is_revoked_ends_no_worker_and_is_reported_until_it_is_back(
    redis: OwnRedis, upstream: ScriptedUpstream, question: str
) -> None:
    """An answer runs the whole time, so that its commits are rejected too."""
    async with (
        holdline(REDIS_URL=url_of(redis), LEASE_S="60", **model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        client.stream("GET", "/api/chat_stream/", params={"message": question}) as answer,
    ):
        exchange = await upstream.exchange(question)
        workers = find_children(server.process.pid, "python")
        for name, (revoke, give_back, reason) in REVOKED.items():
            await set_user(redis, *revoke)
            await redis.admin.client_kill_filter(_type="pubsub")  # its rights are not checked again
            await exchange.send_text(f"{name} ")
            await wait_for_reason(client, reason)
            await wait_for_log(server, LOGGED.get(name, ""))
            await set_user(redis, *give_back)
            await wait_for_ready(client, 200)
            assert find_children(server.process.pid, "python") == workers, name
        await exchange.finish()
        text = (await answer.aread()).decode()
        assert f"data: {' '.join(REVOKED)} " in text
        await ask(client, upstream, question + "?", "answered")
        log = server.read_log()
        assert "Traceback" not in log
        assert PASSWORD not in log
        messages = [line.partition(" ")[2] for line in log.splitlines()]
        assert len(messages) == len(set(messages))  # the test takes less than a minute
