"""The OpenAPI document is true: schemathesis compares the responses of a server with it.

schemathesis runs as a program, so that the fake upstream answers in the meantime.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import schemathesis
from aiohttp import web
from schemathesis.checks import not_a_server_error

from tests.conftest import KEY
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline, private_folder
from tests.streams import cookie_of

API_KEY = "a-key-of-the-openapi-tests"
CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


class AnsweringUpstream(ScriptedUpstream):
    """Answers each request at once; rejects some of them, by the length of the request."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, await request.json())
        if "fail" in exchange.body["messages"][-1].get("content", ""):
            exchange.reply(401, {"error": {"message": "No such key."}})
        elif len(json.dumps(exchange.body)) % 4 == 0:
            exchange.reply(400, {"error": {"message": "Not like this."}})
        else:
            await exchange.chunk({"reasoning_content": "Hm."})
            await exchange.send_text("A lease ", "expires.")
            await exchange.finish(usage={"prompt_tokens": 3, "completion_tokens": 2})
        return await exchange.serve()


@pytest_asyncio.fixture(scope="module")
async def described(redis_url: str) -> AsyncIterator[Server]:
    """Yield a server with API_KEYS, whose upstream answers by itself."""
    upstream = AnsweringUpstream()
    base_url = await upstream.start()
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=base_url, OPENAI_API_KEY=KEY, CHAT_MODEL="test-model",
        API_KEYS=f"tester:{API_KEY}", RATE_LIMIT="off",
    ) as started:  # fmt: skip
        yield started
    await upstream.stop()


@pytest_asyncio.fixture
async def described_client(described: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=described.url, timeout=PATIENCE_S) as client:
        await client.get("/")  # sets the cookie
        yield client


@pytest_asyncio.fixture
async def document(described_client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await described_client.get("/docs/openapi.json")).json()
    return found


async def test_every_response_is_as_described(
    described: Server, described_client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    session = cookie_of(described_client)
    async with private_folder() as folder:  # schemathesis writes to its working directory
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION),
            "run", f"{described.url}/docs/openapi.json", "--url", described.url,
            cwd=folder, env={**os.environ, "API_KEY": API_KEY, "SESSION": session},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    operations = sum(len(methods) for methods in document["paths"].values())
    # schemathesis leaves out the operation that returns the document.
    assert f"Tested: {operations - 1}\n" in output


@pytest.mark.parametrize(
    ("path", "method", "fields"),
    [
        ("/api/chat_stream/", "get", {"query": {"message": "fail", "format": "json"}}),
        ("/api/chat_stream/", "get", {"query": {"message": "fail", "format": "text"}}),
        ("/api/chat_stream/", "post", {"query": {"format": "json"}, "body": {"message": "fail"}}),
        (
            "/v1/chat/completions",
            "post",
            {
                "body": {"messages": [{"role": "user", "content": "fail"}]},
                "headers": {"Authorization": f"Bearer {API_KEY}"},
            },
        ),
    ],
)
async def test_the_failure_of_an_upstream_is_as_described(
    described: Server, document: dict[str, Any], path: str, method: str, fields: dict[str, Any]
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    case = schema[path][method].Case(media_type="application/json", **fields)
    response = await asyncio.to_thread(case.call, base_url=described.url)
    assert response.status_code == 502
    case.validate_response(response, excluded_checks=[not_a_server_error])


async def test_the_paths_are_relative_to_the_document(document: dict[str, Any]) -> None:
    """So they are right behind a proxy that adds a prefix."""
    assert document["openapi"].startswith("3.1.")
    url = httpx.URL("https://example.org/chat/docs/openapi.json")
    assert url.join(document["servers"][0]["url"]) == "https://example.org/chat/"


async def test_only_a_server_with_keys_describes_v1_as_protected(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    path = document["paths"]["/v1/chat/completions"]
    assert path["post"]["security"] == [{"apiKey": []}]
    without_keys = (await client.get("/docs/openapi.json")).json()
    assert "security" not in without_keys["paths"]["/v1/chat/completions"]["post"]


async def test_a_method_that_a_url_does_not_support_gets_405_with_the_supported_ones(
    described_client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    for path, methods in document["paths"].items():
        response = await described_client.request("TRACE", path)
        assert response.status_code == 405, path
        supported = {name.lower() for name in response.headers["Allow"].split(", ")}
        assert supported - {"head", "options"} == set(methods), path
