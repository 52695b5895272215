"""The client libraries of docs/clients.md receive whole answers, also if a connection is cut."""

import asyncio
from pathlib import Path

import pytest

from tests.browser.tcp_link import frozen_link
from tests.clients.documented import read_program
from tests.clients.program import running
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server

PIECES = (
    "  The sky,\n\n", "    it ", "is …\u2028", "天空 🌌 ", " \n", "data: blue\n", "\n", "- end",
)  # fmt: skip
"""Deltas with spaces, line ends and other characters that a client may lose."""

LAST_BYTES = b"the cut is"
LIVE = ("httpx-sse", "sseclient-py", "eventsource", "eventsource-parser", "curl")
"""The programs that print the answer as it arrives, by their headings."""

RESUMING = ("httpx-sse", "sseclient-py", "eventsource", "eventsource-parser", "curl with retries")
"""The programs that receive the whole answer in spite of a cut."""


@pytest.mark.parametrize("name", LIVE)
async def test_a_client_prints_each_piece_of_an_answer_when_it_arrives(
    name: str, server: Server, upstream: ScriptedUpstream, question: str, tmp_path: Path
) -> None:
    async with running(*read_program(name, server.url, question), tmp_path) as client:
        exchange = await upstream.exchange(question)
        printed = ""
        for piece in PIECES:
            await exchange.send_text(piece)
            printed += piece
            await client.wait_for_output(printed)
        await exchange.finish()
        assert await client.wait_for_end() == 0, client.errors
        assert client.output == printed
    assert len(upstream.find_requests(question)) == 1


@pytest.mark.parametrize("name", RESUMING)
async def test_a_client_whose_connection_is_cut_prints_the_answer_without_loss_or_repetition(
    name: str, server: Server, upstream: ScriptedUpstream, question: str, tmp_path: Path
) -> None:
    async with (
        frozen_link(server) as link,
        running(*read_program(name, link.url, question), tmp_path) as client,
    ):
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
