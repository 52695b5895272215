"""Redis on a bad day: replies lost, silence, death, refusals to write; no word is lost or said twice."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest
import uvloop
from httpx_sse import ServerSentEvent

from sessions.client.connection import Client, connect
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.client.scripts import SCRIPTS, call, ping
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S, free_ports, holdline, serving
from tests.proxy import Command, RedisProxy, redis_proxy
from tests.streams import STREAM, asking, read, text_of
from tests.viewer import Viewer

NO_REUSE = httpx.Limits(max_keepalive_connections=0)
"""Each request has a line of its own, and may meet another worker."""


def runs(script: str) -> Callable[[Command], bool]:
    """Whether a command runs this script."""
    sha = hashlib.sha1(SCRIPTS[script], usedforsecurity=False).hexdigest().encode()
    return lambda command: command[:2] == (b"EVALSHA", sha)


async def agree(client: httpx.AsyncClient, shown: list[ServerSentEvent], question: str) -> None:
    """Log, turn, history and conversation say what was shown, and that it is over."""
    begun = json.loads(shown[0].data)
    whole = await read(client, turn=begun["turn"])
    assert [(e.event, e.data, e.id) for e in whole] == [(e.event, e.data, e.id) for e in shown]
    assert [e.event for e in whole if e.event in ("end", "failed")] == ["end"]
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
        words = [f"<{number}>" for number in range(40)]
        async with asking(client, message=question) as source:
            arriving = source.aiter_sse()
            shown = [await anext(arriving)]
            exchange = await upstream.exchange(question)
            for word in words:
                await exchange.say(word)
                shown.append(await anext(arriving))  # each word is a commit of its own
            await exchange.finish()
            shown += [event async for event in arriving]
        assert [event.event for event in shown] == ["turn", *["message"] * 40, "usage", "end"]
        assert text_of(shown) == shown[-1].data == "".join(words)
        for script, times in (("begin", 1), ("commit", 40), ("finish", 1)):
            assert len([command for command in proxy.lost if runs(script)(command)]) == times
        assert len(upstream.asked(question)) == 1
        await agree(client, shown, question)


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
        await (await upstream.exchange(question)).answer("to the end")

        def renewed() -> int:
            ended = next(
                (i for i, command in enumerate(proxy.passed) if runs("finish")(command)), None
            )
            if ended is None:
                return 0
            return len([command for command in proxy.passed[ended:] if runs("renew")(command)])

        async with asyncio.timeout(PATIENCE_S):
            while renewed() < 2:  # the reply to the first of them has been read by then
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
        lines = (await call(client, "CLIENT", [], ["LIST"])).splitlines()
        used = [line for line in lines if b"cmd=echo" in line or b"cmd=client" in line]
        assert len(used) == 3  # the fourth is left for notifications
        await client.aclose()


async def test_a_redis_that_closes_connections_is_reported_as_unavailable() -> None:
    found: set[type[BaseException]] = set()

    async def ping_once(client: Client) -> None:
        try:
            await ping(client)
        except UNAVAILABLE_ERRORS:
            return
        except Exception as error:
            found.add(type(error))

    async def ping_often(url: str) -> None:
        client = connect(url)
        for _ in range(10):
            await asyncio.gather(*(ping_once(client) for _ in range(50)))
        await client.aclose()

    async with own_redis() as redis, redis_proxy(redis.url) as proxy:
        proxy.close_connections()
        # On the loop that the workers run on, whose words for a closed line are its own.
        await asyncio.to_thread(uvloop.run, ping_often(proxy.url))
    assert found == set()


Outage = Callable[[OwnRedis, RedisProxy], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def frozen(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis is there and says nothing."""
    redis.freeze()
    yield
    redis.thaw()


@asynccontextmanager
async def stalled(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """The network takes everything and passes it on late."""
    proxy.stall()
    yield
    await proxy.recover()


@asynccontextmanager
async def refused(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Nobody listens for ten seconds."""
    proxy.refuse_connections()
    yield
    await asyncio.sleep(10)  # how long it is away, not how long anything takes
    await proxy.recover()


@asynccontextmanager
async def killed(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """Redis dies and is started again on its append-only file."""
    await redis.kill()
    yield
    await redis.start()


@asynccontextmanager
async def loading(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    proxy.reply_with_error(b"LOADING Redis is loading the dataset in memory")
    yield
    await proxy.recover()


@asynccontextmanager
async def out_of_memory(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    await redis.admin.config_set("maxmemory", 1)
    yield
    await redis.admin.config_set("maxmemory", 0)


@asynccontextmanager
async def read_only(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """A replica whose master is dead, and which shows what it has."""
    await redis.admin.replicaof("127.0.0.1", str(free_ports(1)[0]))
    yield
    await redis.admin.replicaof("NO", "ONE")


@asynccontextmanager
async def without_a_master(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """A replica whose master is dead, and which shows nothing."""
    await redis.admin.config_set("replica-serve-stale-data", "no")
    async with read_only(redis, proxy):
        yield


@asynccontextmanager
async def without_replicas(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    await redis.admin.config_set("min-replicas-to-write", 1)
    yield
    await redis.admin.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def with_a_bad_disk(redis: OwnRedis, proxy: RedisProxy) -> AsyncIterator[None]:
    """A snapshot cannot be written, for its name is a folder's."""
    (redis.home / "dump.rdb").mkdir()
    await redis.admin.config_set("save", "3600 1")
    await saved(redis, "err")
    yield
    (redis.home / "dump.rdb").rmdir()
    await saved(redis, "ok")


async def saved(redis: OwnRedis, status: str) -> None:
    """Have a snapshot written, and return when it has gone as expected."""
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
    await live_through(outage, upstream, question)


async def test_a_long_redis_outage_during_an_answer_loses_no_text(
    upstream: ScriptedUpstream, question: str
) -> None:
    outages = (frozen, stalled, refused)  # at once, since it takes 10 s to give up on a silence
    await asyncio.gather(
        *(
            live_through(outage, upstream, f"{number} {question}")
            for number, outage in enumerate(outages)
        )
    )


async def live_through(outage: Outage, upstream: ScriptedUpstream, question: str) -> None:
    """Ask, take Redis away in mid-answer, give it back: nothing is missing, and all goes on."""
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
        await exchange.say("before, ")
        shown.append(await anext(arriving))
        conversation = (await client.post("/api/conversations/", json={})).json()["id"]
        other = {"message": f"other {question}", "conversation": conversation}
        async with outage(redis, proxy):
            await exchange.say("meanwhile, ")
            # A new question waits for nobody: its EventSource is told to come back.
            told, refusal, ready = await asyncio.gather(
                client.get(STREAM, params=other),
                client.post("/api/conversations/", json={}),
                client.get("/readyz"),
            )
            assert (told.status_code, told.text[:14]) == (200, "retry: 5000\n: ")
            assert (refusal.status_code, refusal.json()["error"]["type"]) == (503, "unavailable")
            assert ready.status_code in (200, 503)  # who refuses to write may answer all the same
            await exchange.say("still, ")
        await exchange.say("after")
        await exchange.finish()
        shown += [
            event async for event in arriving if event.data
        ]  # on the line that it had all the while
        assert text_of(shown) == shown[-1].data == "before, meanwhile, still, after"
        await agree(client, shown, question)
        assert len([e for e in upstream.exchanges if e.messages[0]["content"] == question]) == 1

        reading = asyncio.create_task(read(client, None, **other))
        await (await upstream.exchange(other["message"])).answer("and on we go")
        await agree(client, await reading, other["message"])
        assert len(upstream.asked(other["message"])) == 1
        assert "Traceback" not in server.logged()


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
            worker = serving(exchange.line)
            os.kill(worker, signal.SIGSTOP)  # the next line is the other worker's
            far.connect()
            await far.begun.wait()
            os.kill(worker, signal.SIGCONT)
            await exchange.say(f"kept of {question} ")
            async with asyncio.timeout(PATIENCE_S):
                while "kept" not in far.text:
                    await asyncio.sleep(0.01)
            (log,) = [
                key async for key in redis.admin.scan_iter(f"holdline:*:records:{query['turn']}")
            ]
            kept = await redis.admin.get(log) or b""
            await exchange.say("and lost ")
            async with asyncio.timeout(PATIENCE_S):
                while "lost" not in far.text:
                    await asyncio.sleep(0.01)

            # A failover to a replica that had not yet heard of the end.
            await redis.admin.set(log, kept)
            await exchange.say("and never heard of ")
            await exchange.closed.wait()
            await redis.admin.hset(log.replace(b":log:", b":turn:"), "lease", 0)
            again = await upstream.continued(f"kept of {question} ")
            await again.answer("and made anew, at some length, ", "to the very end")
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(near.see_it_end(), far.see_it_end())
            whole = f"kept of {question} and made anew, at some length, to the very end"
            assert (near.text, far.text) == (whole, whole)


async def test_a_turn_with_an_invalid_log_does_not_affect_other_turns(
    upstream: ScriptedUpstream, question: str
) -> None:
    """Whoever wrote something else under its keys: the worker that would take the turn over goes on."""
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
            worker = serving(exchange.line)
            (log,) = [key async for key in redis.admin.scan_iter("holdline:*:records:*")]
            await redis.admin.delete(log)
            await redis.admin.rpush(log, "no log")
            await exchange.say("unheard")
        async with asyncio.timeout(PATIENCE_S):
            while "cannot be taken over" not in server.logged():
                await asyncio.sleep(0.02)
        client.cookies.clear()
        other = asyncio.create_task(read(client, message=question + "?"))
        exchange = await upstream.exchange(question + "?")
        assert serving(exchange.line) == worker
        await exchange.answer("as ever")
        assert (await other)[-1].data == "as ever"
