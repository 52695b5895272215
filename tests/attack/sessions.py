"""Attacks on sessions: forged and fixed cookies, lost first requests, other users' data."""

import asyncio
import secrets
import uuid
from typing import Any

from tests.attack.target import (
    Outcome,
    Target,
    begin,
    exchange_raw,
    gather_bounded,
    hold,
    own_target,
    summarise,
)
from tests.streams import STREAM

_API = "/api/conversations/"


async def get_cookie(target: Target) -> tuple[str, str]:
    """Return the name and value of a new session's cookie, with a conversation titled `mine`."""
    async with target.open_client() as client:
        await client.get("/")
        assert (await client.post(_API, json={"title": "mine"})).status_code == 201
        (cookie,) = client.cookies.jar
    return cookie.name, cookie.value or ""


async def list_titles(target: Target, *cookies: str) -> str:
    """Return the answer to a list of conversations, with these `Cookie` fields."""
    fields = "".join(f"Cookie: {cookie}\r\n" for cookie in cookies)
    head = f"GET {_API} HTTP/1.1\r\nHost: {target.url[7:]}\r\nUser-Agent: x\r\n{fields}"
    return (await exchange_raw(target, f"{head}Connection: close\r\n\r\n".encode())).decode()


async def forge_cookies(target: Target) -> Outcome:
    """Use a session id that the server did not issue, in two browsers: they must not share it."""
    name, value = await get_cookie(target)
    session_id, dot, signature = value.partition(".")
    forged = [
        secrets.token_urlsafe(32), "x", "", "a" * 4000, "..", f"{session_id}.{'A' * 43}",
        f"{secrets.token_urlsafe(32)}.{signature}" if dot else secrets.token_urlsafe(31),
        f"{value}x", value[:-1], value.upper() if value.upper() != value else "X",
    ]  # fmt: skip
    adopted = []
    for one in forged:
        async with target.open_client(headers={"Cookie": f"{name}={one}"}) as client:
            await client.post(_API, json={"title": "shared"})
        listed = await list_titles(target, f"{name}={one}")
        if "shared" in listed or "mine" in listed:
            adopted.append(one[:20])
    return Outcome(not adopted, f"{len(forged)} forged cookies, {len(adopted)} adopted")


async def fix_a_session(target: Target) -> Outcome:
    """Give a victim the attacker's session under names that a sibling domain may set."""
    name, value = await get_cookie(target)
    names = [f"__Secure-{name}", f"__Host-{name}", f"__Secure-__Host-{name}", f" {name}x",
             name.upper(), f"{name}%20", f"x{name}"]  # fmt: skip
    accepted = [one for one in names if "mine" in await list_titles(target, f"{one}={value}")]
    return Outcome(not accepted, f"accepted names: {', '.join(accepted) or 'none'}")


async def send_two_cookie_fields(target: Target) -> Outcome:
    """Send the session in the second of two `Cookie` fields: it must not be replaced."""
    name, value = await get_cookie(target)
    found = [
        "mine" in await list_titles(target, *fields)
        for fields in (
            [f"{name}={value}", "other=1"],
            ["other=1", f"{name}={value}"],
            [f"{name}=forged", f"{name}={value}"],
            [f"other=1; {name}={value}"],
        )
    ]
    return Outcome(all(found), f"{sum(found)} of {len(found)} found their session")


async def lose_first_requests(target: Target) -> Outcome:
    """Send twelve first requests in parallel without a cookie, then reconnect to each turn."""
    target.respond = hold
    turns = [uuid.uuid4().hex for _ in range(12)]
    async with target.open_uncookied_client() as client:
        await gather_bounded([begin(client, turn, params={"turn": turn}) for turn in turns])

        async def attach(turn: str) -> int:
            async with client.stream("GET", STREAM, params={"turn": turn}) as response:
                return response.status_code

        statuses = await gather_bounded([attach(turn) for turn in turns])
    return Outcome(statuses.count(200) == 12, f"12 reconnects: {summarise(statuses)}")


async def collect_cookies(target: Target) -> Outcome:
    """Send requests that store nothing: none of them may set a cookie."""
    found = []
    requests = [("OPTIONS", STREAM), ("OPTIONS", _API), ("GET", "/api/info"), ("GET", _API),
                ("GET", STREAM), ("GET", "/healthz"), ("GET", f"{_API}{uuid.uuid4().hex}"),
                ("GET", "/docs")]  # fmt: skip
    for method, path in requests:
        async with target.open_client() as client:
            response = await client.request(method, path)
        if "set-cookie" in response.headers:
            found.append(f"{method} {path}")
    return Outcome(not found, f"set by: {', '.join(one[:40] for one in found) or 'none'}")


async def confuse_the_scheme(target: Target) -> Outcome:
    """Load the page through two trusted proxies: the browser's scheme is the first."""
    results = []
    for value in ("https", "https, http", "HTTPS,http"):
        async with target.open_client(headers={"X-Forwarded-Proto": value}) as client:
            results.append(
                "secure" in (await client.get("/")).headers.get("set-cookie", "").lower()
            )
    return Outcome(all(results), f"{sum(results)} of 3 cookies are secure")


async def share_a_host(target: Target) -> Outcome:
    """Visit a second Holdline on the same host: it must not take the session away."""
    name, value = await get_cookie(target)
    async with own_target() as other:
        other_name, other_value = await get_cookie(other)
        both = f"{name}={value}; {other_name}={other_value}"
        kept = "mine" in await list_titles(target, both if name != other_name else both[-60:])
    return Outcome(
        name != other_name and kept, f"cookies {'differ' if name != other_name else 'collide'}"
    )


async def read_others_data(target: Target) -> Outcome:
    """Use another user's ids in every route."""
    target.respond = hold
    turn = uuid.uuid4().hex
    async with target.open_client() as victim, target.open_client() as thief:
        await victim.get("/")
        await thief.get("/")
        created = (await victim.post(_API, json={"title": "secret"})).json()["id"]
        params = {"turn": turn, "conversation": created}
        await begin(victim, "private", params=params)
        shown = (await victim.get(f"{_API}{created}")).json()
        message = shown["messages"][0]["id"]
        path = f"{_API}{created}"
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", path, {}),
            ("GET", f"{path}/export", {}),
            ("PATCH", path, {"json": {"title": "stolen"}}),
            ("DELETE", path, {}),
            ("POST", f"/api/turns/{turn}/stop", {}),
            ("GET", STREAM, {"params": {"turn": turn}}),
            ("GET", STREAM, {"params": {"message": "q", "conversation": created}}),
            ("GET", STREAM, {"params": {"regenerate": message, "conversation": created}}),
            ("GET", STREAM, {"headers": {"Last-Event-ID": f"{turn}.0"}}),
        ]

        async def send(method: str, where: str, options: dict[str, Any]) -> int:
            async with thief.stream(method, where, **options) as response:
                return response.status_code

        statuses = [await send(*request) for request in requests]
        await asyncio.sleep(0.2)
        after = (await victim.get(path)).json()
    untouched = after["title"] == shown["title"] and after["running"] == turn
    return Outcome(
        set(statuses) == {404} and untouched,
        f"{summarise(statuses)}; the conversation is {'unchanged' if untouched else 'CHANGED'}",
    )


async def sign_out(target: Target) -> Outcome:
    """Sign out and delete everything: the cookie opens nothing afterwards."""
    name, value = await get_cookie(target)
    async with target.open_client(headers={"Cookie": f"{name}={value}"}) as client:
        deleted = (await client.delete(_API)).status_code
        left = len((await client.get(_API)).json().get("conversations", []))
        signed_out = await client.post("/api/logout")
    cleared = "clear-site-data" in signed_out.headers
    return Outcome(
        deleted < 300 and left == 0 and signed_out.status_code < 300 and cleared,
        f"DELETE: {deleted}, {left} conversations left; logout: {signed_out.status_code}",
    )
