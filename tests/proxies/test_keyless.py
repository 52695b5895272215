"""Without API_KEYS, /v1 serves nobody through a proxy, although the proxy runs on this machine."""

import asyncio
from pathlib import Path

import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, holdline
from tests.proxies.configurations import FRONTS
from tests.proxies.conftest import find_port, require
from tests.proxies.curl import request
from tests.proxies.fronts import start_front


@pytest.mark.parametrize("name", FRONTS)
async def test_v1_without_keys_refuses_requests_through_each_proxy(
    name: str, certificate: Path, redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    require(name)
    settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    body = {"messages": [{"role": "user", "content": question}]}
    async with (
        asyncio.timeout(PATIENCE_S),
        holdline(REDIS_URL=redis_url, **settings) as server,
        start_front(name, certificate, find_port(server)) as front,
    ):
        for path, sent in (("/v1/models", None), ("/v1/chat/completions", body)):
            async with request(front, "http1.1", path, body=sent) as response:
                await response.read_until(lambda received: b"API_KEYS" in received)
                assert response.status == 401
    assert upstream.find_requests(question) == []
