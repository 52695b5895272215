"""Authorisation of /v1: with keys, without keys, through a proxy, and from a page."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline

PATH = "/v1/chat/completions"
KEYS = {"ann": "ann-0123456789abcdef", "bob_2": "bob-0123456789abcdef"}


@pytest_asyncio.fixture
async def keyed(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server with API_KEYS, on all interfaces."""
    async with holdline(
        REDIS_URL=redis_url,
        OPENAI_BASE_URL=upstream.base_url,
        CHAT_MODEL="m",
        HOST="0.0.0.0",
        API_KEYS=",".join(f"{name}:{key}" for name, key in KEYS.items()),
    ) as started:
        yield started


def body_of(question: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": question}]}


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong-0123456789abcdef",
        "Bearer ann-0123456789abcde",
        "Bearer ann-0123456789abcdef0",
        "Bearer ANN-0123456789ABCDEF",
        "Basic ann-0123456789abcdef",
        "ann-0123456789abcdef",
        "Bearer ann",
        "Bearer \u00e9\u00ff",
    ],
)
async def test_a_wrong_key_gets_401_and_is_not_logged(
    keyed: Server, authorization: str | None
) -> None:
    headers: dict[bytes, bytes] = {}
    if authorization is not None:
        headers[b"Authorization"] = authorization.encode("latin-1")
    async with httpx.AsyncClient(base_url=keyed.url) as client:
        for response in (
            await client.get("/v1/models", headers=headers),
            await client.post(PATH, json=body_of("hi"), headers=headers),
            await client.post(PATH, content=b"x" * 100_000, headers=headers),
        ):
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["type"] == "authentication_error"
    log = keyed.read_log()
    assert "0123456789abcdef" not in log
    assert "Traceback" not in log


async def test_each_key_has_an_owner_of_its_own(
    keyed: Server, upstream: ScriptedUpstream, question: str
) -> None:
    async with httpx.AsyncClient(base_url=keyed.url, timeout=60) as client:
        ann, bob = ({"Authorization": f"Bearer {key}"} for key in KEYS.values())
        sending = asyncio.create_task(
            client.post(PATH, json={**body_of(question), "store": True}, headers=ann)
        )
        await (await upstream.exchange(question)).answer("for ann")
        conversation = (await sending).json()["metadata"]["conversation"]
        metadata = {"metadata": {"conversation": conversation}}
        foreign = await client.post(PATH, json={**body_of("x"), **metadata}, headers=bob)
        assert foreign.status_code == 404
        # The same Idempotency-Key of another owner is another turn.
        key = {"Idempotency-Key": question}
        for number, owner in enumerate((ann, bob), 2):
            sending = asyncio.create_task(
                client.post(PATH, json=body_of(question), headers={**owner, **key})
            )
            await (await upstream.exchange(question, number)).answer(f"answer {number}")
            choice = (await sending).json()["choices"][0]
            assert choice["message"]["content"] == f"answer {number}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "10.0.0.1"},
        {"Host": "[2001:db8::1]:80"},
        {"Forwarded": "for=192.0.2.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "localhost"},
        {"X-Real-IP": "192.0.2.1"},
    ],
)
async def test_without_keys_a_proxy_or_a_foreign_address_gets_401_that_names_the_setting(
    client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    for response in (
        await client.get("/v1/models", headers=headers),
        await client.post(PATH, json=body_of("hi"), headers=headers),
    ):
        assert response.status_code == 401
        assert "API_KEYS" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "host", ["rebound.example", "127.0.0.1.rebound.example", "localhost.rebound.example:80"]
)
async def test_a_foreign_name_gets_421_that_names_the_setting(
    client: httpx.AsyncClient, host: str
) -> None:
    response = await client.post(PATH, json=body_of("hi"), headers={"Host": host})
    assert (response.status_code, response.json()["error"]["code"]) == (421, "misdirected")
    assert "ALLOWED_HOSTS" in response.json()["error"]["message"]


async def test_without_keys_http_1_0_gets_401(server: Server) -> None:
    """A proxy with nginx's defaults adds no header that shows it, but speaks HTTP/1.0."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /v1/models HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
    assert (await reader.read()).split(b" ")[1] == b"401"
    writer.close()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:9", "[::1]:8"]
)
async def test_without_keys_the_names_of_this_machine_are_accepted(
    client: httpx.AsyncClient, host: str
) -> None:
    assert (await client.get("/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
async def test_without_keys_a_page_of_another_origin_is_refused_and_asks_nothing(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, headers: dict[str, str]
) -> None:
    for response in (
        await client.get("/v1/models", headers=headers),
        await client.post(PATH, json=body_of(question), headers=headers),
    ):
        assert response.status_code == 403
        assert response.json()["error"]["message"]
    form = {**headers, "Content-Type": "text/plain"}
    assert (await client.post(PATH, content=b"{}", headers=form)).status_code in (400, 403)
    assert upstream.find_requests(question) == []


async def test_without_keys_a_server_on_all_interfaces_refuses(
    redis_url: str, upstream: ScriptedUpstream
) -> None:
    settings = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with (
        holdline(**settings, HOST="0.0.0.0") as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        response = await client.get("/v1/models")
        assert response.status_code == 401
        assert "API_KEYS" in response.json()["error"]["message"]
