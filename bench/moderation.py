"""Measure the delay that moderation adds to the first token and to every token.

The upstream, the moderation endpoint and the viewers are one process, so that one clock times a
token when it is sent and when it arrives.

    python -m bench.moderation        prints one table; two minutes
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import aiohttp
from aiohttp import web

from bench.proxies import start_holdline
from chat.event_stream import EventDecoder

STREAMS = 10
TOKENS = 600
WORDS_IN_SENTENCE = 15
_TOKEN, _LAST_TOKEN = "word ", "end. "
"""Tokens of five characters: models send about four."""


class Case(NamedTuple):
    """A setting of MODERATION, the latency of its endpoint, and the tokens per second."""

    mode: str
    latency_ms: int
    rate: int


CASES = [
    *(Case("off", 0, rate) for rate in (20, 100)),
    *(Case("input", latency_ms, 100) for latency_ms in (50, 200)),
    *(Case("output", latency_ms, rate) for rate in (20, 100) for latency_ms in (50, 200)),
    Case("both", 200, 100),
]


class Delays(NamedTuple):
    """Milliseconds: from the question to the first token, and of each token from its sending."""

    first: list[float]
    each: list[float]


class Peers:
    """The upstream and the moderation endpoint; `sent` has the times of each answer's tokens."""

    def __init__(self) -> None:
        self.case = CASES[0]
        self.sent: dict[str, list[float]] = {}
        self.port = 0

    async def start(self) -> web.AppRunner:
        """Serve on a free port; return the runner, which stops the server."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_post("/v1/moderations", self._moderate)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return runner

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        question = (await request.json())["messages"][-1]["content"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        times = self.sent[question] = []
        begun_at = time.monotonic()
        for number in range(TOKENS):
            await asyncio.sleep(begun_at + number / self.case.rate - time.monotonic())
            content = _TOKEN if (number + 1) % WORDS_IN_SENTENCE else _LAST_TOKEN
            times.append(time.monotonic())
            await response.write(_encode({"delta": {"content": content}}))
        await response.write(_encode({"delta": {}, "finish_reason": "stop"}) + b"data: [DONE]\n\n")
        return response

    async def _moderate(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        await asyncio.sleep(self.case.latency_ms / 1000)
        count = 1 if isinstance(texts, str) else len(texts)
        return web.json_response({"results": [{"flagged": False}] * count})


def _encode(choice: dict[str, object]) -> bytes:
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


async def measure(case: Case, peers: Peers) -> Delays:
    """Stream STREAMS answers at the same time from a server with the case's settings."""
    peers.case = case
    settings = {
        "MODERATION": case.mode,
        "MODERATION_BASE_URL": f"http://127.0.0.1:{peers.port}/v1",
    }
    starting = start_holdline(peers.port, settings)
    proxy = await asyncio.to_thread(starting.__enter__)
    try:
        url = f"http://127.0.0.1:{proxy.port}/api/chat_stream/"
        viewers = [view(f"{case} {number}", url, peers) for number in range(STREAMS)]
        found = await asyncio.gather(*viewers)
    finally:
        await asyncio.to_thread(starting.__exit__, None, None, None)
    return Delays([first for first, _ in found], [one for _, each in found for one in each])


async def view(question: str, url: str, peers: Peers) -> tuple[float, list[float]]:
    """Read one answer; return the delay of its first token, and of each token, in ms."""
    delays: list[float] = []
    first = 0.0
    received = 0
    decoder = EventDecoder()
    asked_at = time.monotonic()
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, params={"message": question}) as response,
    ):
        async for data in response.content.iter_any():
            now = time.monotonic()
            received += sum(
                len(event.data) for event in decoder.feed(data) if event.name == "message"
            )
            first = first or (now - asked_at if received else 0)
            sent = peers.sent.get(question, [])
            delays += [now - at for at in sent[len(delays) : received // len(_TOKEN)]]
    assert len(delays) == TOKENS, f"{len(delays)} of {TOKENS} tokens"
    return first * 1000, [delay * 1000 for delay in delays]


def describe(figures: Sequence[float]) -> str:
    """Return the median and the 99th percentile."""
    ordered = sorted(figures)
    return f"{statistics.median(ordered):.0f} | {ordered[int(len(ordered) * 0.99)]:.0f}"


async def main() -> None:
    """Measure every case and print a Markdown table."""
    peers = Peers()
    runner = await peers.start()
    print("| `MODERATION` | endpoint, ms | tokens/s | first token p50 | p99 | token p50 | p99 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in CASES:
        delays = await measure(case, peers)
        latency = case.latency_ms if case.mode != "off" else "–"
        print(
            f"| {case.mode} | {latency} | {case.rate} | {describe(delays.first)} "
            f"| {describe(delays.each)} |",
            flush=True,
        )
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())
