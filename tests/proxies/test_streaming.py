"""Every frame passes through every proxy as soon as it was sent."""

import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.proxies.curl import PROTOCOLS, request
from tests.proxies.doors import DOORS, Door, ask, read_text
from tests.proxies.fronts import Front

PIECES = ("one ", "two\n", "三，", "x", "y" * 20_000, ".")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_frame_arrives_before_the_next_one_is_sent(
    front: Front, protocol: str, door: Door, upstream: ScriptedUpstream, question: str
) -> None:
    async with ask(front, protocol, door, question) as response:
        exchange = await upstream.exchange(question)
        text = ""
        for piece in PIECES:
            await exchange.send_text(piece)
            text += piece
            await read_text(response, door, text)
        await exchange.finish()
        assert await response.read_to_end() == 0
        assert response.status == 200
        assert response.protocol == {"http1.1": "HTTP/1.1", "http2": "HTTP/2"}[protocol]
        assert "content-encoding" not in response.headers
        assert door.decode(response.body) == text
    assert len(upstream.find_requests(question)) == 1


async def test_the_session_cookie_is_bound_to_the_https_host(front: Front) -> None:
    async with request(front, "http2", "/") as response:
        assert await response.read_to_end() == 0
    is_bound = response.headers["set-cookie"].startswith("__Host-holdline-")
    assert is_bound == (front.name != "nginx-default")
