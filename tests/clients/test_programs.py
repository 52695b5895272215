"""The client libraries of docs/clients.md receive whole answers, also if a connection is cut."""

import asyncio
from pathlib import Path

import pytest

from tests.browser.tcp_link import TcpLink
from tests.clients.documented import read_program
from tests.clients.program import running
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server

PIECES = (
    "  The sky,\n\n", "    it ", "is …\u2028", "天空 🌌 ", " \n", "data: blue\n", "\n", "- end",
)  # fmt: skip
"""Deltas with spaces, line ends and other characters that a client may lose."""

LAST_BYTES = b"the cut is"
NATIVE = ("httpx-sse", "sseclient-py", "eventsource", "eventsource-parser")
OPENAI = (
    "openai", "openai, asynchronous", "langchain-openai", "aiohttp-sse-client2",
    "openai in JavaScript",
)  # fmt: skip
"""The programs of docs/clients.md for /api/chat_stream/ and for /v1, by their headings."""


@pytest.mark.parametrize("name", [*NATIVE, *OPENAI, "llm", "curl"])
async def test_a_client_prints_each_piece_of_an_answer_when_it_arrives(
    name: str, server: Server, upstream: ScriptedUpstream, question: str, home: Path
) -> None:
    async with running(*read_program(name, server.url, question), home) as client:
        exchange = await upstream.exchange(question)
        printed = ""
        for piece in PIECES:
            await exchange.send_text(piece)
            printed += piece
            await client.wait_for_output(printed)
        await exchange.finish()
        assert await client.wait_for_end() == 0, client.errors
        assert client.output.removesuffix("\n") == printed  # llm ends its last line
    assert len(upstream.find_requests(question)) == 1


@pytest.mark.parametrize("name", [*NATIVE, *OPENAI, "curl with retries"])
async def test_a_client_receives_the_whole_answer_in_spite_of_a_cut(
    name: str, link: TcpLink, upstream: ScriptedUpstream, question: str, home: Path
) -> None:
    async with running(*read_program(name, link.url, question), home) as client:
        exchange = await upstream.exchange(question)
        await exchange.send_text(*PIECES)
        cut = link.cut_after(LAST_BYTES)
        await exchange.send_text(f"{LAST_BYTES.decode()} in this piece. ")
        async with asyncio.timeout(PATIENCE_S):
            await cut.wait()
        await exchange.send_text(*PIECES)
        await exchange.finish()
        assert await client.wait_for_end() == 0, client.errors
    whole = f"{''.join(PIECES)}{LAST_BYTES.decode()} in this piece. {''.join(PIECES)}"
    assert client.output == whole
    assert len(upstream.find_requests(question)) == 1


async def test_llm_fails_after_a_cut_and_the_server_stops_the_answer(
    link: TcpLink, upstream: ScriptedUpstream, question: str, home: Path
) -> None:
    async with running(*read_program("llm", link.url, question), home) as client:
        exchange = await upstream.exchange(question)
        await exchange.send_text("one ")
        await client.wait_for_output("one ")
        cut = link.cut_after(LAST_BYTES)
        await exchange.send_text(LAST_BYTES.decode())
        async with asyncio.timeout(PATIENCE_S):
            await cut.wait()
            assert await client.wait_for_end() != 0
            await exchange.closed.wait()
    assert len(upstream.find_requests(question)) == 1
