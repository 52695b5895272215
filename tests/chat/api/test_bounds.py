"""Bounds of what a client can cause: sizes, rates, stored bytes, and requests that are kept."""

import asyncio
import gc
import json
import secrets
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sanic import Sanic

from chat.api.http.request import PrefixedRequest
from chat.api.http.server import HttpServer
from config.settings import Settings
from server import create_app
from sessions.client.connection import Client, connect
from tests.chat.api.test_conversations import LIST, create, error_of
from tests.chat.turns.test_prompt_cost import owner_of
from tests.conftest import KEY
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, REDIS_KINDS, Server, holdline, redis_of_kind
from tests.sessions.test_storage_limits import fill, set_maxmemory
from tests.streams import STREAM, ask, asking, read

SYSTEM_MAX = 8000


@pytest_asyncio.fixture(scope="module")
async def strict(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server with a low RATE_LIMIT and a low OWNER_MAX_BYTES."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY,
        CHAT_MODEL="m", RATE_LIMIT="2/hour", OWNER_MAX_BYTES="20000",
    ) as started:  # fmt: skip
        yield started


@pytest_asyncio.fixture
async def browser(strict: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=strict.url, timeout=PATIENCE_S) as client:
        yield client


# Sizes


@pytest.mark.parametrize("character", ["x", "文", "😀"])
async def test_a_system_prompt_has_at_most_8000_characters(
    client: httpx.AsyncClient, character: str
) -> None:
    created = await create(client, system=character * SYSTEM_MAX)
    assert created["system"] == character * SYSTEM_MAX
    path = LIST + created["id"]
    too_long = {"system": character * (SYSTEM_MAX + 1)}
    assert error_of(await client.post(LIST, json=too_long)) == (400, "bad_request")
    assert error_of(await client.patch(path, json=too_long)) == (400, "bad_request")
    assert (await client.get(path)).json()["system"] == created["system"]


async def test_a_system_prompt_counts_in_the_budget_of_tokens(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY,
            CHAT_MODEL="m", CONTEXT_TOKENS="2200", RATE_LIMIT="off",
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
    ):  # fmt: skip
        found = {}
        for system in ("s", "s" * SYSTEM_MAX):
            created = await create(client, system=system)
            asked = f"{question} {len(system)}"
            for number in range(3):
                text = f"{asked} {number} {'w' * 800}"
                await ask(client, upstream, text, "a" * 800, conversation=created["id"])
            found[system] = len((await upstream.exchange(text)).messages)
    assert found == {"s": 6, "s" * SYSTEM_MAX: 2}


@pytest.mark.parametrize("character", ["x", "文", "😀", "\x01", '"', "\\", "<"])
async def test_a_list_of_200_conversations_is_under_200_kb(
    client: httpx.AsyncClient, redis: Client, character: str
) -> None:
    created = await create(client, title=character * 120, system="s" * SYSTEM_MAX)
    owner = await owner_of(redis, created["id"])
    fields = await redis.hgetall(f"holdline:{{{owner}}}:conversation:{created['id']}")
    pipeline = redis.pipeline(transaction=False)
    for number in range(199):
        name = f"added-{number:010}"
        pipeline.hset(
            f"holdline:{{{owner}}}:conversation:{name}", mapping={**fields, "running": "t" * 64}
        )
        pipeline.zadd(f"holdline:{{{owner}}}:conversations", {name: number})
    await pipeline.execute()
    response = await client.get(LIST, params={"limit": "200"})
    assert len(response.json()["conversations"]) == 200
    assert response.json()["conversations"][0]["title"] == character * 120
    assert len(response.content) < 200_000
    assert "system" not in response.json()["conversations"][0]


async def test_a_conversation_too_large_for_one_response_says_that_there_are_earlier_messages(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    events = await ask(client, upstream, question, "first")
    conversation = json.loads(events[0].data)["conversation"]
    owner = await owner_of(redis, conversation)
    name = f"holdline:{{{owner}}}:conversation:{conversation}"
    head = (await redis.hget(name, "head")).decode()
    for number in range(12):
        body = {"role": "user", "content": "x" * 500_000, "created": 1, "turn": "t" * 16}
        key = f"holdline:{{{owner}}}:messages:{conversation}"
        await redis.hset(key, f"large-{number:010}", f"{head}\n{json.dumps(body)}")
        head = f"large-{number:010}"
    await redis.hset(name, "head", head)
    found = (await client.get(LIST + conversation)).json()
    assert found["earlier"]
    assert len(found["messages"]) < 12
    before = found["messages"][0]["id"]
    rest = (await client.get(LIST + conversation, params={"before": before})).json()
    assert not rest["earlier"]
    assert len(rest["messages"]) + len(found["messages"]) == 14
    exported = (await client.get(f"{LIST}{conversation}/export?format=json")).json()
    assert len(exported["messages"]) == 14


# Rates


async def test_requests_for_conversations_have_a_separate_rate_of_ten_times_rate_limit(
    browser: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(browser, upstream, question, "answer")
    conversation = (await browser.get(LIST)).json()["conversations"][0]["id"]
    path = LIST + conversation
    requests: list[Any] = [
        lambda: browser.get(LIST),
        lambda: browser.patch(path, json={"title": "t"}),
        lambda: browser.get(f"{path}/export"),
        lambda: browser.post(LIST, json={}),
    ]
    for number in range(19):
        assert (await requests[number % 4]()).status_code in (200, 201)
    for request in requests:
        response = await request()
        assert error_of(response) == (429, "rate_limited")
        assert 0 < int(response.headers["retry-after"]) <= 3600
    # Questions have their own limit, and reading has none.
    await ask(browser, upstream, f"{question} 2", "answer", conversation=conversation)
    assert (await browser.get(path)).status_code == 200
    assert (await browser.delete(path)).status_code == 204


@pytest.mark.parametrize("begins_turns", [True, False])
async def test_texts_without_a_cookie_share_what_their_address_may_store(
    redis_url: str, upstream: ScriptedUpstream, *, begins_turns: bool
) -> None:
    text = "文" * 8000  # 24,000 bytes

    async def store(address: str) -> httpx.Response:
        headers = {"X-Forwarded-For": address}  # the tests are a trusted proxy: a loopback peer
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            if not begins_turns:
                return await client.post(LIST, json={"system": text}, headers=headers)
            query = {"message": text}
            async with client.stream("POST", STREAM, json=query, headers=headers) as response:
                if response.status_code != 200:
                    await response.aread()
                return response

    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY,
        CHAT_MODEL="m", RATE_LIMIT_ADDRESS="100/hour",
    ) as server:  # fmt: skip
        address = f"2001:db8:{secrets.token_hex(2)}:1"
        responses = [await store(f"{address}::{host:x}") for host in range(1, 70)]
        allowed = [response for response in responses if response.is_success]
        assert 55 <= len(allowed) <= 60  # 1,800,000 bytes
        for response in responses[len(allowed) :]:
            assert error_of(response) == (429, "rate_limited")
            assert 0 < int(response.headers["retry-after"]) <= 3600
            assert not response.cookies
        assert (await store(f"{address[:-1]}2::1")).is_success


# Stored bytes


async def test_an_owner_at_its_limit_gets_507_on_every_api_and_can_delete(
    browser: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    first = await create(browser, system="s" * 7900)
    second = await create(browser, system="s" * 7900)
    large = f"{question} {'x' * 4000}"
    for response in (
        await browser.get(STREAM, params={"message": large}),
        await browser.post(STREAM, json={"message": large}),
        await browser.post(LIST, json={"system": "s" * 7900}),
        await browser.patch(LIST + first["id"], json={"system": "文" * 7900}),
    ):
        assert error_of(response) == (507, "quota_exceeded")
    assert [one["id"] for one in (await browser.get(LIST)).json()["conversations"]] == [
        second["id"], first["id"],
    ]  # fmt: skip
    assert (await browser.delete(LIST + first["id"])).status_code == 204
    events = await ask(browser, upstream, large, "answer", conversation=second["id"])
    assert events[-1].event == "end"


# The memory of Redis


@asynccontextmanager
async def serve_on_own_redis(
    kind: str, upstream: ScriptedUpstream, **settings: str
) -> AsyncIterator[tuple[Client, Server, httpx.AsyncClient]]:
    """Run a server on a Redis whose memory a test may limit."""
    async with (
        redis_of_kind(kind) as url,
        holdline(
            REDIS_URL=url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY, CHAT_MODEL="m",
            RATE_LIMIT="off", **settings,
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
    ):  # fmt: skip
        redis = connect(url)
        yield redis, server, client
        await redis.aclose()


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_questions_get_507_from_90_percent_on_and_the_running_answer_ends(
    kind: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with serve_on_own_redis(kind, upstream) as (redis, server, client):
        await fill(redis)
        events = await ask(client, upstream, question, "kept")
        begun = json.loads(events[0].data)
        conversation, turn = begun["conversation"], begun["turn"]
        async with asking(client, message=f"{question} 2", conversation=conversation) as source:
            exchange = await upstream.exchange(f"{question} 2")
            await set_maxmemory(redis, lambda used: int(used / 0.95))
            async with asyncio.timeout(PATIENCE_S):
                while (await client.post(LIST, json={})).status_code != 507:
                    await asyncio.sleep(0.1)
            for response in (
                await client.get(STREAM, params={"message": "another"}),
                await client.post(LIST, json={}),
            ):
                assert error_of(response) == (507, "storage_full")
            found = await client.post("/v1/chat/completions", json=COMPLETION)
            assert (found.status_code, found.json()["error"]["code"]) == (507, "storage_full")
            await exchange.answer("the rest")
            events = [event async for event in source.aiter_sse()]
        assert (events[-1].event, events[-1].data) == ("end", "the rest")
        messages = (await client.get(LIST + conversation)).json()["messages"]
        assert messages[-1]["content"] == "the rest"
        await set_maxmemory(redis, lambda used: 1)
        for form in ("markdown", "json", "html"):
            exported = await client.get(f"{LIST}{conversation}/export", params={"format": form})
            assert exported.status_code == 200
            assert "the rest" in exported.text
        known = {"message": question, "turn": turn}
        assert (await read(client, **known))[-1].data == "kept"
        await set_maxmemory(redis, lambda used: 0)
        async with asyncio.timeout(PATIENCE_S):
            while (await client.post(LIST, json={})).status_code != 201:
                await asyncio.sleep(0.1)
        assert "new questions are rejected with 507" in server.read_log()


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_answers_end_and_users_stop_delete_and_sign_out_while_the_memory_is_full(
    kind: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with serve_on_own_redis(kind, upstream, WORKERS="2") as (redis, _, client):
        events = await ask(client, upstream, question, "kept")
        conversation = json.loads(events[0].data)["conversation"]
        other = (await client.post(LIST, json={})).json()["id"]
        long, stopped = f"{question} long", f"{question} stopped"
        async with (
            asking(client, message=long, conversation=conversation) as first,
            asking(client, message=stopped, conversation=other) as second,
        ):
            exchanges = [await upstream.exchange(text) for text in (long, stopped)]
            await set_maxmemory(redis, lambda used: 1)
            await exchanges[1].send_text("begun")
            arriving = second.aiter_sse()
            turn = json.loads((await anext(arriving)).data)["turn"]
            assert (await anext(arriving)).data == "begun"
            assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
            assert [event.event async for event in arriving if event.event][-1] == "end"
            await exchanges[0].answer("text " * 50_000)
            events = [event async for event in first.aiter_sse()]
        assert (events[-1].event, events[-1].data) == ("end", "text " * 50_000)
        assert (await client.delete(LIST + other)).status_code == 204
        assert (await client.post("/api/logout")).status_code == 204
        assert (await client.get(LIST + conversation)).status_code == 404


COMPLETION = {"messages": [{"role": "user", "content": "hello"}]}


# Requests that are kept


async def test_an_idle_worker_keeps_no_request(
    redis_url: str, upstream: ScriptedUpstream, question: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests open connections to Redis and to the upstream, which stay open."""
    monkeypatch.setattr(Sanic, "test_mode", True)  # other tests have created an app of this name
    settings = Settings(
        redis_url=redis_url, openai_base_url=upstream.base_url, openai_api_key=KEY,
        chat_model="m", rate_limit="off", _env_file=None,
    )  # fmt: skip
    app = create_app(settings, redis_url)
    app.config.TOUCHUP = False  # it alters Sanic's own methods, which works once in a process
    seen: weakref.WeakSet[PrefixedRequest] = weakref.WeakSet()

    async def note(request: PrefixedRequest) -> None:
        seen.add(request)

    app.register_middleware(note, "request")
    web = HttpServer(app, 100, 100, [])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await web.start(listener)
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client:
            running = asyncio.create_task(read(client, message=f"{question} running"))
            exchange = await upstream.exchange(f"{question} running")
            await asyncio.gather(*(create(client, system="s" * 8000) for _ in range(20)))
            await ask(client, upstream, question, "answer")
            assert seen
            async with asyncio.timeout(PATIENCE_S):
                while len(seen) > 1:  # the viewer of the running answer
                    gc.collect()
                    await asyncio.sleep(0.01)
            await exchange.answer("x")
            await running
            async with asyncio.timeout(PATIENCE_S):
                while seen:
                    gc.collect()
                    await asyncio.sleep(0.01)
        await web.stop()
    Sanic.unregister_app(app)
