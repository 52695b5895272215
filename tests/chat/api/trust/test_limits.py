"""The limits of new turns over HTTP: no client gets a new allowance, and no known turn is rejected.

The tests act as a trusted proxy: each client has an address in `X-Forwarded-For`.
"""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from sessions import keys
from sessions.client.connection import Client
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, find_worker, holdline
from tests.streams import STREAM, ask, asking, read, text_of

V1 = "/v1/chat/completions"
KEY = "a-key-of-this-test"


@asynccontextmanager
async def limited(
    redis_url: str, upstream: ScriptedUpstream, **settings: str
) -> AsyncIterator[Server]:
    defaults = {"RATE_LIMIT": "off", "RATE_LIMIT_ADDRESS": "off", "CONTINUE_MAX": "0"}
    upstream_settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with holdline(REDIS_URL=redis_url, **(defaults | upstream_settings | settings)) as server:
        yield server


def new_address() -> str:
    """Return an IPv4 address that no other test has (documentation prefixes are too short)."""
    return ".".join(["10", *(str(byte) for byte in secrets.token_bytes(3))])


def client_at(server: Server, address: str | None = None, **options: Any) -> httpx.AsyncClient:
    """Return a client with its own session, behind a trusted proxy that states its address."""
    headers = {"X-Forwarded-For": address} if address else {}
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(
        base_url=server.url, headers=headers, limits=limits, timeout=PATIENCE_S, **options
    )


def assert_limited(response: httpx.Response, words: str = "Too many") -> None:
    error = response.json()["error"]
    kind = "turns_exceeded" if "Too many answers" in error["message"] else "rate_limited"
    assert (response.status_code, error["type"]) == (429, kind)
    assert words in error["message"]
    assert int(response.headers["retry-after"]) > 0


@asynccontextmanager
async def running(client: httpx.AsyncClient, question: str, **query: str) -> AsyncIterator[Any]:
    """Begin a turn and keep its stream open."""
    params = {"message": question, **query}
    async with client.stream("GET", STREAM, params=params) as response:
        assert response.status_code == 200, await response.aread()
        yield response


async def stop_all(upstream: ScriptedUpstream, question: str) -> None:
    """End the answers to all questions that contain `question`."""
    for exchange in upstream.exchanges:
        if question in exchange.question and not exchange.closed.is_set():
            await exchange.finish()


FORMATS = ["sse", "text", "ndjson", "json"]


async def test_requests_without_a_cookie_share_the_rate_of_their_address(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with limited(redis_url, upstream, RATE_LIMIT_ADDRESS="4/hour") as server:

        async def flood(number: int) -> httpx.Response | None:
            params = {"message": f"{number} {question}", "format": FORMATS[number % 4]}
            async with client_at(server, address) as stranger:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        return await stranger.get(STREAM, params=params)
                except httpx.HTTPError:
                    return None

        address = new_address()
        floods = [asyncio.create_task(flood(number)) for number in range(40)]
        for number in range(4):
            await admitted(upstream, question, number)
        await stop_all(upstream, question)
        responses = [response for response in await asyncio.gather(*floods) if response]
        rejected = [response for response in responses if response.status_code == 429]
        assert len(rejected) == 36
        assert len([one for one in upstream.exchanges if question in one.question]) == 4
        for response in rejected:
            assert_limited(response, "your network address")
        async with client_at(server, new_address()) as other:
            assert text_of(await ask(other, upstream, f"other {question}", "yes")) == "yes"


async def admitted(upstream: ScriptedUpstream, question: str, number: int) -> None:
    """Return when more than `number` questions that contain `question` have gone upstream."""
    async with asyncio.timeout(PATIENCE_S):
        while len([one for one in upstream.exchanges if question in one.question]) <= number:
            await asyncio.sleep(0.01)


async def test_requests_without_a_cookie_share_the_running_turns_of_address_and_server(
    redis_url: str, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    others = await redis.zcard(keys.running())
    maxima = f"9,3,{others + 5}"
    async with (
        limited(redis_url, upstream, TURNS_MAX=maxima) as server,
        AsyncExitStack() as stack,
    ):
        addresses = [new_address(), new_address(), new_address()]
        begun = 0
        for address, places in zip(addresses, (3, 2, 0), strict=True):
            for number in range(places):
                stranger = await stack.enter_async_context(client_at(server, address))
                text = f"{address} {number} {question}"
                await stack.enter_async_context(running(stranger, text))
                begun += 1
            for _ in range(5):
                async with client_at(server, address) as stranger:
                    response = await stranger.get(STREAM, params={"message": f"+ {question}"})
                    assert_limited(response, "network address" if places == 3 else "all users")
        assert len([one for one in upstream.exchanges if question in one.question]) == begun == 5
        async with client_at(server, addresses[0]) as stranger:
            await (await upstream.exchange(f"{addresses[0]} 0 {question}")).answer("done")
            assert text_of(await ask_when_admitted(stranger, upstream, f"next {question}")) == "yes"
        await stop_all(upstream, question)


async def ask_when_admitted(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> Any:
    """Ask until a place is free, and return the events of the answer "yes"."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            asking = asyncio.create_task(read(client, None, message=question))
            arriving = asyncio.create_task(upstream.exchange(question))
            await asyncio.wait([asking, arriving], return_when=asyncio.FIRST_COMPLETED)
            if arriving.done():
                await arriving.result().answer("yes")
                return await asking
            arriving.cancel()
            assert isinstance(error := asking.exception(), httpx.HTTPStatusError)
            assert error.response.status_code == 429


async def test_a_session_has_a_maximum_of_running_turns(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        limited(redis_url, upstream, TURNS_MAX="2,40,400") as server,
        client_at(server) as client,
        client_at(server) as other,
    ):
        places = [
            (await client.post("/api/conversations/", json={})).json()["id"] for _ in range(3)
        ]
        async with (
            running(client, f"1 {question}", conversation=places[0]),
            running(client, f"2 {question}", conversation=places[1]),
        ):
            for _ in range(2):
                params = {"message": f"3 {question}", "conversation": places[2]}
                assert_limited(await client.get(STREAM, params=params), "this session")
            # A question in a conversation that is being answered stops that answer.
            async with running(client, f"4 {question}", conversation=places[0]):
                await (await upstream.exchange(f"1 {question}")).closed.wait()
                async with running(other, f"5 {question}"):
                    await upstream.exchange(f"5 {question}")
        await stop_all(upstream, question)


async def test_limits_never_reject_a_known_turn(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    limits = {"RATE_LIMIT": "2/hour", "RATE_LIMIT_ADDRESS": "2/hour", "TURNS_MAX": "1,1,400"}
    async with (
        limited(redis_url, upstream, **limits) as server,
        client_at(server, new_address()) as client,
    ):
        finished = json.loads((await ask(client, upstream, question, "done"))[0].data)
        turn = "turn-" + question[-32:]
        async with running(client, f"long {question}", turn=turn):
            exchange = await upstream.exchange(f"long {question}")
            other = {"message": f"new {question}", "conversation": finished["conversation"]}
            assert_limited(await client.get(STREAM, params=other))
            events = await read(client, message=question, turn=finished["turn"])
            assert text_of(events) == "done"
            async with (
                asking(client, message=f"long {question}", turn=turn) as again,
                asking(client, message=f"long {question}") as other_tab,
                asking(client, turn=turn) as viewer,
            ):
                await exchange.answer("more")
                for source in (again, other_tab, viewer):
                    assert text_of([event async for event in source.aiter_sse()]) == "more"
        assert text_of(await read(client, message=f"long {question}", turn=turn)) == "more"


async def test_a_rejected_question_writes_nothing(
    redis_url: str, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    async with (
        limited(redis_url, upstream, RATE_LIMIT="1/hour", RATE_LIMIT_ADDRESS="9/hour") as server,
        client_at(server, new_address()) as client,
    ):
        turn = json.loads((await ask(client, upstream, question, "yes"))[0].data)
        (key,) = [key async for key in redis.scan_iter(f"holdline:*:turn:{turn['turn']}")]
        owner = key.decode().partition("{")[2].partition("}")[0]

        async def read_keys() -> set[bytes]:
            return {key async for key in redis.scan_iter(f"holdline:*{owner}*")}

        before = await read_keys()
        for number in range(5):
            for more in ({}, {"conversation": turn["conversation"]}, {"turn": f"{number}" * 20}):
                params = {"message": f"{number} {question}", **more}
                assert_limited(await client.get(STREAM, params=params))
                assert_limited(await client.post(STREAM, json=params))
        assert await read_keys() == before
        members = await redis.zrange(keys.running(), 0, -1)
        assert not [member for member in members if owner.encode() in member]


async def test_an_address_of_an_ipv6_network_gets_no_new_allowance(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    network = f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}"
    async with limited(redis_url, upstream, RATE_LIMIT_ADDRESS="1/hour") as server:
        async with client_at(server, f"{network}::1") as client:
            await ask(client, upstream, question, "yes")
        for host in ("::2", ":ffff:ffff:ffff:ffff"):
            async with client_at(server, network + host) as client:
                assert_limited(await client.get(STREAM, params={"message": f"no {question}"}))
        async with client_at(server, f"2001:db8:{secrets.token_hex(2)}::1") as client:
            await ask(client, upstream, f"other {question}", "yes")


async def test_a_forged_address_gets_no_new_allowance(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {"RATE_LIMIT_ADDRESS": "1/hour", "TRUSTED_PROXIES": "192.0.2.1"}
    async with limited(redis_url, upstream, **settings) as server:
        statuses = []
        for number in range(4):
            async with client_at(server, new_address()) as client:
                asking = asyncio.create_task(
                    client.get(STREAM, params={"message": f"{number} {question}"})
                )
                arriving = asyncio.create_task(upstream.exchange(f"{number} {question}"))
                await asyncio.wait([asking, arriving], return_when=asyncio.FIRST_COMPLETED)
                if arriving.done():
                    await arriving.result().answer("yes")
                arriving.cancel()
                statuses.append((await asking).status_code)
        # The address 127.0.0.1 may have asked in another test of this Redis.
        assert statuses in ([200, 429, 429, 429], [429] * 4)


async def test_a_client_without_an_address_is_not_limited_by_address(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {"RATE_LIMIT_ADDRESS": "1/hour", "TURNS_MAX": "9,1,400"}
    async with limited(redis_url, upstream, **settings) as server, AsyncExitStack() as stack:
        for number in range(3):
            client = await stack.enter_async_context(client_at(server))
            await stack.enter_async_context(running(client, f"{number} {question}"))
        await stop_all(upstream, question)


async def test_an_address_is_stored_only_as_a_hash_and_expires_with_the_window(
    redis_url: str, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    address = new_address()
    async with (
        limited(redis_url, upstream, RATE_LIMIT_ADDRESS="9/minute", TURNS_MAX="4,40,400") as server,
        client_at(server, address) as client,
        running(client, question),
    ):
        found = [key async for key in redis.scan_iter("holdline:*address_*")]
        assert len(found) >= 3
        for key in found:
            assert address.encode() not in key
            if not key.endswith(b":address_key"):
                assert 0 < await redis.ttl(key) <= 3600
        async for key in redis.scan_iter("holdline:*"):
            assert address.encode() not in (await redis.dump(key) or b"")
        await stop_all(upstream, question)


async def test_v1_has_the_limits_of_its_key_and_of_its_address(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {
        "API_KEYS": f"{secrets.token_hex(8)}:{KEY}", "TURNS_MAX": "2,3,400",
        "RATE_LIMIT": "4/hour", "RATE_LIMIT_ADDRESS": "5/hour",
    }  # fmt: skip
    address = new_address()
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        limited(redis_url, upstream, **settings) as server,
        client_at(server, address) as program,
    ):
        program.headers.update(headers)

        async def post(text: str, **fields: Any) -> httpx.Response:
            body = {"messages": [{"role": "user", "content": text}], **fields}
            return await program.post(V1, json=body)

        posts = []
        for number, streamed in enumerate((True, False)):
            text = f"{number} {question}"
            posts.append(asyncio.create_task(post(text, stream=streamed)))
            await upstream.exchange(text)
        for streamed in (True, False):
            rejected = await post(f"no {question}", stream=streamed)
            assert_rejected_by_v1(rejected, "this session")
        await stop_all(upstream, question)
        assert [response.status_code for response in await asyncio.gather(*posts)] == [200, 200]
        for number in (2, 3):
            posts.append(asyncio.create_task(post(f"{number} {question}")))
            await (await upstream.exchange(f"{number} {question}")).answer("yes")
            assert (await posts[-1]).status_code == 200
        assert_rejected_by_v1(await post(f"no {question}"), "this session")
        # The address has begun four turns, one less than it may.
        async with client_at(server, address) as browser:
            await ask(browser, upstream, f"5 {question}", "yes")
            assert_limited(await browser.get(STREAM, params={"message": f"no {question}"}))


async def test_programs_without_a_key_share_one_session(
    redis_url: str, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    async with limited(redis_url, upstream, RATE_LIMIT="1/hour") as server:
        await redis.delete(keys.session_rate(keys.Owner("local")))
        responses = []
        for number in range(2):
            body = {"messages": [{"role": "user", "content": f"{number} {question}"}]}
            async with client_at(server) as program:
                posting = asyncio.create_task(program.post(V1, json=body))
                if number == 0:
                    await (await upstream.exchange(f"0 {question}")).answer("yes")
                responses.append(await posting)
        assert responses[0].status_code == 200
        assert_rejected_by_v1(responses[1], "this session")
        await redis.delete(keys.session_rate(keys.Owner("local")))


def assert_rejected_by_v1(response: httpx.Response, words: str) -> None:
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) > 0
    error = response.json()["error"]
    kind = "turns_exceeded" if "Too many answers" in error["message"] else "rate_limited"
    assert (error["type"], error["code"]) == ("rate_limit_error", kind)
    assert words in error["message"]


async def test_a_killed_workers_turns_keep_their_places_until_their_end(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {"WORKERS": "2", "LEASE_S": "0.5", "TURNS_MAX": "1,1,400", "CONTINUE_MAX": "4"}
    async with (
        limited(redis_url, upstream, **settings) as server,
        client_at(server, new_address()) as client,
    ):
        turn, partial = "turn-" + question[-32:], f"before {question} "
        async with running(client, question, turn=turn):
            exchange = await upstream.exchange(question)
            await exchange.send_text(partial)
            await wait_for_text(client, turn, partial)
            os.kill(find_worker(exchange.connection), signal.SIGKILL)
        again = await upstream.continued(partial)
        conversation = (await client.post("/api/conversations/", json={})).json()["id"]
        other = {"message": f"other {question}", "conversation": conversation}
        assert_limited(await client.get(STREAM, params=other), "this session")
        await again.answer("after")
        assert text_of(await read(client, turn=turn)) == partial + "after"
        events = await ask_when_admitted(client, upstream, f"last {question}")
        assert text_of(events) == "yes"


async def wait_for_text(client: httpx.AsyncClient, turn: str, text: str) -> None:
    """Return when a viewer of the turn has received `text`."""
    async with (
        asyncio.timeout(PATIENCE_S),
        client.stream("GET", STREAM, params={"turn": turn}) as response,
    ):
        async for line in response.aiter_lines():
            if line == f"data: {text}":
                return


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_restarted_server_frees_the_places_of_turns_that_have_ended(
    upstream: ScriptedUpstream, redis_url: str, question: str, number: int
) -> None:
    settings = {"LEASE_S": "0.5", "TURNS_MAX": "1,40,400", "CONTINUE_MAX": "4"}
    async with limited(redis_url, upstream, **settings) as server, client_at(server) as client:
        async with running(client, question):
            exchange = await upstream.exchange(question)
        await server.stop(number)
        cookies = dict(client.cookies)
    await exchange.closed.wait()
    async with (
        limited(redis_url, upstream, **settings) as server,
        client_at(server, cookies=cookies) as client,
    ):
        await (await upstream.exchange(question, 2)).answer("after")
        events = await ask_when_admitted(client, upstream, f"next {question}")
        assert text_of(events) == "yes"
