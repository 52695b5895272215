"""`ALLOWED_HOSTS`: which names the server serves, so that no page rebinds its own name to it."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from chat.api.trust.hosts import parse_host
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline
from tests.streams import STREAM

BROWSER = {
    "User-Agent": "Mozilla/5.0", "Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": "same-origin"
}  # fmt: skip
LOOPBACK = ["localhost", "LocalHost.", "localhost:1", "127.0.0.1:8000", "127.8.8.8", "[::1]:8000"]
ADDRESSES = ["192.0.2.7", "192.0.2.7:8000", "[2001:db8::7]", "0.0.0.0"]
OTHERS = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "127.1",
    "0x7f.0.0.1", "2130706433", "localhost@evil.example",
    "localhost:evil", "[::1", "[localhost]", "::1", "chat.localhost",
]  # fmt: skip
NAMED = ["chat.example.com", "CHAT.example.com.", "chat.example.com:443", "203.0.113.5:80"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Chat.Example.COM.", "chat.example.com"),
        ("a:65535", "a"),
        ("[2001:DB8:0::1]:80", "2001:db8::1"),
        ("127.0.0.1:", "127.0.0.1"),
        ("a b", None),
        ("a:b", None),
        ("a/b", None),
        ("é.example", None),
        (".", None),
        ("", None),
        ("a" * 254, None),
    ],
)
def test_a_host_is_read_without_port_brackets_and_final_dot(
    value: str, expected: str | None
) -> None:
    assert parse_host(value) == expected


@pytest_asyncio.fixture(scope="module")
async def named_server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server with two names, one of them an address, on all interfaces."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m", HOST="0.0.0.0",
        ALLOWED_HOSTS="Chat.example.com., 203.0.113.5",
    ) as started:  # fmt: skip
        yield started


async def assert_rejected(server: Server, host: str, **headers: str) -> None:
    """Assert that no route but the health checks serves a host."""
    sent = {**BROWSER, "Host": host, **headers}
    async with httpx.AsyncClient(base_url=server.url, headers=sent) as client:
        page = await client.get("/")
        assert (page.status_code, page.reason_phrase) == (421, "Misdirected Request")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "ALLOWED_HOSTS" in page.text
        for response in (
            await client.get(STREAM, params={"message": "x"}, headers={"Accept": "*/*"}),
            await client.post("/api/conversations/", json={}, headers={"Accept": "*/*"}),
            await client.options("/api/info", headers={"Accept": "*/*"}),
            await client.get("/js/app.js", headers={"Accept": "*/*"}),
            await client.get("/v1/models", headers={"Accept": "*/*"}),
            await client.get("/nothing", headers={"Accept": "*/*"}),
        ):
            assert response.status_code == 421
            assert "ALLOWED_HOSTS" in response.text
            assert "set-cookie" not in response.headers
        for path in ("/healthz", "/healthz/", "/readyz", "/readyz/"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("host", LOOPBACK + ADDRESSES)
async def test_a_server_on_loopback_serves_localhost_and_addresses(
    server: Server, host: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers={"Host": host}) as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/api/info")).status_code == 200


@pytest.mark.parametrize("host", [*OTHERS, "chat.example.com"])
async def test_a_server_on_loopback_rejects_other_names(server: Server, host: str) -> None:
    await assert_rejected(server, host)


@pytest.mark.parametrize("host", LOOPBACK + NAMED)
async def test_allowed_hosts_and_loopback_names_are_served(named_server: Server, host: str) -> None:
    async with httpx.AsyncClient(base_url=named_server.url, headers={"Host": host}) as client:
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("host", [*OTHERS, "x.chat.example.com", "example.com", *ADDRESSES])
async def test_all_hosts_but_allowed_hosts_are_rejected(named_server: Server, host: str) -> None:
    await assert_rejected(named_server, host)


@pytest.mark.parametrize(
    ("forwarded", "is_served"),
    [
        ("chat.example.com", True),
        ("evil.example", False),
        ("chat.example.com, evil.example", False),
    ],
)
async def test_a_host_that_a_proxy_replaced_must_be_allowed_too(
    named_server: Server, forwarded: str, is_served: bool
) -> None:
    if is_served:
        headers = {"Host": "127.0.0.1:8000", "X-Forwarded-Host": forwarded}
        async with httpx.AsyncClient(base_url=named_server.url, headers=headers) as client:
            assert (await client.get("/")).status_code == 200
    else:
        await assert_rejected(named_server, "127.0.0.1:8000", **{"X-Forwarded-Host": forwarded})


async def test_a_server_on_all_interfaces_without_allowed_hosts_logs_a_warning(
    redis_url: str, named_server: Server
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, HOST="0.0.0.0") as server,
        httpx.AsyncClient(base_url=server.url, headers={"Host": "any.example"}) as client,
    ):
        assert (await client.get("/")).status_code == 200
        assert "ALLOWED_HOSTS is not set" in server.read_log()
    assert "ALLOWED_HOSTS is not set" not in named_server.read_log()


@pytest.mark.parametrize("accept", ["text/html,*/*;q=0.8", "*/*"])
@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        ("", "set ALLOWED_HOSTS=new.example in"),
        ("old.example", "add new.example to ALLOWED_HOSTS in"),
    ],
)
async def test_a_rejected_name_is_logged_once_and_the_message_keeps_the_other_names(
    redis_url: str, accept: str, names: str, remedy: str
) -> None:
    headers = {**BROWSER, "Accept": accept, "Host": "new.example"}
    async with (
        holdline(REDIS_URL=redis_url, ALLOWED_HOSTS=names) as server,
        httpx.AsyncClient(base_url=server.url, headers=headers) as client,
    ):
        for _ in range(3):
            response = await client.get("/")
            assert response.status_code == 421
            assert remedy in response.text
        assert server.read_log().count(" with 421") == 1
