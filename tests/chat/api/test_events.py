"""The channel that tells a client what happens to its owner's conversations."""

import asyncio
import contextlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chat.events import feeds
from chat.events.subscriber import Subscriber
from chat.formats import event_channel
from chat.log.tail_viewer import HEARTBEAT_S
from sessions import keys
from sessions.client.connection import Client
from sessions.event_store import Event, EventId
from tests.chat.turns.test_prompt_cost import owner_of
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import own_redis
from tests.processes import PATIENCE_S, Server, holdline, redis_server
from tests.proxy import redis_proxy
from tests.streams import ask, asking

EVENTS = "/api/events/"
LIST = "/api/conversations/"


class Connection:
    """One connection to the channel; `read` skips comments."""

    def __init__(self, response: httpx.Response, arriving: AsyncIterator[ServerSentEvent]) -> None:
        self.response = response
        self.last_id = ""
        self._arriving = arriving

    async def read(self) -> dict[str, Any]:
        """Return the data of the next event; raise StopAsyncIteration at the stream's end."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                event = await anext(self._arriving)
                if event.data:  # httpx-sse yields a heartbeat as an empty message
                    found: dict[str, Any] = json.loads(event.data)
                    assert event.event in (found["type"], "message")
                    assert event.id != self.last_id
                    self.last_id = event.id
                    return found

    async def read_until(self, kind: str, **fields: str) -> list[dict[str, Any]]:
        """Return the events up to one with these fields."""
        found = [await self.read()]
        while not {"type": kind, **fields}.items() <= found[-1].items():
            found.append(await self.read())
        return found


@contextlib.asynccontextmanager
async def listening(
    client: httpx.AsyncClient, last_id: str = "", **query: str
) -> AsyncIterator[Connection]:
    """Connect to the channel; raise on an HTTP error."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with aconnect_sse(client, "GET", EVENTS, params=query, headers=headers) as source:
        source.response.raise_for_status()
        yield Connection(source.response, source.aiter_sse())


async def create(client: httpx.AsyncClient, **fields: Any) -> str:
    """Create a conversation and return its id."""
    return str((await client.post(LIST, json=fields)).json()["id"])


def model_settings(upstream: ScriptedUpstream) -> dict[str, str]:
    return {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}


async def test_events_arrive_in_the_order_in_which_they_happened(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await client.get("/")
    turns = ["turn-" + question[-32:], "turn2-" + question[-32:]]
    async with listening(client) as connection:
        assert connection.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert connection.response.headers["cache-control"] == "no-cache, no-transform"
        assert connection.response.headers["x-accel-buffering"] == "no"
        assert await connection.read() == {"type": "reset"}
        conversation = await create(client)
        await client.patch(LIST + conversation, json={"title": "new"})
        await ask(client, upstream, question, "a", turn=turns[0], conversation=conversation)
        async with asking(client, message=f"{question}?", turn=turns[1]) as source:
            await (await upstream.exchange(f"{question}?")).send_text("part")
            await client.post(f"/api/turns/{turns[1]}/stop", json={})
            assert [event.event async for event in source.aiter_sse()][-1] == "end"
        await client.delete(LIST + conversation)
        found = await connection.read_until("conversation", change="deleted")
    assert {event.pop("conversation") for event in found} == {conversation}
    assert found == [
        {"type": "conversation", "change": "created"},
        {"type": "conversation", "change": "changed"},
        {"type": "turn", "turn": turns[0]},
        {"type": "end", "turn": turns[0], "state": "done"},
        {"type": "turn", "turn": turns[1]},
        {"type": "end", "turn": turns[1], "state": "stopped"},
        {"type": "conversation", "change": "deleted"},
    ]


async def test_a_failed_turn_and_a_new_branch_are_events(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await client.get("/")
    async with listening(client) as connection:
        events = await ask(client, upstream, question, "an answer")
        turn = json.loads(events[0].data)
        async with asking(client, message=f"{question} again", parent="") as source:
            (await upstream.exchange(f"{question} again")).reply(401, {"error": {"message": "no"}})
            assert [event.event async for event in source.aiter_sse()][-1] == "failed"
        await client.patch(LIST + turn["conversation"], json={"branch": turn["answer"]})
        found = await connection.read_until("conversation", change="changed")
    kinds = [(event["type"], event.get("state") or event.get("change")) for event in found]
    assert kinds == [
        ("reset", None),
        ("conversation", "created"),
        ("turn", None),
        ("end", "done"),
        ("turn", None),
        ("end", "failed"),
        ("conversation", "changed"),
    ]


async def test_events_without_names_have_the_same_ids_and_data(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/")
    async with listening(client) as named, listening(client, names="off") as unnamed:
        for connection in (named, unnamed):
            assert await connection.read() == {"type": "reset"}
        await create(client)
        assert await named.read() == await unnamed.read()
        assert named.last_id == unnamed.last_id
    async with client.stream("GET", EVENTS, params={"names": "off"}) as response:
        received = b""
        async for data in response.aiter_raw():
            received += data
            if b"data:" in received:
                break
    assert received.startswith(b"retry: 1000\n")
    assert b"event:" not in received


async def test_a_client_resumes_after_any_event_that_it_has_received(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/")
    ids, received = [], []
    async with listening(client) as connection:
        for _ in range(6):
            received.append(await connection.read())
            ids.append(connection.last_id)
            await create(client)
    for number, last_id in enumerate(ids):
        for query in ({}, {"last_event_id": last_id}, {"lastEventId": last_id}):
            header = "" if query else last_id
            async with listening(client, header, **query) as again:
                assert [await again.read() for _ in received[number + 1 :]] == received[
                    number + 1 :
                ]
                missed = await again.read()  # the last one was created after the last read
                assert missed["change"] == "created"


async def test_a_client_without_an_id_or_with_an_expired_one_gets_a_reset(
    client: httpx.AsyncClient, redis: Client
) -> None:
    conversation = await create(client)
    owner = await owner_of(redis, conversation)
    async with listening(client) as connection:
        assert await connection.read() == {"type": "reset"}
    (last,) = await redis.xrange(keys.events(owner))
    assert connection.last_id == last[0].decode()
    await redis.delete(keys.events(owner))
    for last_id in ("1-0", "1700000000000-5", "999999999999999-0"):
        async with listening(client, last_id) as connection:
            assert await connection.read() == {"type": "reset"}
            await create(client)
            assert (await connection.read())["change"] == "created"
    ms = int(connection.last_id.partition("-")[0])
    async with listening(client, f"{ms - 3_700_000}-0") as connection:
        assert await connection.read() == {"type": "reset"}


async def test_an_idle_connection_opens_at_once_and_gets_heartbeats(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/")
    async with listening(client) as connection:
        await connection.read()
    headers = {"Last-Event-ID": connection.last_id}
    async with (
        asyncio.timeout(PATIENCE_S),
        client.stream("GET", EVENTS, headers=headers) as response,
    ):
        received = b""
        begin = asyncio.get_running_loop().time()
        async for data in response.aiter_raw():
            received += data
            if received.count(b":\n") == 3:
                break
        assert asyncio.get_running_loop().time() - begin > HEARTBEAT_S / 2  # not at once
    assert received == b"retry: 1000\n" + b":\n" * 3


async def test_events_reach_every_worker_of_every_server(
    redis_url: str, upstream: ScriptedUpstream
) -> None:
    settings = {"REDIS_URL": redis_url, "WORKERS": "2", **model_settings(upstream)}
    limits = httpx.Limits(max_keepalive_connections=0)  # each request may reach another worker
    async with (
        holdline(**settings) as first,
        holdline(**settings) as second,
        httpx.AsyncClient(base_url=first.url, limits=limits, timeout=60) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        await client.get("/")
        others = httpx.AsyncClient(base_url=second.url, cookies=client.cookies, timeout=60)
        await stack.enter_async_context(others)
        connections = [
            await stack.enter_async_context(listening(one)) for one in [client, others] * 8
        ]
        for connection in connections:
            assert await connection.read() == {"type": "reset"}
        created = [await create(one) for one in [client, others] * 8]
        for connection in connections:
            assert [(await connection.read())["conversation"] for _ in created] == created


async def test_another_sessions_events_are_not_sent(
    client: httpx.AsyncClient, server: Server
) -> None:
    await client.get("/")
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as stranger,
        listening(client) as connection,
    ):
        assert await connection.read() == {"type": "reset"}
        await create(stranger)
        own = await create(client)
        assert (await connection.read())["conversation"] == own


async def test_connections_over_the_limit_are_rejected_until_others_close(
    server: Server,
) -> None:
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        await client.get("/")
        async with contextlib.AsyncExitStack() as some:
            for number in range(feeds.MAX_SUBSCRIBERS):
                owner = some if number == 0 else stack
                await owner.enter_async_context(listening(client))
            rejected = await client.get(EVENTS)
            assert (rejected.status_code, rejected.headers["retry-after"]) == (429, "5")
            assert rejected.json()["error"]["type"] == "rate_limited"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(httpx.HTTPStatusError):
                    async with listening(client) as connection:
                        assert await connection.read() == {"type": "reset"}
                        break
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("query", "last_id"),
    [
        ({}, "nonsense"),
        ({}, "1"),
        ({}, "turn-0123456789ab.12"),
        ({"last_event_id": "1-2-3"}, ""),
        ({"lastEventId": "-"}, ""),
        ({"names": "no"}, ""),
    ],
)
async def test_a_malformed_request_is_rejected(
    client: httpx.AsyncClient, query: dict[str, str], last_id: str
) -> None:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    response = await client.get(EVENTS, params=query, headers=headers)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "bad_request")


async def test_requests_of_other_sites_and_other_methods_are_rejected(
    client: httpx.AsyncClient,
) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Mode": "navigate"}):
        assert (await client.get(EVENTS, headers=headers)).status_code == 403
    assert (await client.head(EVENTS)).status_code == 405
    assert (await client.post(EVENTS, json={})).status_code == 405


async def test_a_connection_stores_no_key(client: httpx.AsyncClient, redis: Client) -> None:
    await client.get("/")
    before = {key async for key in redis.scan_iter("holdline:*", count=10_000)}
    async with listening(client) as connection:
        await connection.read()
        added = {key async for key in redis.scan_iter("holdline:*", count=10_000)} - before
    assert [key for key in added if key.startswith(b"holdline:session:")] == []
    assert [key for key in added if key.endswith(b":events")] == []


async def test_clients_without_a_session_share_the_maximum_of_their_address(
    client: httpx.AsyncClient,
) -> None:
    async def open_channels(
        stack: contextlib.AsyncExitStack, address: str, count: int
    ) -> list[int]:
        headers = {"X-Forwarded-For": address}  # the tests are a trusted proxy
        streams = [client.stream("GET", EVENTS, headers=headers) for _ in range(count)]
        return [(await stack.enter_async_context(one)).status_code for one in streams]

    network = f"2001:db8:{secrets.token_hex(2)}"
    async with contextlib.AsyncExitStack() as stack:
        statuses = await open_channels(stack, f"{network}:1::1", feeds.MAX_SUBSCRIBERS)
        assert statuses == [200] * feeds.MAX_SUBSCRIBERS
        assert await open_channels(stack, f"{network}:1::2", 1) == [429]
        assert await open_channels(stack, f"{network}:2::1", 1) == [200]
        assert client.cookies == {}


async def test_a_client_is_asked_to_retry_while_redis_is_unavailable(
    upstream: ScriptedUpstream,
) -> None:
    async with (
        redis_server() as url,
        holdline(REDIS_URL=url, **model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        async with Redis.from_url(url) as admin:
            with contextlib.suppress(RedisError):
                await admin.shutdown(nosave=True)
        response = await client.get(EVENTS)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text.startswith("retry: 5000\n:")


@pytest.mark.parametrize("fault", ["lost subscription", "lost events"])
async def test_a_connection_catches_up_after_redis_was_unavailable(
    upstream: ScriptedUpstream, fault: str
) -> None:
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(REDIS_URL=redis.url, **model_settings(upstream)) as direct,
        holdline(REDIS_URL=proxy.url, **model_settings(upstream)) as server,
        httpx.AsyncClient(base_url=direct.url, timeout=60) as writer,
    ):
        await create(writer)
        async with (
            httpx.AsyncClient(base_url=server.url, cookies=writer.cookies, timeout=60) as client,
            listening(client) as connection,
        ):
            assert await connection.read() == {"type": "reset"}
            proxy.refuse_connections()
            missed = [await create(writer) for _ in range(3)]
            if fault == "lost events":
                (key,) = [key async for key in redis.admin.scan_iter("holdline:*:events")]
                await redis.admin.delete(key)
                await redis.admin.xadd(key, {"event": "turn a b"}, id="5-1")
            await proxy.recover()
            if fault == "lost events":
                assert await connection.read() == {"type": "reset"}
                assert connection.last_id == "5-1"
            else:
                assert [(await connection.read())["conversation"] for _ in missed] == missed
            created = await create(writer)
            assert (await connection.read())["conversation"] == created


async def test_a_stopping_server_ends_its_connections_and_another_continues_them(
    redis_url: str, upstream: ScriptedUpstream
) -> None:
    settings = {"REDIS_URL": redis_url, **model_settings(upstream)}
    async with (
        holdline(**settings) as first,
        holdline(**settings) as second,
        httpx.AsyncClient(base_url=first.url, timeout=60) as client,
    ):
        await client.get("/")
        async with listening(client) as connection:
            assert await connection.read() == {"type": "reset"}
            assert await first.stop() == 0
            with pytest.raises(StopAsyncIteration):
                await connection.read()
        client.base_url = httpx.URL(second.url)
        created = await create(client)
        async with listening(client, connection.last_id) as connection:
            assert (await connection.read())["conversation"] == created


async def test_a_connection_that_reads_too_slowly_is_ended() -> None:
    subscriber = Subscriber()
    subscriber.start(EventId(1, 0), [])
    for number in range(300):
        subscriber.add(Event(EventId(2, number), "turn", {}))
    assert not subscriber.is_open
    assert await subscriber.take(60) == []


def test_an_event_stream_has_one_line_of_data_for_each_event() -> None:
    frame = event_channel.encode(
        "1-2", "turn", {"conversation": "a\nb", "turn": '"'}, is_named=True
    )
    assert re.fullmatch(rb"event: turn\ndata: [^\n]*\nid: 1-2\n\n", frame)
