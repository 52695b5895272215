"""Attacks that fill, stop or bill by numbers: turns, addresses, bytes and conversations."""

import asyncio
import itertools
import random
import time
import uuid
from typing import Any

import httpx

from tests.attack.target import (
    Outcome,
    Target,
    answer,
    begin,
    gather_bounded,
    hold,
    is_served,
    measure_delay,
    summarise,
)
from tests.streams import STREAM

_SYSTEM = "s" * 500_000
_MB = 1_000_000
_JSON = {"Content-Type": "application/json"}


async def begin_turns_without_a_cookie(target: Target) -> Outcome:
    """Begin turns that never end, each as a new client, and leave."""
    target.respond = hold
    async with target.open_uncookied_client() as client:
        statuses = await gather_bounded([begin(client, f"flood {n}") for n in range(200)])
        await asyncio.sleep(1)
    left = sum(not exchange.closed.is_set() for exchange in target.upstream.exchanges)
    return Outcome(left <= 40, f"{summarise(statuses)}; {left} upstream requests left running")


async def ask_without_a_cookie(target: Target) -> Outcome:
    """Ask more questions than an address may, each as a new client."""
    async with target.open_uncookied_client() as client:
        statuses = await gather_bounded([begin(client, f"flood {n}") for n in range(700)], 20)
    return Outcome(statuses.count(200) <= 610, f"700 questions: {summarise(statuses)}")


async def reconnect_at_the_limit(target: Target) -> Outcome:
    """Attach to a known turn after the rate is used up: the one thing that no limit may reject."""
    async with target.open_client() as client:
        await client.get("/")
        turn = uuid.uuid4().hex
        first = await begin(client, "known", params={"turn": turn})
        statuses = await gather_bounded([begin(client, f"more {n}") for n in range(70)], 1)
        again = await client.get(STREAM, params={"message": "known", "turn": turn})
    return Outcome(
        429 in statuses and (first, again.status_code) == (200, 200),
        f"70 more questions: {summarise(statuses)}; the known turn: {again.status_code}",
    )


def _ipv4(number: int) -> str:
    return f"203.0.113.{number}"


def _ipv6(number: int) -> str:
    return f"2001:db8:1:2::{number:x}"


async def _ask_from(target: Target, addresses: list[str]) -> Outcome:
    """Ask once per address: they all belong to one client, and RATE_LIMIT_ADDRESS is 20."""
    async with target.open_uncookied_client() as client:
        statuses = await gather_bounded(
            [
                begin(client, f"flood {n}", headers={"X-Forwarded-For": address})
                for n, address in enumerate(addresses)
            ],
            10,
        )
    return Outcome(statuses.count(200) <= 22, f"60 questions: {summarise(statuses)}")


async def forge_addresses(target: Target) -> Outcome:
    """Name a new address in `X-Forwarded-For` with each request, as an untrusted peer."""
    return await _ask_from(target, [_ipv4(n) for n in range(60)])


async def forge_addresses_through_a_proxy(target: Target) -> Outcome:
    """Send a forged address, to which a trusted proxy appends the real one."""
    return await _ask_from(target, [f"{_ipv4(n)}, 198.51.100.7" for n in range(60)])


async def change_addresses_in_a_network(target: Target) -> Outcome:
    """Use the addresses of one IPv6 network of 64 bits behind a trusted proxy."""
    return await _ask_from(target, [_ipv6(n) for n in range(60)])


async def forge_host_and_scheme(target: Target) -> Outcome:
    """Name another host and scheme as an untrusted peer."""
    headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    browser = {"User-Agent": "Mozilla/5.0", "Origin": "https://evil.example"}
    async with target.open_client() as client:
        status = await begin(client, "forged", headers={**headers, **browser})
        page = await client.get("/", headers=headers)
    cookie = page.headers.get("set-cookie", "")
    secure = "secure" in cookie.lower() or cookie.startswith("__Host-")
    return Outcome(
        status in (403, 421) and not secure,
        f"question: {status}; the cookie is {'secure' if secure else 'plain'}",
    )


async def request_anonymously(target: Target) -> Outcome:
    """Send requests without a cookie that store nothing."""
    requests = [("GET", "/"), ("GET", "/api/info"), ("GET", "/api/conversations/"),
                ("GET", f"/api/conversations/{uuid.uuid4().hex}"), ("OPTIONS", STREAM),
                ("GET", STREAM), ("POST", STREAM)]  # fmt: skip
    async with target.open_uncookied_client() as client:
        await client.get("/")
        keys, size = await target.redis.dbsize(), await target.count_redis_bytes()
        await gather_bounded([client.request(*one) for one in requests * 50])
    new_keys = await target.redis.dbsize() - keys
    grown = await target.count_redis_bytes() - size
    count = len(requests) * 50
    return Outcome(
        new_keys <= 2,  # counters of rates
        f"{count} requests: {new_keys} keys, {max(grown, 0) / count:.0f} bytes in Redis each",
    )


async def store_sessions_and_turns(target: Target) -> Outcome:
    """Begin one short turn in each of 100 sessions."""
    clients = [target.open_client() for _ in range(100)]
    await clients[0].get("/")
    sizes = [await target.count_key_bytes()]
    for client in clients:
        await client.get("/")
    sizes.append(await target.count_key_bytes())
    for client in clients:
        await client.get(STREAM, params={"message": "hello"})
        await client.aclose()
    sizes.append(await target.count_key_bytes())
    session, turn = (max(after - before, 0) // 100 for before, after in itertools.pairwise(sizes))
    return Outcome(
        session == 0 and turn <= 16_000,
        f"a session that stores nothing: {session} bytes in Redis; its first turn: {turn}",
    )


async def store_huge_system_prompts(target: Target) -> Outcome:
    """Create and change conversations with system prompts of half a megabyte."""
    async with target.open_client() as client:
        created = (await client.post("/api/conversations/", json={})).json()["id"]
        size = await target.count_redis_bytes()
        path = f"/api/conversations/{created}"
        statuses: list[Any] = []
        for _ in range(30):
            posted = await client.post("/api/conversations/", json={"system": _SYSTEM})
            patched = await client.patch(path, json={"system": _SYSTEM})
            statuses += [posted.status_code, patched.status_code]
    grown = await target.count_redis_bytes() - size
    return Outcome(
        not any(status < 400 for status in statuses) and grown < _MB,
        f"{summarise(statuses)}; Redis grew by {grown / _MB:.1f} MB",
    )


async def create_many_conversations(target: Target) -> Outcome:
    """Create more conversations than ten times RATE_LIMIT."""
    async with target.open_client() as client:
        await client.get("/")

        async def create() -> int:
            return (await client.post("/api/conversations/", json={})).status_code

        statuses = await gather_bounded([create() for _ in range(700)], 20)
    return Outcome(statuses.count(201) <= 610, f"700 requests: {summarise(statuses)}")


async def create_conversations_without_a_cookie(target: Target) -> Outcome:
    """Create conversations with the longest system prompt, each as a new client."""
    size = await target.count_key_bytes()
    body = {"system": "😀" * 8000}
    async with target.open_uncookied_client() as client:

        async def create() -> int:
            return (await client.post("/api/conversations/", json=body)).status_code

        statuses = await gather_bounded([create() for _ in range(600)], 20)
    grown = await target.count_key_bytes() - size
    return Outcome(
        grown < 10 * _MB, f"600 requests: {summarise(statuses)}; Redis grew by {grown / _MB:.1f} MB"
    )


async def list_large_conversations(target: Target) -> Outcome:
    """List 200 conversations with the longest system prompts and titles, twelve times at once."""
    longest = {"title": "t" * 60, "system": "s" * 8000}
    async with target.open_client() as client:
        for _ in range(200):
            assert (await client.post("/api/conversations/", json=longest)).status_code == 201

        async def read() -> int:
            return len((await client.get("/api/conversations/", params={"limit": "200"})).content)

        async with measure_delay(target) as delays:
            sizes = await gather_bounded([read() for _ in range(12)])
    size = max(sizes)
    return Outcome(
        size < 200_000 and max(delays) < 0.5,
        f"{size / 1000:.0f} kB; others waited for {max(delays) * 1000:.0f} ms at most",
    )


async def exceed_the_owners_bytes(target: Target) -> Outcome:
    """Store three times OWNER_MAX_BYTES in one session."""
    async with target.open_client() as client:
        statuses = [await begin(client, f"{n} {'q' * 4000}") for n in range(150)]
    rejected = [status for status in statuses if status >= 400]
    return Outcome(
        bool(rejected) and all(status in (413, 507) for status in rejected),
        f"150 questions of 4 kB, OWNER_MAX_BYTES=200000: {summarise(statuses)}",
    )


async def fill_redis(target: Target) -> Outcome:
    """Fill Redis to 95 % of its limit: questions are rejected, and history stays readable."""
    async with target.open_client() as client:
        await begin(client, "before")
        created = (await client.get("/api/conversations/")).json()["conversations"][0]["id"]
        limit = int((await target.redis.config_get("maxmemory"))["maxmemory"])
        policy = (await target.redis.config_get("maxmemory-policy"))["maxmemory-policy"]
        if not limit:
            return Outcome(False, "the embedded Redis has no maxmemory")
        if limit > 200 * _MB:  # too much to fill: lower it, as a smaller machine would
            return Outcome(False, f"REDIS_MAXMEMORY=50mb was not used: {limit / _MB:.0f} MB")
        filler = int(limit * 0.95) - await target.count_redis_bytes()
        for number in range(max(filler // 100_000, 0)):
            await target.redis.set(f"filler:{number}", b"f" * 98_000)
        await asyncio.sleep(3)  # the measurement of the server may be some seconds old
        status = await begin(client, "after")
        history = (await client.get(f"/api/conversations/{created}")).status_code
    return Outcome(
        (status, history, policy) == (507, 200, "noeviction"),
        f"question: {status}, history: {history}, policy: {policy}",
    )


async def keep_request_bodies(target: Target) -> Outcome:
    """Send 180 bodies of 0.9 MB at once; the worker must not keep them."""
    body = b'{"title": "t", "padding": "%b"}' % (b"p" * 900_000)
    before = target.count_resident_bytes()
    async with target.open_uncookied_client() as client:

        async def post() -> int:
            response = await client.post("/api/conversations/", content=body, headers=_JSON)
            return response.status_code

        statuses = await gather_bounded([post() for _ in range(180)], 60)
    await asyncio.sleep(1)
    grown = (target.count_resident_bytes() - before) / _MB
    return Outcome(grown < 60, f"{summarise(statuses)}; an idle worker grew by {grown:.0f} MB")


async def send_oversized_requests(target: Target) -> Outcome:
    """Send heads, bodies and questions over their limits."""
    long = "q" * 20_000
    async with target.open_client() as client:
        statuses: list[Any] = []
        for request in (
            client.get(STREAM, params={"message": long}),
            client.get("/api/info", headers={"X-Long": long}),
            client.post(STREAM, json={"message": "q" * 40_000}),
            client.post(
                STREAM, content=b"[" * 900_000, headers={"Content-Type": "application/json"}
            ),
            client.post(STREAM, content=b"{" + b" " * (2 * _MB) + b"}"),
        ):
            try:
                statuses.append((await request).status_code)
            except httpx.TransportError:
                statuses.append(413)  # the server closed the connection
    served = await is_served(target)
    return Outcome(
        all(400 <= status < 500 for status in statuses) and served,
        f"{summarise(statuses)}; others {'served' if served else 'not served'}",
    )


async def hold_many_streams(target: Target) -> Outcome:
    """Read one turn and the event channel over more connections than a session may have."""
    target.respond = hold
    turn = uuid.uuid4().hex
    async with target.open_client(limits=httpx.Limits(max_connections=None)) as client:
        await client.get("/")
        await begin(client, "watched", params={"turn": turn})

        async def watch(path: str, **params: str) -> int:
            async with client.stream("GET", path, params=params) as response:
                await asyncio.sleep(3 if response.status_code == 200 else 0)
                return response.status_code

        turns = await gather_bounded([watch(STREAM, turn=turn) for _ in range(220)], 400)
        events = await gather_bounded([watch("/api/events/") for _ in range(220)], 400)
    target.respond = answer
    return Outcome(
        turns.count(200) <= 200 and 429 in turns and 429 in events,
        f"viewers of a turn: {summarise(turns)}; of events: {summarise(events)}",
    )


async def stop_begun_turns_quickly(target: Target) -> Outcome:
    """Begin and abandon questions in one conversation: one upstream request may remain."""
    target.respond = hold
    chance = random.Random(1)
    async with target.open_client() as client:
        made = await client.post("/api/conversations/", json={})
        params = {"conversation": made.json()["id"]}
        begun = time.monotonic()
        statuses = [await begin(client, f"{n} {chance.random()}", params=params) for n in range(30)]
        passed = time.monotonic() - begun
        await asyncio.sleep(1)
    left = sum(not exchange.closed.is_set() for exchange in target.upstream.exchanges)
    return Outcome(
        left <= 1, f"{summarise(statuses)} in {passed:.1f} s; {left} upstream requests left running"
    )
