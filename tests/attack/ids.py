"""Attacks with ids and records that nobody can parse."""

import asyncio
import itertools
import uuid
from typing import Any
from urllib.parse import urlencode

import httpx

from sessions import keys
from tests.attack.target import (
    Outcome,
    Target,
    gather_bounded,
    is_served,
    summarise,
    wait_until,
)
from tests.streams import STREAM

_GARBAGE = [
    "a b", "a%20b", "\0", "a\nb", "x" * 5000, "é" * 20, "../../etc/passwd", "{}", "*", "a:b",
    "holdline:running", "' OR 1=1", "\u202e\u0000", "-1", "NaN", " ", "🙂" * 16,
]  # fmt: skip
_STREAM_FIELDS = ["conversation", "turn", "parent", "regenerate", "model", "last_event_id"]
_HEADERS: list[Any] = [
    b"\xff\xfe", b"x", b".", b"..", b"turn.-1", b"a" * 4000, b"0123456789abcdef.1e9",
    b"0123456789abcdef.99999999999999999999999", b"0123456789abcdef.", b"{}", b"a b.1",
    b"0123456789abcdef.\xd9\xa3",
]  # fmt: skip
_UNKNOWN = 3000
_CLEAN_S = 8
"""An entry whose turn was never created is gone by then: LEASE_S and a few sweeps."""


async def send_garbage_ids(target: Target) -> Outcome:
    """Send each piece of garbage as each id that a client may name."""
    workers = [one.pid for one in target.list_workers()]
    async with target.open_client() as client:
        (created,) = [(await client.post("/api/conversations/", json={})).json()["id"]]
        requests = [request for text in _GARBAGE for request in _name_everywhere(text, created)]

        async def send(method: str, path: str, options: dict[str, Any]) -> int:
            async with client.stream(method, path, **options) as response:
                return response.status_code

        statuses = await gather_bounded([send(*request) for request in requests])
    running = await target.count_running()
    same = [one.pid for one in target.list_workers()] == workers
    errors = [one for one in statuses if not isinstance(one, int) or one >= 500]
    served = await is_served(target)
    return Outcome(
        not errors and not running and same and served,
        f"{len(statuses)} requests: {summarise(statuses)}; {running} entries in the index, "
        f"workers {'alive' if same else 'died'}, others {'served' if served else 'not served'}",
    )


def _name_everywhere(text: str, conversation: str) -> list[tuple[str, str, dict[str, Any]]]:
    quoted = httpx.QueryParams({"a": text}).__str__()[2:].replace("+", "%20")
    path = f"/api/conversations/{conversation}"
    return [
        *(("GET", STREAM, {"params": {"message": "q", name: text}}) for name in _STREAM_FIELDS),
        *(("POST", STREAM, {"json": {"message": "q", name: text}}) for name in _STREAM_FIELDS),
        *(("POST", STREAM, {"json": {"message": "q", name: [text]}}) for name in _STREAM_FIELDS),
        ("GET", f"/api/conversations/{quoted}", {}),
        ("GET", f"/api/conversations/{quoted}/export", {}),
        ("PATCH", f"/api/conversations/{quoted}", {"json": {"title": "t"}}),
        ("DELETE", f"/api/conversations/{quoted}", {}),
        ("POST", f"/api/turns/{quoted}/stop", {}),
        ("PATCH", path, {"json": {"branch": text}}),
        ("GET", path, {"params": {"before": text}}),
        ("GET", path, {"params": {"limit": text}}),
        ("GET", "/api/conversations/", {"params": {"cursor": text}}),
    ]


async def send_garbage_last_event_ids(target: Target) -> Outcome:
    """Resume after frames that never existed."""
    async with target.open_client() as client:
        statuses = []
        for value in _HEADERS:
            headers = {b"Last-Event-ID": value}
            async with client.stream("GET", STREAM, headers=headers) as response:
                statuses.append(response.status_code)
    asked = len(target.upstream.exchanges)
    return Outcome(
        all(400 <= status < 500 for status in statuses) and not asked,
        f"{summarise(statuses)}; {asked} questions reached the upstream",
    )


async def ask_in_unknown_conversations(target: Target) -> Outcome:
    """Ask in conversations that do not exist, and leave half of the requests at any moment."""
    async with target.open_client() as client:
        await client.get("/")

        cookie = "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)

        async def ask(leaves: bool) -> int | str:
            query = {"message": "q", "conversation": uuid.uuid4().hex, "turn": uuid.uuid4().hex}
            if not leaves:
                return (await client.get(STREAM, params=query)).status_code
            _, writer = await asyncio.open_connection(*target.address)
            head = (
                f"GET {STREAM}?{urlencode(query)} HTTP/1.1\r\nHost: {target.url[7:]}\r\n"
                f"User-Agent: x\r\nCookie: {cookie}\r\n\r\n"
            )
            writer.write(head.encode())
            await writer.drain()
            await asyncio.sleep(next(delays))
            writer.transport.abort()
            return "left"

        delays = itertools.cycle(number / 2000 for number in range(20))
        statuses = await gather_bounded([ask(number % 2 == 1) for number in range(_UNKNOWN)])
    left = await target.count_running()

    async def is_clean() -> bool:
        return await target.count_running() == 0

    passed = await wait_until(is_clean, 40)
    return Outcome(
        passed <= _CLEAN_S,
        f"{summarise(statuses)}; {left} entries in the index, "
        f"{'empty' if passed < 40 else 'not empty'} after {passed:.1f} s",
    )


async def poison_the_index(target: Target) -> Outcome:
    """Write entries and records of other kinds where the sweeper looks."""
    workers = [one.pid for one in target.list_workers()]
    entries = [b"", b" ", b"a b", b"a b c d", b"\xff\xfe \xff \xff", b"x" * 100_000, b"\n", b"{}"]
    entries += [b"owner%d conversation turn-0123456789abcdef%d" % (n, n) for n in range(4)]
    await target.redis.zadd(keys.running(), dict.fromkeys(entries, 0))
    for number, value in enumerate([b"text", b"\xff" * 1_000_000]):
        await target.redis.set(
            f"holdline:{{owner{number}}}:turn:turn-0123456789abcdef{number}", value
        )
    await target.redis.rpush("holdline:{owner2}:turn:turn-0123456789abcdef2", "a list")
    await target.redis.hset("holdline:{owner3}:turn:turn-0123456789abcdef3", "state", "running")
    await target.redis.set(keys.legacy_running(), "not a sorted set")

    async def is_clean() -> bool:
        return await target.count_running() == 0

    passed = await wait_until(is_clean, 15)
    same = [one.pid for one in target.list_workers()] == workers
    served = await is_served(target)
    return Outcome(
        passed < 15 and same and served,
        f"index {'empty' if passed < 15 else 'not empty'} after {passed:.1f} s, "
        f"workers {'alive' if same else 'died'}, others {'served' if served else 'not served'}",
    )
