"""CORS: each route × an origin that is allowed or not × with or without a session."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.conftest import KEY
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, ROOT, Server, holdline
from tests.streams import STREAM, ask

ALLOWED = ["https://app.example", "http://localhost:3000", "capacitor://localhost"]
FOREIGN = [
    "https://app.example:8443", "http://app.example", "https://app.example.evil.example",
    "https://evil.example", "https://APP.example", "https://app.example/", "null", "",
    "https://evil.example, https://app.example",
]  # fmt: skip


ROUTES = sorted(
    {
        (method, re.sub(r"{\w+}", "none", path))
        for method, path in re.findall(
            r"`(GET|POST|PATCH|DELETE)\s+(/[^`\s]*)`", (ROOT / "docs" / "behaviour.md").read_text()
        )
    }
    | {("GET", "/js/app.js"), ("HEAD", "/"), ("GET", "/nothing"), ("PUT", "/api/info")}
)
"""Every route (test_docs.py shows that behaviour.md names it), and two that do not exist."""


@pytest_asyncio.fixture(scope="module")
async def open_server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server whose API the pages of `ALLOWED` may use."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY, CHAT_MODEL="m",
        CORS_ORIGINS="https://APP.example:443, http://localhost:3000,capacitor://localhost",
        COOKIE_SAMESITE="None", RATE_LIMIT="off", CONTINUE_MAX="0",
    ) as started:  # fmt: skip
        yield started


@pytest_asyncio.fixture
async def page(open_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that sends what a browser sends for a page of another site."""
    headers = {
        "User-Agent": "Mozilla/5.0", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Dest": "empty",
    }  # fmt: skip
    async with httpx.AsyncClient(
        base_url=open_server.url, timeout=PATIENCE_S, headers=headers
    ) as client:
        yield client


def cors_headers(response: httpx.Response) -> dict[str, str]:
    prefix = "access-control-"
    return {
        name.removeprefix(prefix): value
        for name, value in response.headers.items()
        if name.startswith(prefix)
    }


def varies(response: httpx.Response) -> set[str]:
    return {name.strip() for name in response.headers.get("vary", "").split(",")}


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_response_to_an_allowed_origin_is_readable(
    page: httpx.AsyncClient, method: str, path: str
) -> None:
    for has_session in (False, True):
        for origin in ALLOWED:
            # Not the body: that of /api/events/ does not end.
            async with page.stream(method, path, headers={"Origin": origin}) as response:
                assert response.status_code not in (403, 500)
            assert cors_headers(response) == {
                "allow-origin": origin,
                "allow-credentials": "true",
                "expose-headers": "Content-Disposition, Retry-After",
            }
            assert "Origin" in varies(response)
        if not has_session:
            page.headers["Cookie"] = await open_session(page)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_response_to_another_origin_is_readable(
    page: httpx.AsyncClient, method: str, path: str
) -> None:
    for headers in ({}, {"Cookie": await open_session(page)}):
        for origin in (*FOREIGN, None):
            sent = headers if origin is None else headers | {"Origin": origin}
            response = await page.request(method, path, headers=sent)
            assert cors_headers(response) == {}
            assert "Origin" in varies(response)
            assert "set-cookie" not in response.headers
            if path.startswith(("/api/", "/v1/")):
                assert response.status_code == 403


async def open_session(page: httpx.AsyncClient) -> str:
    headers = {"Origin": ALLOWED[0]}
    response = await page.post("/api/conversations/", json={}, headers=headers)
    page.cookies.clear()
    cookie: str = response.headers["set-cookie"].partition(";")[0]
    return cookie


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_preflight_of_an_allowed_origin_permits_every_method_and_header(
    page: httpx.AsyncClient, method: str, path: str
) -> None:
    names = "content-type,last-event-id, x-any_header"
    headers = {
        "Origin": ALLOWED[0],
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": names,
    }
    response = await page.options(path, headers=headers)
    assert response.status_code == 204
    assert cors_headers(response) == {
        "allow-origin": ALLOWED[0],
        "allow-credentials": "true",
        "allow-methods": "GET, HEAD, POST, PATCH, DELETE",
        "allow-headers": names,
        "max-age": "7200",
        "expose-headers": "Content-Disposition, Retry-After",
    }
    assert "set-cookie" not in response.headers
    assert response.content == b""


async def test_a_preflight_of_another_origin_permits_nothing(page: httpx.AsyncClient) -> None:
    for path in {path for _, path in ROUTES}:
        for origin in FOREIGN:
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            response = await page.options(path, headers=headers)
            assert cors_headers(response) == {}
            assert "Origin" in varies(response)
            assert "set-cookie" not in response.headers


async def test_a_malformed_list_of_headers_is_not_repeated(page: httpx.AsyncClient) -> None:
    for names in ("a b", "a,,b", "a;b", "é", "a: b", ",", "a," * 4000):
        headers = [
            (b"Origin", ALLOWED[0].encode()),
            (b"Access-Control-Request-Method", b"POST"),
            (b"Access-Control-Request-Headers", names.encode()),
        ]
        response = await page.options(STREAM, headers=headers)
        assert response.status_code == 204
        assert "allow-headers" not in cors_headers(response)


async def test_errors_and_exports_keep_their_own_headers(
    page: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    page.headers["Origin"] = ALLOWED[0]
    page.headers["Cookie"] = await open_session(page)
    await ask(page, upstream, question, "yes")
    (found,) = (await page.get("/api/conversations/")).json()["conversations"]
    export = await page.get(f"/api/conversations/{found['id']}/export")
    assert varies(export) == {"Accept-Language", "Origin"}
    assert cors_headers(export)["allow-origin"] == ALLOWED[0]
    for response in (
        await page.post(STREAM, content=b"x" * (2 << 20)),
        await page.post(STREAM, json={"message": ""}),
        await page.get("/api/conversations/none"),
    ):
        assert response.status_code in (400, 404, 413)
        assert cors_headers(response)["allow-origin"] == ALLOWED[0]
        assert response.json()["error"]["message"]


async def test_a_cross_site_cookie_is_secure_partitioned_and_replaces_an_unknown_one(
    page: httpx.AsyncClient,
) -> None:
    page.headers["Origin"] = ALLOWED[0]
    path = "/api/conversations/"
    first = (await page.post(path, json={})).headers["set-cookie"]
    assert re.fullmatch(
        r"__Host-holdline-[0-9a-f]{8}=[\w-]{51}\.[\w-]{43}; Path=/; Max-Age=34560000; HttpOnly; "
        r"Secure; SameSite=None; Partitioned",
        first,
    )
    page.cookies.clear()
    pair = first.partition(";")[0]
    # A browser may also hold an older cookie of this name that is not partitioned.
    unknown = f"{pair.partition('=')[0]}={'x' * 43}"
    page.headers["Cookie"] = f"{unknown}; {pair}"
    assert "set-cookie" not in (await page.post(path, json={})).headers
    page.headers["Cookie"] = unknown
    assert "set-cookie" in (await page.post(path, json={})).headers


async def test_nothing_is_allowed_by_default(server: Server, client: httpx.AsyncClient) -> None:
    for origin in (*ALLOWED, server.url):
        for method in ("GET", "OPTIONS"):
            headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
            response = await client.request(method, "/api/info", headers=headers)
            assert cors_headers(response) == {}
            assert (response.status_code == 403) is (origin != server.url)
