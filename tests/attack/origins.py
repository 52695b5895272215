"""Attacks from pages of other sites: forged requests over plain http, and DNS rebinding."""

import itertools
from typing import Any

from tests.attack.target import BROWSER, Outcome, Target, begin, exchange_raw, status_of, summarise
from tests.streams import STREAM

LAN = "chat.lan"
"""The name of the server in its network, over plain http: browsers send no Fetch Metadata to it."""

_EVIL = "http://evil.example"
_SITES: list[str | None] = [None, "cross-site", "same-site"]
_ORIGINS: list[str | None] = [None, _EVIL, "null"]
_REFERERS: list[str | None] = [None, f"{_EVIL}/page", f"http://{LAN}.evil.example/"]
_FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"]


def _headers(**named: str | None) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in named.items() if value is not None}


async def forge_requests(target: Target) -> Outcome:
    """Send what a page of another site can make a victim's browser send to a name in the LAN."""
    host = f"{LAN}:{target.address[1]}"
    begun, cookies, count = [], 0, 0
    for number, (site, origin, referer) in enumerate(
        itertools.product(_SITES, _ORIGINS, _REFERERS)
    ):
        headers = _headers(
            Host=host, User_Agent=BROWSER, Sec_Fetch_Site=site, Origin=origin, Referer=referer
        )
        async with target.open_client(headers=headers) as client:
            count += 1
            if await begin(client, f"forged {number}") in (0, 200):
                begun.append(number)
            cookies += bool(client.cookies)
    return Outcome(
        not begun and not cookies,
        f"{count} combinations: {len(begun)} turns begun, {cookies} cookies set",
    )


async def forge_forms(target: Target) -> Outcome:
    """Submit the forms and beacons that need no preflight, and imitate a browser's defects."""
    host = f"{LAN}:{target.address[1]}"
    variants: list[dict[str, str]] = [
        {"User-Agent": BROWSER},
        {"User-Agent": BROWSER, "Origin": _EVIL},
        {"User-Agent": BROWSER, "Origin": "null"},
        {"User-Agent": ""},
        {"User-Agent": BROWSER, "Origin": f"http://{host}.evil.example"},
        {"User-Agent": BROWSER, "Origin": f"http://{LAN}:1"},
        {"User-Agent": BROWSER, "Referer": f"http://{host}@evil.example/"},
        {"User-Agent": BROWSER, "Origin": _EVIL, "Referer": f"http://{host}/"},
    ]
    statuses = []
    async with target.open_client() as client:
        for headers, kind in itertools.product(variants, _FORMS):
            sent = {"Host": host, "Content-Type": kind, **headers}
            for path in (STREAM, "/api/conversations/"):
                response = await client.post(path, content=b'{"message": "forged"}', headers=sent)
                statuses.append(response.status_code)
    asked = len(target.upstream.exchanges)
    return Outcome(
        not asked and not any(status < 400 for status in statuses),
        f"{summarise(statuses)}; {asked} questions reached the upstream",
    )


async def use_the_victims_session(target: Target) -> Outcome:
    """Send the forged requests with the victim's cookie, also by navigation and prefetch."""
    host = f"{LAN}:{target.address[1]}"
    variants: list[dict[str, str]] = [
        {},
        {"Origin": _EVIL},
        {"Referer": f"{_EVIL}/"},
        {"Accept": "text/html"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"},
        {"Purpose": "prefetch", "Sec-Fetch-Site": "none"},
        {"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Site": "same-origin"},
    ]
    own = {"Host": host, "Origin": f"http://{host}"}
    async with target.open_client(headers={"Host": host, "User-Agent": BROWSER}) as client:
        await client.get("/")
        created = (await client.post("/api/conversations/", json={}, headers=own)).status_code
        params = [await begin(client, f"forged {n}", headers=h) for n, h in enumerate(variants)]
    return Outcome(
        created == 201 and all(status >= 400 for status in params),
        f"own page: {created}; forged: {summarise(params)}",
    )


async def accept_own_pages(target: Target) -> Outcome:
    """Send what browsers send for the web UI behind usual proxies: all of it must be accepted."""
    host = target.url[7:]
    pages: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://chat.example"},  # nginx with $host
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:5173"},  # changeOrigin
        {"Origin": f"http://{host}"},
        {"Referer": f"http://{host}/"},
    ]
    statuses = []
    for headers in pages:
        async with target.open_client(headers={"User-Agent": BROWSER, **headers}) as client:
            statuses.append(await begin(client, "own"))
    return Outcome(statuses == [200] * len(pages), f"own pages: {summarise(statuses)}")


async def rebind_a_name(target: Target) -> Outcome:
    """Point the attacker's own name at this server: a page there is of the same origin."""
    port = target.address[1]
    names = [
        "evil.example",
        "[::1].evil.example",
        f"127.0.0.1:{port}.evil.example",
        *(
            f"{name}:{port}"
            for name in (
                "evil.example",
                "evil.example.",
                "EVIL.example",
                "localhost.evil.example",
                "127.0.0.1.evil.example",
                "evil@127.0.0.1",
            )
        ),
    ]
    statuses: list[Any] = []
    for name in names:
        for path in ("/", "/api/info", f"{STREAM}?message=rebound"):
            head = (
                f"GET {path} HTTP/1.1\r\nHost: {name}\r\nOrigin: http://{name}\r\n"
                f"User-Agent: {BROWSER}\r\nConnection: close\r\n\r\n"
            )
            statuses.append(status_of(await exchange_raw(target, head.encode())))
    return Outcome(
        all(status in (400, 421) for status in statuses), f"other names: {summarise(statuses)}"
    )
