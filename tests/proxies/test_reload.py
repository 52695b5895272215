"""A proxy that reloads its configuration does not interrupt an answer."""

import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.proxies.curl import PROTOCOLS
from tests.proxies.doors import DOORS, Door, ask, read_text
from tests.proxies.fronts import Front


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_reload_of_the_proxy_does_not_interrupt_an_answer(
    front: Front, protocol: str, door: Door, upstream: ScriptedUpstream, question: str
) -> None:
    async with ask(front, protocol, door, question) as response:
        exchange = await upstream.exchange(question)
        await exchange.send_text("before ")
        await read_text(response, door, "before ")
        await front.reload()
        await exchange.answer("and after")
        assert await response.read_to_end() == 0
        assert door.decode(response.body) == "before and after"
    assert len(upstream.find_requests(question)) == 1
