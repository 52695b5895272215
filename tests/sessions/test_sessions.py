"""Sessions: an unguessable cookie, stored as a hash, replaced if unknown, expired if too old."""

import asyncio
import contextlib
import hashlib
import json
import re
import time
import uuid

import httpx
import pytest

from sessions import cookie, keys
from sessions.client.connection import Client, connect
from sessions.cookie import Instance
from sessions.keys import Owner, SessionDigest, TurnId
from sessions.session_store import Session, SessionStore
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import own_redis
from tests.processes import PATIENCE_S, Server, holdline, redis_server
from tests.streams import STREAM, ask, asking, cookie_of, read, text_of

INSTANCE = Instance("0123456789abcdef", b"secret")
NOW = 1_800_000_000.5


def id_of(client: httpx.AsyncClient) -> str:
    """Return the id in a client's cookie."""
    return cookie_of(client).partition("=")[2].partition(".")[0]


def digest_of(client: httpx.AsyncClient) -> str:
    return hashlib.sha256(id_of(client).encode()).hexdigest()


async def find(store: SessionStore, session_id: str) -> Session | None:
    """Return the session of a signed id."""
    instance = await store.get_instance()
    name = cookie.get_name(instance, secure=False)
    return await store.find([f"{name}={cookie.sign(session_id, instance)}"], secure=False)


def test_a_session_id_has_256_random_bits_and_its_digest_is_sha256() -> None:
    ids = {cookie.create_id(NOW) for _ in range(100)}
    assert len({session_id[8:] for session_id in ids}) == 100
    for session_id in ids:
        assert re.fullmatch(r"[0-9a-f]{8}[A-Za-z0-9_-]{43}", session_id)
        assert cookie.read_time(session_id) == int(NOW)
        assert cookie.hash_id(session_id) == hashlib.sha256(session_id.encode()).hexdigest()


def test_only_a_value_with_our_signature_is_an_id() -> None:
    session_id = cookie.create_id(NOW)
    value = cookie.sign(session_id, INSTANCE)
    assert cookie.verify(value, INSTANCE) == session_id
    assert cookie.verify(value, Instance(INSTANCE.id, b"other")) is None
    for i in range(len(value)):
        changed = "A" if value[i] != "A" else "B"
        assert cookie.verify(value[:i] + changed + value[i + 1 :], INSTANCE) is None
    for invalid in (
        "", "x", ".", session_id, f"{session_id}.", value + "=", value[:-1], f"{value}.",
        f" {value}", "é" + value[1:], value.replace(".", ""), "x" * 3000,
    ):  # fmt: skip
        assert cookie.verify(invalid, INSTANCE) is None


@pytest.mark.parametrize(
    ("fields", "secure", "found"),
    [
        (["NAME=VALUE"], False, 1),
        (["a=b; NAME=VALUE"], False, 1),
        (["a=b", "NAME=VALUE; c"], False, 1),  # HTTP/2 splits the field
        (["NAME=x", "NAME=VALUE"], False, 1),
        (["NAME=VALUE; NAME=VALUE"], False, 2),
        (["NAME = VALUE"], False, 1),
        (["name=VALUE"], False, 0),
        (["NAMEx=VALUE"], False, 0),
        (["__Host-NAME=VALUE"], False, 0),
        (["__Host-NAME=VALUE"], True, 1),
        (["NAME=VALUE"], True, 0),  # any page on http, and a sibling subdomain, can set it
        (["__Secure-NAME=VALUE"], True, 0),
        (["__Secure-__Host-NAME=VALUE"], True, 0),  # a sibling subdomain can set it
        (["__Host-__Host-NAME=VALUE"], True, 0),
        (["__secure-NAME=VALUE", "__host-NAME=VALUE"], True, 0),
        (["=NAME=VALUE", "VALUE", "NAME", ";;=", ""], False, 0),
    ],
)
def test_a_cookie_is_found_in_any_field_by_its_exact_name(
    fields: list[str], secure: bool, found: int
) -> None:
    session_id = cookie.create_id(NOW)
    value = cookie.sign(session_id, INSTANCE)
    sent = [field.replace("NAME", "holdline-01234567").replace("VALUE", value) for field in fields]
    assert cookie.read_ids(sent, INSTANCE, secure=secure) == [session_id] * found


async def test_the_web_ui_sets_the_cookie_and_stores_nothing(
    client: httpx.AsyncClient, redis: Client
) -> None:
    header = (await client.get("/")).headers["set-cookie"]
    assert re.fullmatch(
        r"holdline-[0-9a-f]{8}=[\w-]{51}\.[\w-]{43}; Path=/; Max-Age=34560000; HttpOnly; "
        r"SameSite=Lax",
        header,
    )
    key = keys.session(SessionDigest(digest_of(client)))
    for path in ("/", "/api/info", "/api/conversations/"):
        assert "set-cookie" not in (await client.get(path)).headers
    assert not await redis.exists(key)
    created = await client.post("/api/conversations/", json={})
    assert created.status_code == 201
    assert "set-cookie" not in created.headers
    assert set(json.loads(await redis.get(key))) == {"owner", "created"}
    (found,) = (await client.get("/api/conversations/")).json()["conversations"]
    assert found["id"] == created.json()["id"]


async def test_a_request_that_stores_nothing_sets_no_cookie(client: httpx.AsyncClient) -> None:
    for response in (
        await client.get("/api/info"),
        await client.head("/api/info"),
        await client.get("/api/conversations/"),
        await client.get("/api/conversations/none"),
        await client.get(STREAM, params={"turn": "t" * 22}),
        await client.get(STREAM, params={"message": " "}),
        await client.options("/api/conversations/"),
        await client.options("/"),
        await client.post("/api/conversations/", json={"title": ""}),
        await client.post("/api/conversations/", content=b"{"),
        await client.get("/docs"),
    ):
        assert "set-cookie" not in response.headers
    assert "set-cookie" in (await client.post("/api/conversations/", json={})).headers


async def test_the_cookie_is_secure_and_bound_to_the_host_under_https(
    client: httpx.AsyncClient,
) -> None:
    for forwarded in ("https", "HTTPS", "https, http"):
        response = await client.get("/", headers={"X-Forwarded-Proto": forwarded})
        header = response.headers["set-cookie"]
        assert header.startswith("__Host-holdline-")
        assert "; Secure" in header
        assert "Domain" not in header


async def test_an_untrusted_peer_cannot_state_the_scheme(redis_url: str) -> None:
    async with (
        holdline(REDIS_URL=redis_url, TRUSTED_PROXIES="192.0.2.1") as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        for _ in range(2):
            response = await client.get("/", headers={"X-Forwarded-Proto": "https"})
            assert response.headers["set-cookie"].startswith("holdline-")
            client.cookies.clear()
        assert server.read_log().count("TRUSTED_PROXIES") == 1


async def test_servers_of_one_redis_share_cookies_and_servers_of_another_do_not(
    client: httpx.AsyncClient, server: Server, redis_url: str
) -> None:
    created = await client.post("/api/conversations/", json={})
    async with (
        redis_server() as other_redis,
        holdline(REDIS_URL=redis_url) as same,
        holdline(REDIS_URL=other_redis) as other,
        httpx.AsyncClient(cookies=client.cookies) as browser,  # cookies are for all ports of a host
    ):
        listed = (await browser.get(f"{same.url}/api/conversations/")).json()["conversations"]
        assert [one["id"] for one in listed] == [created.json()["id"]]
        await browser.post(f"{other.url}/api/conversations/", json={})
        assert len(browser.cookies.jar) == 2
        for url in (server.url, same.url):
            listed = (await browser.get(f"{url}/api/conversations/")).json()["conversations"]
            assert [one["id"] for one in listed] == [created.json()["id"]]


async def test_no_cookie_is_set_before_redis_was_reached() -> None:
    async with own_redis() as redis:
        await redis.kill()
        async with (
            holdline(REDIS_URL=redis.url) as server,
            httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
        ):
            response = await client.get("/")
            assert response.status_code == 200
            assert "set-cookie" not in response.headers
            assert (await client.post("/api/conversations/", json={})).status_code == 503
            await redis.start()
            assert "set-cookie" in (await client.get("/")).headers


async def test_an_unreadable_identity_is_replaced_once(redis: Client) -> None:
    async with own_redis() as own:
        lone = connect(own.url)
        for garbage in ({"id": "x"}, {"id": "g" * 16, "secret": "0" * 64}, "text"):
            await lone.delete(keys.instance())
            if isinstance(garbage, dict):
                await lone.hset(keys.instance(), mapping=garbage)
            else:
                await lone.set(keys.instance(), garbage)
            stores = [SessionStore(lone, idle_s=10, ttl_s=10) for _ in range(2)]
            assert await stores[0].get_instance() == await stores[1].get_instance()
        await lone.aclose()


async def test_the_stream_response_sets_the_cookie(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        assert "holdline-" in source.response.headers["set-cookie"]
        await (await upstream.exchange(question)).answer("x")
    assert len((await client.get("/api/conversations/")).json()["conversations"]) == 1


async def test_redis_never_stores_a_session_id(client: httpx.AsyncClient, redis: Client) -> None:
    await client.post("/api/conversations/", json={})
    session_id = id_of(client)
    record = await redis.get(f"holdline:session:{digest_of(client)}")
    assert set(json.loads(record)) == {"owner", "created"}
    async for key in redis.scan_iter():
        assert session_id.encode() not in key
        if await redis.type(key) == b"string":
            assert session_id.encode() not in (await redis.get(key))


@pytest.mark.parametrize("unknown", ["x" * 43, "short", "x" * 3000, "a b", "", "SIGNED"])
async def test_an_unknown_cookie_is_replaced_and_not_adopted(
    server: Server, client: httpx.AsyncClient, redis: Client, unknown: str
) -> None:
    await client.get("/")
    name = cookie_of(client).partition("=")[0]
    if unknown == "SIGNED":
        unknown = cookie.sign(cookie.create_id(NOW), INSTANCE)
    headers = {"Cookie": f"{name}={unknown}; holdline={unknown}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as stranger:
        response = await stranger.post("/api/conversations/", json={})
    assert response.status_code == 201
    assert response.cookies[name] != unknown
    for part in (unknown, unknown.partition(".")[0]):
        digest = SessionDigest(hashlib.sha256(part.encode()).hexdigest())
        assert not await redis.exists(keys.session(digest))


async def test_use_extends_a_session_and_its_maximum_age_ends_it(redis: Client) -> None:
    store = SessionStore(redis, idle_s=1000, ttl_s=5000)
    session_id, session = store.create()
    assert await find(store, session_id) == session  # signed, and not stored
    await store.store(session)
    key = keys.session(session.digest)
    assert 990 < await redis.ttl(key) <= 1000
    await redis.expire(key, 10)
    found = await find(store, session_id)
    assert found == session
    assert found is not None
    assert found.is_stored
    assert await redis.ttl(key) > 990
    old = cookie.create_id(time.time() - 5001)
    await redis.set(
        keys.session(cookie.hash_id(old)), json.dumps({"owner": "o", "created": int(time.time())})
    )
    assert await find(store, old) is None


async def test_a_slow_first_write_does_not_restore_a_session_that_has_ended(redis: Client) -> None:
    store = SessionStore(redis, idle_s=1000, ttl_s=5000)
    session_id, _ = store.create()
    slow, fast = await find(store, session_id), await find(store, session_id)
    assert slow
    assert fast
    await store.store(fast)
    stored = await find(store, session_id)
    assert stored
    await store.end(stored)
    await store.store(slow)
    assert await find(store, session_id) is None


async def test_an_unused_session_is_not_revived_by_its_signature(redis: Client) -> None:
    store = SessionStore(redis, idle_s=1000, ttl_s=5000)
    session_id = cookie.create_id(time.time() - 1001)  # Redis would still have a used session
    assert await find(store, session_id) is None
    record = json.dumps({"owner": "own", "created": cookie.read_time(session_id)})
    await redis.set(keys.session(cookie.hash_id(session_id)), record, ex=100)
    assert (await find(store, session_id)) is not None


@pytest.mark.parametrize(
    "garbage", [b"\xff", b"[]", b"{}", b'{"owner": "a b", "created": 1}', None]
)
async def test_an_unreadable_session_is_stored_again(redis: Client, garbage: bytes | None) -> None:
    store = SessionStore(redis, idle_s=1000, ttl_s=5000)
    session_id, session = store.create()
    key = keys.session(session.digest)
    if garbage is None:
        await redis.lpush(key, "x")
    else:
        await redis.set(key, garbage)
    found = await find(store, session_id)
    assert found == session
    assert found is not None
    await store.store(found)
    assert json.loads(await redis.get(key))["owner"] == session.owner


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"owner", b"a b c", b"x" * 100_000, None])
async def test_an_unreadable_first_turn_is_unknown(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str,
    garbage: bytes | None,
) -> None:  # fmt: skip
    turn = TurnId(f"bad-{question[-32:]}")
    key = keys.first_turn(turn)
    await redis.lpush(key, "x") if garbage is None else await redis.set(key, garbage, ex=60)
    assert (await client.get(STREAM, params={"turn": turn})).status_code == 404
    assert text_of(await ask(client, upstream, question, "yes", turn=turn)) == "yes"


async def test_parallel_first_requests_with_one_cookie_have_one_session(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/")
    responses = await asyncio.gather(
        *(client.post("/api/conversations/", json={"title": f"{i}"}) for i in range(12))
    )
    assert {response.status_code for response in responses} == {201}
    listed = (await client.get("/api/conversations/")).json()["conversations"]
    assert {one["title"] for one in listed} == {f"{i}" for i in range(12)}


async def test_parallel_first_requests_without_a_cookie_lose_no_turn(
    server: Server, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    """Each gets a session, and the browser keeps the cookie of one; all reconnect with it."""
    turns = [f"{i}-{question[-32:]}" for i in range(6)]
    kept: list[httpx.AsyncClient] = []
    async with contextlib.AsyncExitStack() as stack:
        for i, turn in enumerate(turns):
            one = await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S)
            )
            await ask(one, upstream, f"{i} {question}", "yes", turn=turn)
            kept.append(one)
        assert len({cookie_of(one) for one in kept}) == 6
        strangers = [
            kept[-1],
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S)
            ),
        ]
        for stranger in strangers:
            for i, turn in enumerate(turns):
                assert text_of(await read(stranger, turn=turn)) == "yes"
                events = await read(stranger, {"Last-Event-ID": f"{turn}.0"})
                assert events[-1].data == "yes"
                again = await read(stranger, message=f"{i} {question}", turn=turn)
                assert text_of(again) == "yes"
                assert len(upstream.find_requests(f"{i} {question}")) == 1
        assert not strangers[1].cookies
        for turn in turns:
            assert 0 < await redis.ttl(keys.first_turn(TurnId(turn))) <= 60
            await redis.delete(keys.first_turn(TurnId(turn)))
        assert (await kept[-1].get(STREAM, params={"turn": turns[0]})).status_code == 404
        assert text_of(await read(kept[0], turn=turns[0])) == "yes"


async def test_clients_without_a_cookie_may_choose_the_same_turn_id(
    server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    turn = f"same-{question[-32:]}"
    for asked in (question, f"{question}?"):
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            assert text_of(await ask(client, upstream, asked, asked, turn=turn)) == asked
            assert text_of(await read(client, turn=turn)) == asked


async def test_the_turn_of_a_client_with_a_cookie_is_known_to_its_session_only(
    client: httpx.AsyncClient, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    turn = f"own-{question[-32:]}"
    await client.get("/")
    await ask(client, upstream, question, "mine", turn=turn)
    async with httpx.AsyncClient(base_url=server.url) as stranger:
        assert (await stranger.get(STREAM, params={"turn": turn})).status_code == 404


async def test_an_expired_session_is_replaced_by_a_new_one_without_conversations(
    upstream: ScriptedUpstream, redis_url: str, redis: Client, question: str
) -> None:
    model = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with (
        holdline(REDIS_URL=redis_url, SESSION_IDLE_S="1", **model) as server,
        httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        await ask(client, upstream, question, "mine")
        before = id_of(client)
        key = keys.session(cookie.hash_id(before))
        async with asyncio.timeout(PATIENCE_S):
            while await redis.exists(key) or time.time() <= cookie.read_time(before) + 1:
                await asyncio.sleep(0.05)
        assert (await client.get("/api/conversations/")).json()["conversations"] == []
        await client.get("/")
        assert id_of(client) != before


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
    digest = digest_of(client)
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
