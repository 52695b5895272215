"""The proof of origin: which headers of a request show that no other site caused it."""

import httpx
import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline
from tests.streams import STREAM

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15"}
JSON = {"Content-Type": "application/json"}
OTHER = "http://elsewhere.example"

PROVEN: list[dict[str, str]] = [
    {"User-Agent": "curl/8.5.0"},
    {"User-Agent": "node", "Sec-Fetch-Mode": "cors"},  # fetch in Node.js
    {**BROWSER, "Sec-Fetch-Site": "same-origin"},
    {**BROWSER, "Sec-Fetch-Site": "none"},
    {**BROWSER, "Sec-Fetch-Site": "same-origin", "Origin": "https://chat.example"},  # nginx's Host
    {**BROWSER, "Origin": "OWN"},
    {**BROWSER, "Referer": "OWN/"},
    {**BROWSER, "Referer": "OWN/chat/?a=b"},
    {**BROWSER, "Origin": "https://chat.example", "X-Forwarded-Host": "chat.example"},
    {**BROWSER, "Referer": "https://chat.example/", "X-Forwarded-Host": "chat.example:443"},
    {**BROWSER, "Origin": "https://chat.example", "X-Forwarded-Host": "chat.example, inner:80"},
    # A proxy that changes `Host`: nginx with $host on another port, Apache's default, Vite's
    # `changeOrigin`, and one that adds the default port.
    *(
        {**BROWSER, "Sec-Fetch-Site": "same-origin", "Origin": origin, "Host": host}
        for origin, host in (
            ("http://localhost:8443", "localhost"),
            ("https://chat.example", "127.0.0.1:8000"),
            ("http://localhost:5173", "localhost:8000"),
            ("https://localhost", "localhost:443"),
        )
    ),
    # Without Fetch Metadata, a browser's own default port is no difference.
    {**BROWSER, "Origin": "http://localhost", "Host": "localhost:80"},
    {**BROWSER, "Origin": "https://localhost", "Host": "localhost:443"},
    {**BROWSER, "Origin": "https://localhost:443", "Host": "LOCALHOST"},
]
UNPROVEN: list[dict[str, str]] = [
    {**BROWSER},
    {"User-Agent": ""},
    {**BROWSER, "Sec-Fetch-Site": "cross-site"},
    {**BROWSER, "Sec-Fetch-Site": "same-site"},
    {**BROWSER, "Sec-Fetch-Site": "unknown"},
    {**BROWSER, "Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
    {**BROWSER, "Sec-Fetch-Site": "cross-site", "Referer": "OWN/"},
    {**BROWSER, "Sec-Fetch-Site": "same-origin, cross-site", "Origin": "OWN"},
    {**BROWSER, "Origin": "http://localhost:80", "Host": "localhost:443"},
    {**BROWSER, "Origin": "http://localhost", "Host": "localhost:8000"},
    {**BROWSER, "Origin": "https://localhost", "Host": "localhost:80"},
    # A page on http, which anyone on the network can change, of a host that serves https.
    {**BROWSER, "Origin": "OWN", "X-Forwarded-Proto": "https"},
    *(
        {**agent, name: value}
        for agent in (BROWSER, {"User-Agent": "curl/8.5.0"})
        for name, value in (
            ("Origin", OTHER),
            ("Origin", "null"),
            ("Origin", "http://[bad"),
            ("Origin", "127.0.0.1"),
            ("Referer", f"{OTHER}/page"),
            ("Referer", "http://[bad"),
            ("Referer", "about:blank"),
            ("Referer", "http://OWN_HOST@elsewhere.example/"),
            ("Referer", "http://elsewhere.example/?http://OWN_HOST/"),
        )
    ),
]


def with_own(headers: dict[str, str], server: Server) -> dict[str, str]:
    """Return the headers with the server's own origin and host in place."""
    host = server.url.removeprefix("http://")
    return {
        name: value.replace("OWN_HOST", host).replace("OWN", server.url)
        for name, value in headers.items()
    }


@pytest.mark.parametrize("headers", PROVEN, ids=str)
async def test_a_request_that_proves_its_origin_is_accepted(
    client: httpx.AsyncClient, server: Server, headers: dict[str, str]
) -> None:
    sent = with_own(headers, server)
    assert (await client.get("/api/info", headers=sent)).status_code == 200
    assert (await client.post("/api/conversations/", json={}, headers=sent)).status_code == 201
    assert (await client.get(STREAM, headers=sent)).status_code == 400  # no message


@pytest.mark.parametrize("headers", UNPROVEN, ids=str)
async def test_a_request_that_does_not_prove_its_origin_gets_and_causes_nothing(
    client: httpx.AsyncClient,
    server: Server,
    upstream: ScriptedUpstream,
    question: str,
    headers: dict[str, str],
) -> None:
    sent = with_own(headers, server)
    for response in (
        await client.get("/api/info", headers=sent),
        await client.get(STREAM, params={"message": question}, headers=sent),
        await client.post(STREAM, content=b"{}", headers={**sent, "Content-Type": "text/plain"}),
        await client.post("/api/conversations/", content=b"", headers=sent),
        await client.get("/api/nothing", headers=sent),
    ):
        assert (response.status_code, response.json()["error"]["type"]) == (403, "forbidden")
        assert "set-cookie" not in response.headers
    assert upstream.find_requests(question) == []


async def test_a_differing_origin_is_named_in_the_message_and_once_in_the_log(
    redis_url: str,
) -> None:
    sent = {**BROWSER, "Origin": "http://elsewhere.example:81", "Host": "localhost:82"}
    async with (
        holdline(REDIS_URL=redis_url) as server,
        httpx.AsyncClient(base_url=server.url, headers=sent) as client,
    ):
        lines = len(server.read_log().splitlines())
        for headers in ({}, {}, {"Origin": "http://<b>[31m"}):
            error = (await client.get("/api/info", headers=headers)).json()["error"]
            assert "`http://localhost:82`" in error["message"]
            assert "<" not in error["message"]
        log = server.read_log()
    assert "rejected a request for /api/info with 403: The origin of the page is `http://els" in log
    assert log.count("elsewhere.example:81`, but the request is for `http://localhost:82`") == 1
    assert len(log.splitlines()) == lines + 1
    assert "?b?" not in log


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({"Origin": "null"}, "`null`, but the request is for `OWN` by its `Host`."),
        ({"Referer": "http://[bad"}, "`null`, but the request is for `OWN` by its `Host`."),
        (
            {"Referer": "http://elsewhere.example/?secret"},
            "`http://elsewhere.example`, but the request is for `OWN` by its `Host`.",
        ),
        (
            {"Origin": "http://localhost", "Host": "localhost", "X-Forwarded-Proto": "https"},
            "`http://localhost`, but the request is for `https://localhost` by its `Host`.",
        ),
        (
            {"Origin": "https://localhost", "Host": "localhost:80"},
            "`https://localhost`, but the request is for `http://localhost:80` by its `Host`.",
        ),
    ],
    ids=str,
)
async def test_a_differing_origin_and_that_of_the_request_are_in_one_sentence(
    client: httpx.AsyncClient, server: Server, headers: dict[str, str], sentence: str
) -> None:
    response = await client.get("/api/info", headers={**BROWSER, **headers})
    message = response.json()["error"]["message"]
    assert message.startswith(f"The origin of the page is {sentence.replace('OWN', server.url)} ")


async def test_a_request_that_needs_a_preflight_proves_its_origin(
    client: httpx.AsyncClient,
) -> None:
    client.headers.update(BROWSER)
    created = await client.post("/api/conversations/", json={})
    assert created.status_code == 201
    path = f"/api/conversations/{created.json()['id']}"
    assert (await client.patch(path, json={"title": "x"})).status_code == 200
    assert (await client.delete(path)).status_code == 204


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"},
        {"Referer": "OWN/", "Accept": "text/html,application/xhtml+xml,*/*;q=0.8"},
    ],
    ids=str,
)
async def test_a_navigation_to_the_stream_gets_one_sentence_that_says_what_to_do(
    client: httpx.AsyncClient,
    server: Server,
    upstream: ScriptedUpstream,
    question: str,
    headers: dict[str, str],
) -> None:
    sent = with_own({**BROWSER, **headers}, server)
    response = await client.get(STREAM, params={"prompt": question}, headers=sent)
    assert response.status_code == 403
    assert response.json()["error"]["message"] == (
        "This URL cannot be opened in the browser: open the web UI, or use POST or fetch."
    )
    assert upstream.find_requests(question) == []


@pytest.mark.parametrize(
    ("method", "headers", "opens"),
    [
        ("GET", {}, True),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, True),  # a link
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, False),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty"}, False),
        ("GET", {"Origin": OTHER}, False),
        ("GET", {"Sec-Purpose": "prefetch;prerender"}, False),
        ("POST", {}, False),
        ("OPTIONS", {}, False),
    ],
)
async def test_only_the_load_of_the_web_ui_sets_the_cookie(
    client: httpx.AsyncClient, method: str, headers: dict[str, str], opens: bool
) -> None:
    response = await client.request(method, "/", headers=BROWSER | headers)
    assert ("set-cookie" in response.headers) is opens
