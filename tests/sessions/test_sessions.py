"""Sessions: an unguessable cookie, stored as a hash, replaced if unknown, expired if too old."""

import hashlib
import json
import re
import time
import uuid

import httpx
import pytest

from sessions import cookie, keys
from sessions.client.connection import Client
from sessions.keys import Owner
from sessions.session_store import SessionStore
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server
from tests.streams import ask, asking


def test_a_session_id_has_256_random_bits_and_its_digest_is_sha256() -> None:
    ids = {cookie.new_id() for _ in range(100)}
    assert len(ids) == 100
    for session_id in ids:
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", session_id)
        assert cookie.hash_id(session_id) == hashlib.sha256(session_id.encode()).hexdigest()


@pytest.mark.parametrize(
    "invalid", [None, "", "x", "x" * 42, "x" * 44, "é" * 43, "x" * 42 + "\n", "../" * 14 + "x"]
)
def test_a_malformed_cookie_has_no_digest(invalid: str | None) -> None:
    assert cookie.hash_id(invalid) is None


async def test_the_first_response_sets_the_cookie(client: httpx.AsyncClient) -> None:
    response = await client.get("/")
    header = response.headers["set-cookie"]
    assert re.fullmatch(
        r"holdline=[\w-]{43}; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax", header
    )
    assert "set-cookie" not in (await client.get("/")).headers


async def test_the_cookie_is_secure_and_bound_to_the_host_under_https(
    client: httpx.AsyncClient,
) -> None:
    response = await client.get("/", headers={"X-Forwarded-Proto": "https"})
    header = response.headers["set-cookie"]
    assert header.startswith("__Host-holdline=")
    assert "; Secure" in header
    assert "Domain" not in header


async def test_the_stream_response_sets_the_cookie(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        assert "holdline=" in source.response.headers["set-cookie"]
        await (await upstream.exchange(question)).answer("x")
    assert len((await client.get("/api/conversations/")).json()["conversations"]) == 1


async def test_redis_never_stores_a_session_id(client: httpx.AsyncClient, redis: Client) -> None:
    await client.get("/")
    session_id = client.cookies["holdline"]
    digest = hashlib.sha256(session_id.encode()).hexdigest()
    record = await redis.get(f"holdline:session:{digest}")
    assert set(json.loads(record)) == {"owner", "created"}
    async for key in redis.scan_iter():
        assert session_id.encode() not in key
        if await redis.type(key) == b"string":
            assert session_id.encode() not in (await redis.get(key))


@pytest.mark.parametrize("unknown", ["x" * 43, "short", "x" * 3000, "a b", ""])
async def test_an_unknown_cookie_is_replaced_and_not_adopted(
    server: Server, redis: Client, unknown: str
) -> None:
    async with httpx.AsyncClient(
        base_url=server.url, headers={"Cookie": f"holdline={unknown}"}
    ) as client:
        response = await client.get("/api/conversations/")
    assert response.status_code == 200
    assert response.cookies["holdline"] != unknown
    assert not await redis.exists(
        f"holdline:session:{hashlib.sha256(unknown.encode()).hexdigest()}"
    )


async def test_use_extends_a_session_and_its_maximum_age_ends_it(redis: Client) -> None:
    store = SessionStore(redis, idle_s=1000, ttl_s=5000)
    session_id, session = await store.create()
    key = keys.session(session.digest)
    assert 990 < await redis.ttl(key) <= 1000
    await redis.expire(key, 10)
    assert await store.find(session_id) == session
    assert await redis.ttl(key) > 990
    await redis.set(key, json.dumps({"owner": session.owner, "created": int(time.time()) - 5001}))
    assert await store.find(session_id) is None
    assert not await redis.exists(key)
    assert await store.find(session_id) is None


async def test_an_expired_session_is_replaced_by_a_new_one_without_conversations(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    await ask(client, upstream, question, "mine")
    before = client.cookies["holdline"]
    await redis.delete(f"holdline:session:{hashlib.sha256(before.encode()).hexdigest()}")
    assert (await client.get("/api/conversations/")).json()["conversations"] == []
    assert client.cookies["holdline"] != before


async def test_another_sessions_conversation_is_not_found(
    client: httpx.AsyncClient, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    begun = json.loads((await ask(client, upstream, question, "mine"))[0].data)
    path = f"/api/conversations/{begun['conversation']}"
    async with httpx.AsyncClient(base_url=server.url) as stranger:
        for response in (
            await stranger.get(path),
            await stranger.patch(path, json={"title": "changed"}),
            await stranger.delete(path),
        ):
            assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found")
    assert (await client.get(path)).json()["title"] == question


async def test_the_keys_of_a_turn_share_a_slot_and_expire(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    begun = json.loads((await ask(client, upstream, question, "answer"))[0].data)
    (key,) = [key async for key in redis.scan_iter(f"holdline:*:turn:{begun['turn']}")]
    owner = Owner(key.decode().split("{")[1].split("}")[0])
    left = {key.decode() async for key in redis.scan_iter(f"*{owner}*")}
    digest = hashlib.sha256(client.cookies["holdline"].encode()).hexdigest()
    prefix = f"holdline:{{{owner}}}:"
    assert left == {
        prefix + name
        for name in (
            "conversations",
            f"conversation:{begun['conversation']}",
            f"messages:{begun['conversation']}",
            f"turns:{begun['conversation']}",
            f"turn:{begun['turn']}",
            f"records:{begun['turn']}",
            f"current:{digest}",
            "events",
            "usage",
            "expiries",
        )
    }
    assert await redis.ttl(f"{prefix}records:{begun['turn']}") <= 3600
    for name in left:
        assert 3500 < await redis.ttl(name) <= 34_560_000
    await client.delete(f"/api/conversations/{begun['conversation']}")
    left = {key.decode() async for key in redis.scan_iter(f"*{owner}*")}
    assert left == {f"{prefix}current:{digest}", f"{prefix}events"}
    assert await redis.ttl(f"{prefix}events") <= 3600


async def test_a_question_after_a_deletion_begins_a_new_conversation(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    begun = json.loads((await ask(client, upstream, question, "gone"))[0].data)
    assert (await client.delete(f"/api/conversations/{begun['conversation']}")).status_code == 204
    asked = f"{question} {uuid.uuid4().hex}"
    await ask(client, upstream, asked, "new")
    assert len((await upstream.exchange(asked)).messages) == 1
