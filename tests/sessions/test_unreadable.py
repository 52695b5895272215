"""Garbage under any key in Redis: other users' answers continue, and its owner can ask again."""

import asyncio
import inspect
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from sessions import cookie, keys
from sessions.client import scripts
from sessions.client.connection import Client
from sessions.client.unreadable import TYPES, get_type
from sessions.conversation_store import ConversationStore
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turns.turn_record import TurnRef
from sessions.turns.turn_store import TurnStore
from tests.config.test_supervisor import find_children
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S, Server, holdline
from tests.questions import question_at
from tests.streams import STREAM, ask, asking, read

HUGE = b"\xff\xfe\x00" * 1_000_000
"""3 MB that are neither UTF-8 nor JSON."""

CHANNELS = {"stops"}
PREFIXES = {name for name in vars(keys) if name.endswith("_prefix") and name != "rejected_prefill"}

KEYS = {
    name: function
    for name, function in inspect.getmembers(keys, inspect.isfunction)
    if function.__module__ == "sessions.keys"
    and not name.startswith(("is_", "_"))
    and name not in CHANNELS | PREFIXES
}
"""Every function of sessions/keys.py that names a key, also those that are added later."""


@dataclass
class Ids:
    """The ids of a user's data, by the names of the parameters in sessions/keys.py."""

    owner: str
    conversation_id: str
    turn_id: str
    cookie: str
    digest: str = ""
    address: str = "a" * 32
    created_ms: int = 0

    def name_key(self, name: str) -> str:
        """Return the user's key of a kind."""
        known = {**vars(self), "digest": cookie.hash_id(self.cookie.partition(".")[0])}
        function: Callable[..., str] = KEYS[name]
        return function(*(known[one] for one in inspect.signature(function).parameters))


async def store_another_type(redis: Any, key: str, kind: str) -> None:
    """Replace a key by one of another type: a huge string, or a list."""
    await redis.delete(key)
    if kind == "string":
        await redis.rpush(key, b"\xff", b"garbage")
    else:
        await redis.set(key, HUGE)


async def store_garbage(redis: Any, key: str, kind: str) -> None:
    """Replace the contents of a key, which keeps its type."""
    match kind:
        case "string":
            await redis.set(key, HUGE)
        case "hash":
            fields = await redis.hkeys(key) or [b"created"]
            await redis.hset(key, mapping=dict.fromkeys(fields, b"\xff\xfe"))
        case "zset":
            await redis.zadd(key, {b"\xff\xfe": float("-inf"), b"a b": float("inf"), HUGE: 1.5})
        case "set":
            await redis.sadd(key, b"\xff\xfe", HUGE)
        case "stream":
            await redis.xadd(key, {b"\xff": b"\xfe"}, id=f"{(1 << 64) - 2}-1")


async def store_wrong_json(redis: Any, key: str, kind: str) -> None:
    """Replace values by JSON and by numbers of the wrong shape."""
    match kind:
        case "string":
            await redis.set(key, b'{"owner": [], "messages": 7}')
        case "hash":
            for field in await redis.hkeys(key) or [b"created"]:
                await redis.hset(key, field, b"-1\n{}" if b">" not in field else b"\xff x/y")
        case "zset":
            await redis.zadd(key, {b"x y z": 1, b"": 2, b"key:a - b": 3})
        case "set":
            await redis.sadd(key, b"", b"../../x")
        case "stream":
            await redis.xadd(key, {b"event": b"turn x"})


SPOIL = [store_another_type, store_garbage, store_wrong_json]


@dataclass
class Site:
    redis: OwnRedis
    server: Server
    other: Exchange
    """The answer of another user, which runs during all tests."""
    arriving: AsyncIterator[Any]


@pytest_asyncio.fixture(scope="module")
async def site(upstream: ScriptedUpstream) -> AsyncIterator[Site]:
    question = f"another user's {secrets.token_hex(8)}"
    async with (
        own_redis() as redis,
        holdline(
            REDIS_URL=redis.url,
            LEASE_S="0.5",
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
            RATE_LIMIT="100000/minute",
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        asking(client, message=question) as source,
    ):
        arriving = source.aiter_sse()
        await anext(arriving)
        yield Site(redis, server, await upstream.exchange(question), arriving)


async def begin_two_turns(
    site: Site, client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> tuple[Ids, Exchange]:
    """Ask a question that is answered, and one whose answer runs; return its ids."""
    await ask(client, upstream, question, "answered")
    async with asking(client, message=f"second {question}") as source:
        arriving = source.aiter_sse()
        begun = json.loads((await anext(arriving)).data)
        exchange = await upstream.exchange(f"second {question}")
        await exchange.send_text("half of it ")
        await anext(arriving)
    pattern = f"holdline:*:turn:{begun['turn']}"
    (turn_key,) = [key async for key in site.redis.admin.scan_iter(pattern)]
    owner = turn_key.decode().partition("{")[2].partition("}")[0]
    (session_id,) = client.cookies.values()
    return Ids(owner, begun["conversation"], begun["turn"], session_id), exchange


async def send_every_request(client: httpx.AsyncClient, ids: Ids) -> list[str]:
    """Send every kind of request about a user's data; return those that failed without a reason."""
    path = f"/api/conversations/{ids.conversation_id}"
    unexplained = []
    for method, url, body in (
        ("GET", "/", None),
        ("GET", "/api/conversations/", None),
        ("GET", path, None),
        ("GET", f"{path}?limit=1", None),
        *(("GET", f"{path}/export?format={kind}", None) for kind in ("markdown", "json", "html")),
        ("PATCH", path, {"title": "changed"}),
        ("POST", "/api/conversations/", {"title": "new"}),
    ):
        response = await client.request(method, url, json=body)
        if response.status_code >= 500 and response.json()["error"]["type"] != "unreadable":
            unexplained.append(f"{method} {url}: {response.status_code} {response.text}")
    for url in (f"{STREAM}?turn={ids.turn_id}", f"{STREAM}?turn={ids.turn_id}&format=ndjson"):
        async with client.stream("GET", url) as response:
            if response.status_code >= 500:
                unexplained.append(f"GET {url}: {response.status_code}")
            await anext(response.aiter_raw(), b"")
    async with client.stream("GET", "/api/events/") as response:
        if response.status_code >= 500:
            unexplained.append(f"GET /api/events/: {response.status_code}")
    return unexplained


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("name", KEYS)
async def test_garbage_under_a_key_stops_nobody_and_its_owner_can_ask_again(
    site: Site,
    upstream: ScriptedUpstream,
    question: str,
    name: str,
    spoil: Callable[[Any, str, str], Awaitable[None]],
) -> None:
    workers = find_children(site.server.process.pid, "python")
    async with httpx.AsyncClient(base_url=site.server.url, timeout=60) as client:
        ids, exchange = await begin_two_turns(site, client, upstream, question)
        key = ids.name_key(name)
        kind = get_type(key)
        assert kind
        if await site.redis.admin.type(key) not in (kind.encode(), b"none"):
            await site.redis.admin.delete(key)  # another test spoiled it, and nothing has used it
        await spoil(site.redis.admin, key, kind)
        with suppress(ConnectionResetError):  # the turn may have been dropped by now
            await exchange.send_text("the rest")
        assert await send_every_request(client, ids) == []
        await site.other.send_text(f"after {name}")
        assert (await anext(site.arriving)).data == f"after {name}"
        events = await ask(client, upstream, f"again {question}", "asked again")
        assert events[-1].data == "asked again"
    assert find_children(site.server.process.pid, "python") == workers
    assert "Traceback" not in site.server.read_log()


@pytest.mark.parametrize("spoil", SPOIL)
async def test_an_unreadable_message_hides_no_other(
    site: Site,
    upstream: ScriptedUpstream,
    question: str,
    spoil: Callable[[Any, str, str], Awaitable[None]],
) -> None:
    async with httpx.AsyncClient(base_url=site.server.url, timeout=60) as client:
        await ask(client, upstream, question, "first")
        events = await ask(client, upstream, f"second {question}", "second")
        ids = json.loads(events[0].data)
        (key,) = [
            key async for key in site.redis.admin.scan_iter(f"*:messages:{ids['conversation']}")
        ]
        entry: Any = await site.redis.admin.hget(key, ids["message"])
        await site.redis.admin.hset(key, ids["message"], entry.partition(b"\n")[0] + b"\n\xff{")
        path = f"/api/conversations/{ids['conversation']}"
        for query in ("", "?limit=1", "?limit=3"):
            body = (await client.get(path + query)).json()
            assert body["messages"][-1]["content"] == "second"
        contents = [one["content"] for one in (await client.get(path)).json()["messages"]]
        assert contents == [question, "first", "second"]


async def test_reading_a_circle_of_messages_ends(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    async with httpx.AsyncClient(base_url=site.server.url, timeout=60) as client:
        events = await ask(client, upstream, question, "first")
        ids = json.loads(events[0].data)
        admin = site.redis.admin
        (key,) = [key async for key in admin.scan_iter(f"*:messages:{ids['conversation']}")]
        entry: Any = await admin.hget(key, ids["message"])
        await admin.hset(key, ids["message"], ids["answer"].encode() + b"\n" + entry[1:])
        await admin.hset(key, f">{ids['answer']}", ids["message"])
        path = f"/api/conversations/{ids['conversation']}"
        assert (await client.get(path)).status_code == 200
        assert (await client.get(f"{path}/export?format=html")).status_code == 200
        assert (await client.patch(path, json={"branch": ids["message"]})).status_code == 200
        await ask(client, upstream, f"again {question}", "asked again")


async def test_garbage_on_a_channel_ends_no_worker(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    workers = find_children(site.server.process.pid, "python")
    async with httpx.AsyncClient(base_url=site.server.url, timeout=60) as client:
        ids, exchange = await begin_two_turns(site, client, upstream, question)
        async with client.stream("GET", "/api/events/") as events:
            received = events.aiter_lines()
            await anext(received)
            for channel in (keys.stops(), ids.name_key("events"), ids.name_key("records")):
                for data in (b"", b"\xff", HUGE, b"1-1 turn", f"{10**30}-0 turn a b".encode()):
                    await site.redis.admin.publish(channel, data)
            await exchange.answer("the rest")
            async with asyncio.timeout(PATIENCE_S):
                async for line in received:
                    if line == "event: end":
                        break
        assert (await read(client, turn=ids.turn_id))[-1].data == "half of it the rest"
    assert find_children(site.server.process.pid, "python") == workers


def test_every_kind_of_key_has_a_type() -> None:
    ids = Ids("owner", "c" * 16, "t" * 16, cookie.create_id(0))
    assert {get_type(ids.name_key(name)) for name in KEYS} <= set(TYPES.values())
    assert None not in {get_type(ids.name_key(name)) for name in KEYS}
    assert get_type("holdline:{key:name}:turn:x") == "hash"


async def test_a_call_runs_again_without_the_keys_of_another_type(redis: Client) -> None:
    ref = TurnRef(Owner(secrets.token_urlsafe(8)), ConversationId("c" * 16), TurnId("t" * 16))
    names = [
        ref.turn_key, ref.log_key, keys.conversation(ref.owner, ref.conversation),
        keys.messages(ref.owner, ref.conversation), keys.conversations(ref.owner),
        keys.turns(ref.owner, ref.conversation), keys.events(ref.owner),
    ]  # fmt: skip
    for name in names:
        await redis.delete(name)
        await (redis.rpush if get_type(name) == "string" else redis.set)(name, b"\xff")
    turns = TurnStore(redis, lease_s=60, ttl_s=1000)
    assert (await turns.begin(question_at(ref))).outcome == "begun"
    assert (await turns.read(ref, 0, 100)).data == b"<user-1>"
    assert await turns.finish(ref, 1, 8, b"last", "done", '{"role": "assistant"}')
    store = ConversationStore(redis, ttl_s=1000)
    assert len(await store.read_branch(ref.owner, ref.conversation)) == 2
    assert len((await store.read_page(ref.owner, 10, None))[0]) == 1


@pytest.mark.parametrize("name", ["conversations", "events", "expiries", "request", "usage"])
async def test_an_answer_ends_whole_if_a_key_of_its_owner_has_another_type(
    redis: Client, name: str
) -> None:
    ref = TurnRef(Owner(secrets.token_urlsafe(8)), ConversationId("c" * 16), TurnId("t" * 16))
    turns = TurnStore(redis, lease_s=60, ttl_s=1000)
    assert (await turns.begin(replace(question_at(ref), request="{}"))).outcome == "begun"
    key = Ids(ref.owner, ref.conversation, ref.turn, "").name_key(name)
    await store_another_type(redis, key, get_type(key) or "")
    assert await turns.finish(ref, 1, 8, b"last", "done", '{"role": "assistant"}')
    store = ConversationStore(redis, ttl_s=1000)
    branch = await store.read_branch(ref.owner, ref.conversation)
    assert [message.id for message in branch] == ["answer-1", "user-1"]
    assert await turns.read(ref, 8, 100) == ("done", 12, b"last")
    found = await store.read(ref.owner, ref.conversation)
    assert found
    assert found.running is None
    assert await turns.read_request(ref) is None
    assert len((await store.read_page(ref.owner, 10, None))[0]) == 1


async def test_three_thousand_entries_without_a_turn_disappear_in_one_sweep(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = TurnStore(redis, lease_s=60, ttl_s=1000)
    refs = [
        TurnRef(Owner(secrets.token_urlsafe(8)), ConversationId("c" * 16), TurnId(f"{n:016}"))
        for n in range(3000)
    ]
    await turns.renew([(ref, 1) for ref in refs])
    members = [f"{ref.owner} {ref.conversation} {ref.turn}" for ref in refs]
    await redis.zadd(keys.running(), dict.fromkeys(members, 1))
    await redis.zadd(keys.running(), {f"a b c d {number}": 1 for number in range(500)})
    exchanges = []
    send = scripts._send

    async def count(redis: Client, calls: Any) -> list[Any]:
        exchanges.append(len(calls))
        return await send(redis, calls)

    monkeypatch.setattr(scripts, "_send", count)
    assert not set(await turns.expired_leases()) & set(refs)
    assert len(exchanges) <= 4 * 36
    left = await redis.zrange(keys.running(), 0, -1)
    assert not {member.encode() for member in members} & set(left)


async def test_a_rejected_question_leaves_no_entry(site: Site, question: str) -> None:
    async with httpx.AsyncClient(base_url=site.server.url, timeout=60) as client:
        before = await site.redis.admin.zcard(keys.running())
        for query in (
            {"message": question, "conversation": "a b"},
            {"message": question, "conversation": "c" * 16},
            {"message": question, "conversation": "c" * 17},
            {"message": question, "parent": "m" * 16},
            {"message": question, "parent": "m m"},
            {"regenerate": "m" * 16},
            {"regenerate": "x\n"},
            {"message": question, "turn": "short"},
            {"message": question, "turn": "t" * 65},
            {"message": question, "turn": "t" * 15 + "\n"},
            {"turn": "t" * 22},
            {"message": " "},
            {"message": question, "model": "unknown"},
        ):
            response = await client.get(STREAM, params=query)
            assert response.status_code in (400, 404), query
        assert await site.redis.admin.zcard(keys.running()) == before


async def test_a_dropped_turn_ends_for_its_viewers(
    site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    async with httpx.AsyncClient(base_url=site.server.url, timeout=60) as client:
        ids, _ = await begin_two_turns(site, client, upstream, question)
        await site.redis.admin.hset(ids.name_key("turn"), "fence", "x")
        async with asyncio.timeout(PATIENCE_S):
            while await site.redis.admin.exists(ids.name_key("turn")):
                await asyncio.sleep(0.02)
        with pytest.raises(httpx.HTTPStatusError):
            await read(client, turn=ids.turn_id)
        conversation = (await client.get(f"/api/conversations/{ids.conversation_id}")).json()
        assert conversation["running"] is None
        assert "dropped. Its log stays for a day" in site.server.read_log()
