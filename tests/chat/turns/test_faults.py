"""Faults of Redis (lost replies, timeouts, crashes, rejected writes) lose and repeat no text."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvloop
from httpx_sse import ServerSentEvent

from sessions import keys
from sessions.client.connection import Client, connect
from sessions.client.errors import TOTAL_TIMEOUT_S, UNAVAILABLE_ERRORS
from sessions.client.scripts import SCRIPTS, call
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S, find_worker, free_ports, holdline
from tests.proxy import Command, RedisProxy, redis_proxy
from tests.streams import STREAM, asking, read, text_of
from tests.viewer import Viewer

NO_REUSE = httpx.Limits(max_keepalive_connections=0)
"""Each request opens a connection, which any worker may accept."""


def runs(script: str) -> Callable[[Command], bool]:
    """Return a predicate: whether a command runs this script."""
    sha = hashlib.sha1(SCRIPTS[script], usedforsecurity=False).hexdigest().encode()
    return lambda command: command[:2] == (b"EVALSHA", sha)


async def assert_consistent(
    client: httpx.AsyncClient, shown: list[ServerSentEvent], question: str
) -> None:
    """Check that log and history contain the frames shown, and that the turn has ended."""
    begun = json.loads(shown[0].data)
    full = await read(client, turn=begun["turn"])
    assert [(e.event, e.data, e.id) for e in full] == [(e.event, e.data, e.id) for e in shown]
    assert [e.event for e in full if e.event in ("end", "failed")] == ["end"]
    conversation = (await client.get(f"/api/conversations/{begun['conversation']}")).json()
    assert conversation["running"] is None
    assert [m["content"] for m in conversation["messages"]] == [question, text_of(shown)]


async def test_a_script_whose_reply_is_lost_takes_effect_once(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(
            REDIS_URL=proxy.url, LEASE_S="60", OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m"
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        proxy.lose_replies(lambda command: command[0] == b"EVALSHA")
        deltas = [f"<{number}>" for number in range(40)]
        async with asking(client, message=question) as source:
            arriving = source.aiter_sse()
            shown = [await anext(arriving)]
            exchange = await upstream.exchange(question)
            for delta in deltas:
                await exchange.send_text(delta)
                shown.append(await anext(arriving))  # each delta is one commit
            await exchange.finish()
            shown += [event async for event in arriving]
        assert [event.event for event in shown] == ["turn", *["message"] * 40, "usage", "end"]
        assert text_of(shown) == shown[-1].data == "".join(deltas)
        # `begin` first only checks. The commits: the record of the attempt, and each delta.
        for script, times in (("begin", 2), ("admit", 1), ("commit", 41), ("finish", 1)):
            assert len([command for command in proxy.lost if runs(script)(command)]) == times
        assert len(upstream.find_requests(question)) == 1
        await assert_consistent(client, shown, question)


async def test_a_lease_renewal_while_the_turn_finishes_disconnects_no_viewer(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(
            REDIS_URL=proxy.url, LEASE_S="0.5", OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m"
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        proxy.hold_replies(runs("finish"))
        reading = asyncio.create_task(read(client, message=question))
        await (await upstream.exchange(question)).answer("complete")

        def count_renewals() -> int:
            """Return the number of renewals since the turn finished."""
            finished = next(
                (i for i, command in enumerate(proxy.passed) if runs("finish")(command)), None
            )
            if finished is None:
                return 0
            return len([command for command in proxy.passed[finished:] if runs("renew")(command)])

        async with asyncio.timeout(PATIENCE_S):
            while count_renewals() < 2:  # the reply to the first one has been read by then
                await asyncio.sleep(0.01)
        await proxy.recover()
        assert [event.event for event in await reading] == ["turn", "message", "usage", "end"]


async def test_the_client_opens_no_more_connections_than_the_url_allows() -> None:
    async with own_redis() as redis:
        client = connect(f"{redis.url}{'&' if '?' in redis.url else '?'}max_connections=4")
        replies = await asyncio.gather(
            *(call(client, "ECHO", [], [number]) for number in range(100))
        )
        assert replies == [b"%d" % number for number in range(100)]
        listed = (await call(client, "CLIENT", [], ["LIST"])).splitlines()
        used = [line for line in listed if b"cmd=echo" in line or b"cmd=client" in line]
        assert len(used) == 3  # the fourth is left for notifications
        await client.aclose()


async def test_a_redis_that_closes_connections_is_reported_as_unavailable() -> None:
    unexpected: set[type[BaseException]] = set()

    async def ping_once(client: Client) -> None:
        try:
            await call(client, "PUBLISH", [keys.stops()], [""])
        except UNAVAILABLE_ERRORS:
            return
        except Exception as error:
            unexpected.add(type(error))

    async def ping_often(url: str) -> None:
        client = connect(url)
        for _ in range(10):
            await asyncio.gather(*(ping_once(client) for _ in range(50)))
        await client.aclose()

    async with own_redis() as redis, redis_proxy(redis.url) as proxy:
        proxy.close_connections()
        # On uvloop, as the workers run: its errors for a closed connection differ from asyncio's.
        await asyncio.to_thread(uvloop.run, ping_often(proxy.url))
    assert unexpected == set()


Outage = Callable[[OwnRedis, RedisProxy], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def frozen(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis accepts connections and does not reply."""
    redis.freeze()
    yield
    redis.thaw()


@asynccontextmanager
async def stalled(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """The network accepts all data and delivers it when the outage ends."""
    proxy.stall()
    yield
    await proxy.recover()


@asynccontextmanager
async def refused(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Connections are refused until the client has given up on a command."""
    proxy.refuse_connections()
    yield
    await asyncio.sleep(TOTAL_TIMEOUT_S)  # the length of the outage is the condition under test
    await proxy.recover()


@asynccontextmanager
async def killed(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis is killed and restarted with its append-only file."""
    await redis.kill()
    yield
    await redis.start()


@asynccontextmanager
async def loading(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis replies that it is loading its data."""
    proxy.reply_with_error(b"LOADING Redis is loading the dataset in memory")
    yield
    await proxy.recover()


@asynccontextmanager
async def out_of_memory(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis has reached `maxmemory`."""
    await redis.admin.config_set("maxmemory", 1)
    yield
    await redis.admin.config_set("maxmemory", 0)


@asynccontextmanager
async def read_only(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis is a replica without a master, which serves stale data and rejects writes."""
    await redis.admin.replicaof("127.0.0.1", str(free_ports(1)[0]))
    yield
    await redis.admin.replicaof("NO", "ONE")


@asynccontextmanager
async def without_a_master(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis is a replica without a master, which serves no data."""
    await redis.admin.config_set("replica-serve-stale-data", "no")
    async with read_only(redis, proxy):
        yield


@asynccontextmanager
async def without_replicas(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis has fewer replicas than `min-replicas-to-write` requires."""
    await redis.admin.config_set("min-replicas-to-write", 1)
    yield
    await redis.admin.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def with_a_bad_disk(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis cannot write a snapshot, because a folder has its name, and rejects writes."""
    (redis.home / "dump.rdb").mkdir()
    await redis.admin.config_set("save", "3600 1")
    await save_snapshot(redis, "err")
    yield
    (redis.home / "dump.rdb").rmdir()
    await save_snapshot(redis, "ok")


async def save_snapshot(redis: OwnRedis, status: str) -> None:
    """Start a snapshot and return when it has this status."""
    await redis.admin.bgsave()
    async with asyncio.timeout(PATIENCE_S):
        while (await redis.admin.info("persistence"))["rdb_last_bgsave_status"] != status:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "outage",
    [
        killed,
        loading,
        out_of_memory,
        read_only,
        without_a_master,
        without_replicas,
        with_a_bad_disk,
    ],
)
async def test_a_redis_outage_during_an_answer_loses_no_text(
    outage: Outage, upstream: ScriptedUpstream, question: str
) -> None:
    await run_faults(outage, upstream, question)


async def test_a_long_redis_outage_during_an_answer_loses_no_text(
    upstream: ScriptedUpstream, question: str
) -> None:
    outages = (frozen, stalled, refused)  # concurrently: each lasts about 10 s
    await asyncio.gather(
        *(
            run_faults(outage, upstream, f"{number} {question}")
            for number, outage in enumerate(outages)
        )
    )


async def run_faults(outage: Outage, upstream: ScriptedUpstream, question: str) -> None:
    """Make Redis unavailable during an answer; check that no text is lost and service resumes."""
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(REDIS_URL=proxy.url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        asking(client, message=question) as source,
    ):
        arriving = source.aiter_sse()
        shown = [await anext(arriving)]
        exchange = await upstream.exchange(question)
        await exchange.send_text("before, ")
        shown.append(await anext(arriving))
        conversation = (await client.post("/api/conversations/", json={})).json()["id"]
        other = {"message": f"other {question}", "conversation": conversation}
        async with outage(redis, proxy):
            await exchange.send_text("during, ")
            # A new question does not wait for Redis: its EventSource is asked to retry, unless
            # the memory is full.
            retry, rejected, ready = await asyncio.gather(
                client.get(STREAM, params=other),
                client.post("/api/conversations/", json={}),
                client.get("/readyz"),
            )
            if outage is out_of_memory:
                assert (retry.status_code, rejected.status_code) == (507, 507)
                assert rejected.json()["error"]["type"] == "storage_full"
            else:
                assert (retry.status_code, retry.text[:14]) == (200, "retry: 5000\n: ")
                assert rejected.status_code == 503
                assert rejected.json()["error"]["type"] == "unavailable"
            assert ready.status_code in (200, 503)  # a Redis that rejects writes may answer PING
            await exchange.send_text("still, ")
        await exchange.send_text("after")
        await exchange.finish()
        # The connection stayed open; heartbeats are empty messages.
        shown += [event async for event in arriving if event.data]
        assert text_of(shown) == shown[-1].data == "before, during, still, after"
        await assert_consistent(client, shown, question)
        assert len([e for e in upstream.exchanges if e.messages[0]["content"] == question]) == 1

        async with asyncio.timeout(PATIENCE_S):  # a worker looks for free memory once a second
            while (await client.post("/api/conversations/", json={})).status_code == 507:
                await asyncio.sleep(0.2)
        reading = asyncio.create_task(read(client, None, **other))
        await (await upstream.exchange(other["message"])).answer("answered later")
        await assert_consistent(client, await reading, other["message"])
        assert len(upstream.find_requests(other["message"])) == 1
        assert "Traceback" not in server.read_log()


async def test_a_truncated_log_is_replayed_on_every_worker(
    upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        own_redis() as redis,
        holdline(
            REDIS_URL=redis.url,
            WORKERS="2",
            LEASE_S="60",
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
        ) as server,
        httpx.AsyncClient(base_url=server.url, limits=NO_REUSE, timeout=60) as client,
    ):
        await client.get("/")
        query = {"message": question, "turn": "turn-" + question[-32:]}
        async with Viewer(client, query) as near, Viewer(client, query) as far:
            near.connect()
            exchange = await upstream.exchange(question)
            worker = find_worker(exchange.connection)
            os.kill(worker, signal.SIGSTOP)  # the other worker accepts the next connection
            far.connect()
            await far.begun.wait()
            os.kill(worker, signal.SIGCONT)
            await exchange.send_text(f"stored of {question} ")
            async with asyncio.timeout(PATIENCE_S):
                while "stored" not in far.text:
                    await asyncio.sleep(0.01)
            (log,) = [
                key async for key in redis.admin.scan_iter(f"holdline:*:records:{query['turn']}")
            ]
            stored = await redis.admin.get(log) or b""
            await exchange.send_text("and lost ")
            async with asyncio.timeout(PATIENCE_S):
                while "lost" not in far.text:
                    await asyncio.sleep(0.01)

            # As after a failover to a replica that lacks the end of the log.
            await redis.admin.set(log, stored)
            await exchange.send_text("and rejected ")
            await exchange.closed.wait()
            # The lease expires, for the script that takes over and for the worker that polls.
            await redis.admin.hset(log.replace(b":records:", b":turn:"), "lease", 0)
            running: Any = await redis.admin.zrange(keys.running(), 0, -1)
            await redis.admin.zadd(keys.running(), dict.fromkeys(running, 0))
            again = await upstream.continued(f"stored of {question} ")
            await again.answer("and generated again, after the failover, ", "to the very end")
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(near.read_to_end(), far.read_to_end())
            full = f"stored of {question} and generated again, after the failover, to the very end"
            assert (near.text, far.text) == (full, full)


async def test_a_turn_with_an_invalid_log_does_not_affect_other_turns(
    upstream: ScriptedUpstream, question: str
) -> None:
    """The worker drops the log, takes the turn over and keeps running."""
    async with (
        own_redis() as redis,
        holdline(
            REDIS_URL=redis.url, LEASE_S="0.5", OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m"
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        async with asking(client, message=question) as source:
            await anext(source.aiter_sse())
            exchange = await upstream.exchange(question)
            worker = find_worker(exchange.connection)
            (log,) = [key async for key in redis.admin.scan_iter("holdline:*:records:*")]
            await redis.admin.delete(log)
            await redis.admin.rpush(log, "not a log")
            await exchange.send_text("lost")
        async with asyncio.timeout(PATIENCE_S):
            while "it is a list instead of a string" not in server.read_log():
                await asyncio.sleep(0.02)
        client.cookies.clear()
        other = asyncio.create_task(read(client, message=question + "?"))
        exchange = await upstream.exchange(question + "?")
        assert find_worker(exchange.connection) == worker
        await exchange.answer("as before")
        assert (await other)[-1].data == "as before"
