"""The number of exchanges with Redis, counted at the socket, that a request or a takeover takes."""

import asyncio
import hashlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest_asyncio

from sessions import keys
from sessions.client.scripts import SCRIPTS
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S, Server, find_worker, holdline
from tests.proxy import RedisProxy, redis_proxy
from tests.streams import STREAM, ask, asking

NAMES = {
    hashlib.sha1(text, usedforsecurity=False).hexdigest().encode(): name
    for name, text in SCRIPTS.items()
}
BACKGROUND = {"expired", "PING", "CLIENT", "INFO", "identify"}
"""Calls of the takeover's poll, of the pub/sub connection, of a new connection and of the memory
watch, and the one with which a worker learns the identity of its servers."""

SESSION = ["GETEX"]


@dataclass
class Site:
    """A server of two workers whose exchanges with Redis are recorded."""

    redis: OwnRedis
    proxy: RedisProxy
    client: httpx.AsyncClient
    server: Server

    def exchanges(self) -> list[list[str]]:
        """Return the commands and scripts of every exchange since the last call, by name."""
        found = [
            [
                NAMES[command[1]] if command[0] == b"EVALSHA" else command[0].decode()
                for command in exchange
            ]
            for exchange in self.proxy.exchanges
        ]
        self.proxy.exchanges.clear()
        return [names for names in found if not BACKGROUND.issuperset(names)]

    def other_worker(self, worker: int) -> int:
        """Return the worker that is not `worker`."""
        parent = psutil.Process(worker).parent()
        assert parent
        return next(
            child.pid
            for child in parent.children()
            if child.pid != worker and "redis-server" not in child.name()
        )


async def have_workers_started(redis: OwnRedis, proxy: RedisProxy) -> bool:
    """Return whether both workers receive notifications, and one has looked for warnings."""
    commands = [command for exchange in proxy.exchanges for command in exchange]
    have_looked = sum(b"NX" in command for command in commands) == 2
    has_read = any(command[0] == b"CONFIG" for command in commands)
    ((_, receivers),) = await redis.admin.pubsub_numsub(keys.stops())
    return have_looked and has_read and receivers == 2


@pytest_asyncio.fixture
async def site(upstream: ScriptedUpstream) -> AsyncIterator[Site]:
    limits = httpx.Limits(max_keepalive_connections=0)  # each request may meet another worker
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(
            REDIS_URL=proxy.url,
            WORKERS="2",
            LEASE_S="60",
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client,
    ):
        await client.get("/")
        async with asyncio.timeout(PATIENCE_S):
            while not await have_workers_started(redis, proxy):
                await asyncio.sleep(0.02)
        yield Site(redis, proxy, client, server)


async def test_the_server_loads_all_scripts_in_one_exchange(site: Site) -> None:
    loading = [names for names in site.exchanges() if {*names} == {"SCRIPT"}]
    assert loading == [["SCRIPT"] * len(SCRIPTS)]


async def test_a_question_takes_seven_exchanges_besides_commits_and_eight_in_a_known_conversation(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    # The first question also stores the session.
    for number, (known, stored) in enumerate((([], [["SET"]]), ([["HMGET"]], []))):
        site.exchanges()
        await ask(site.client, upstream, f"{question} {number}", "an answer")
        # The attempt to reach the upstream is committed, and then the answer.
        assert [names for names, _ in itertools.groupby(site.exchanges())] == [
            SESSION,
            ["GET"],
            *known,
            ["begin"],
            ["admit"],
            ["register", "begin"],
            *stored,
            ["HGET", "branch"],
            ["commit"],
            ["finish"],
            ["unregister"],
        ]


async def test_a_reconnect_to_a_finished_turn_takes_two_exchanges_and_its_session(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(site.client, upstream, question, "an answer")
    turn = json.loads(events[0].data)["turn"]
    for last_id in ("", events[1].id, events[-1].id):
        site.exchanges()
        headers = {"Last-Event-ID": last_id} if last_id else {}
        response = await site.client.get(STREAM, params={"turn": turn}, headers=headers)
        assert response.status_code == (204 if last_id == events[-1].id else 200)
        assert site.exchanges() == [SESSION, ["HMGET"], ["read"]]


async def test_a_reconnect_to_a_running_turn_takes_one_exchange_and_three_on_another_worker(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    turn = "turn-" + question[-32:]
    async with asking(site.client, message=question, turn=turn) as source:
        arriving = source.aiter_sse()
        await anext(arriving)
        exchange = await upstream.exchange(question)
        await exchange.send_text("before")
        event = await anext(arriving)
    worker = find_worker(exchange.connection)
    elsewhere = [["SUBSCRIBE"], ["read"]]
    for stopped, more in ((site.other_worker(worker), []), (worker, elsewhere)):
        os.kill(stopped, signal.SIGSTOP)
        site.exchanges()
        async with asking(site.client, {"Last-Event-ID": event.id}, turn=turn) as source:
            async with asyncio.timeout(PATIENCE_S):
                await anext(source.response.aiter_raw())
            assert site.exchanges() == [SESSION, ["HMGET"], *more]
        os.kill(stopped, signal.SIGCONT)
    await exchange.finish()


async def test_a_takeover_takes_three_exchanges(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(site.client, message=question) as source:
        arriving = source.aiter_sse()
        turn = json.loads((await anext(arriving)).data)["turn"]
        exchange = await upstream.exchange(question)
        await exchange.send_text("before ")
        await anext(arriving)
    worker = find_worker(exchange.connection)
    os.kill(worker, signal.SIGSTOP)
    (key,) = [key async for key in site.redis.admin.scan_iter(f"holdline:*:turn:{turn}")]
    members: list[Any] = await site.redis.admin.zrange(keys.running(), 0, -1)
    site.exchanges()
    await site.redis.admin.hset(key, "lease", 0)
    await site.redis.admin.zadd(keys.running(), dict.fromkeys(members, 0))
    again = await upstream.continued("before ")
    taken = site.exchanges()
    os.kill(worker, signal.SIGKILL)
    await again.answer("after")
    assert taken[:4] == [["HGET"], ["take_over"], ["read"], ["HGET", "branch"]]
