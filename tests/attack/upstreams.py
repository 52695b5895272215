"""Attacks by an upstream that is hostile or broken."""

import asyncio
import contextlib
import json
import time
import zlib

from tests import raw_server
from tests.attack.target import KEY, Outcome, Target, is_served, own_target
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.streams import STREAM

_MB = 1_000_000
_BOMB_BYTES = 48 * _MB
"""Size of the body of a bomb, after decompression if it is compressed."""

_ADDRESSES = ["10.1.2.3", "model.internal.example", "192.168.7.7:11434", "[fd00::1]", "/srv/models"]


async def _ask(target: Target, limit_s: float) -> tuple[str, float]:
    """Ask a question; return the stream, cut at a time limit, and the time that it took."""
    begun, text = time.monotonic(), ""
    with contextlib.suppress(TimeoutError):
        async with (
            asyncio.timeout(limit_s),
            target.open_client(timeout=limit_s) as client,
            client.stream("GET", STREAM, params={"message": "hello"}) as response,
        ):
            async for chunk in response.aiter_text():
                text += chunk
    return text, time.monotonic() - begun


def _describe(text: str, passed_s: float) -> str:
    ending = next((one for one in ("end", "failed") if f"event: {one}\n" in text), "no end")
    return f"{ending} after {passed_s:.1f} s"


async def redirect_in_a_loop(target: Target) -> Outcome:
    """Redirect each request to the same address, with each status that redirects."""
    del target
    found = []
    async with raw_server.raw_server() as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        async with own_target(OPENAI_BASE_URL=url) as other:
            for status in (301, 302, 303, 307, 308):
                upstream.serve = raw_server.respond(
                    f"HTTP/1.1 {status} X\r\nLocation: {url}/chat/completions\r\n"
                    "Content-Length: 0\r\n\r\n".encode()
                )
                before = len(upstream.heads)
                text, _ = await _ask(other, 10)
                asked = [head for head in upstream.heads[before:] if b"/models" not in head]
                found.append((len(asked), "event: failed" in text))
    counts = [count for count, _ in found]
    return Outcome(
        max(counts) <= 2 and all(failed for _, failed in found),
        f"requests for 301, 302, 303, 307, 308: {counts}",
    )


async def redirect_elsewhere(target: Target) -> Outcome:
    """Redirect the question and its key to another server."""
    other = ScriptedUpstream()
    url = await other.start()

    async def respond(exchange: Exchange) -> None:
        exchange.reply(308, {}, {"Location": f"{url}/chat/completions"})

    target.respond = respond
    text, passed = await _ask(target, 5)
    received = len(other.exchanges)
    await other.stop()
    leaked = url.removeprefix("http://").removesuffix("/v1") in text
    return Outcome(
        received == 0 and not leaked,
        f"{received} requests elsewhere, address {'shown' if leaked else 'not shown'}; "
        f"{_describe(text, passed)}",
    )


async def _bomb(target: Target, headers: dict[str, str], chunks: list[bytes], status: int) -> str:
    """Send chunks as the body of a response; return what the worker read and how it grew."""
    sent = 0

    async def respond(exchange: Exchange) -> None:
        nonlocal sent
        kind = "application/json" if status >= 400 else "text/event-stream"
        with contextlib.suppress(ConnectionError):
            await exchange.open(kind, headers, status)
            for chunk in chunks:
                await exchange.raw(chunk)
                sent += len(chunk)
            await exchange.end()

    target.respond = respond
    before = target.count_resident_bytes()
    text, passed = await _ask(target, 30)
    grown = (target.count_resident_bytes() - before) / _MB
    return f"{sent / _MB:.2f} MB sent, worker grew by {grown:.0f} MB; {_describe(text, passed)}"


def _is_bounded(happened: str, max_sent_mb: float) -> bool:
    sent, _, rest = happened.partition(" MB sent, worker grew by ")
    return float(sent) <= max_sent_mb and int(rest.split()[0]) < 30 and "failed" in rest


async def send_an_error_bomb(target: Target) -> Outcome:
    """Send an error whose body does not end."""
    happened = await _bomb(
        target, {}, [b'{"error": "' + b"e" * 65_000] * (_BOMB_BYTES // 65_000), 500
    )
    return Outcome(_is_bounded(happened, 8), happened)  # some megabytes fit into socket buffers


async def send_a_compressed_error_bomb(target: Target) -> Outcome:
    """Send an error of 48 MB in 48 kB of gzip."""
    packer = zlib.compressobj(wbits=31)
    body = packer.compress(b"e" * _BOMB_BYTES) + packer.flush()
    happened = await _bomb(target, {"Content-Encoding": "gzip"}, [body], 500)
    return Outcome(_is_bounded(happened, 8), happened)


async def send_an_endless_line(target: Target) -> Outcome:
    """Send an event that has no line end."""
    chunks = [b"data: ", *([b"x" * 65_000] * (_BOMB_BYTES // 65_000))]
    happened = await _bomb(target, {}, chunks, 200)
    return Outcome(_is_bounded(happened, 12), happened)


async def _drip(target: Target, status: int, piece: bytes) -> Outcome:
    """Send a byte, or an event, every 0.2 s for as long as the server reads, with TURN_MAX_S=4."""

    async def respond(exchange: Exchange) -> None:
        kind = "application/json" if status >= 400 else "text/event-stream"
        with contextlib.suppress(ConnectionError):
            await exchange.open(kind, None, status)
            while not exchange.closed.is_set():
                await exchange.raw(piece)
                await asyncio.sleep(0.2)

    target.respond = respond
    text, passed = await _ask(target, 20)
    return Outcome("event: failed" in text and passed < 10, _describe(text, passed))


async def drip_an_error(target: Target) -> Outcome:
    """Drip the body of an error."""
    return await _drip(target, 500, b" ")


async def drip_comments(target: Target) -> Outcome:
    """Drip comments and no answer."""
    return await _drip(target, 200, b": waiting\n\n")


async def drip_an_answer(target: Target) -> Outcome:
    """Drip an answer without end."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}
    return await _drip(target, 200, f"data: {json.dumps(chunk)}\n\n".encode())


async def drip_headers(target: Target) -> Outcome:
    """Accept the request and send nothing at all, not even headers."""

    async def respond(exchange: Exchange) -> None:
        await exchange.closed.wait()

    target.respond = respond
    text, passed = await _ask(target, 20)
    return Outcome("event: failed" in text and passed < 10, _describe(text, passed))


async def name_addresses_in_errors(target: Target) -> Outcome:
    """Name internal addresses, paths and the key in errors: none may reach a client."""
    own = target.upstream.base_url or "http://127.0.0.1"
    shown = []
    message = (
        f"connect to http://{_ADDRESSES[0]}:8000/v1 via {_ADDRESSES[1]} ({_ADDRESSES[2]}, "
        f"http://{_ADDRESSES[3]}:80) failed; key {KEY}; {own}"
    )
    bodies = [
        {"error": {"message": message}},
        {"detail": message},
        {"error": message},
        [message],
        f"<html><title>{message}</title>",
    ]
    for status in (400, 401, 403, 404, 500, 502, 503):
        for body in bodies:

            async def respond(
                exchange: Exchange, status: int = status, body: object = body
            ) -> None:
                exchange.reply(status, body)

            target.respond = respond
            text, _ = await _ask(target, 8)
            shown += [one for one in (*_ADDRESSES[:4], KEY) if one in text]
    return Outcome(
        not shown, f"{7 * len(bodies)} errors; shown: {', '.join(sorted(set(shown))) or 'nothing'}"
    )


async def refuse_connections(target: Target) -> Outcome:
    """Stop the upstream: its address must not be in the error; only the log may have it."""
    url = target.upstream.base_url
    await target.upstream.stop()
    text, passed = await _ask(target, 20)
    address = url.removeprefix("http://").removesuffix("/v1")
    leaked = bool(address) and address in text
    return Outcome(
        "event: failed" in text and not leaked,
        f"address {'shown' if leaked else 'not shown'}; {_describe(text, passed)}",
    )


async def forge_frames(target: Target) -> Outcome:
    """Answer with text that looks like frames, events and line ends of the wire format."""
    forged = "x\r\nevent: end\ndata: forged\n\nid: 1\r\rdata: [DONE]\u2028event: failed\n\n\0"

    async def respond(exchange: Exchange) -> None:
        with contextlib.suppress(ConnectionError):
            await exchange.answer(forged)

    target.respond = respond
    text, passed = await _ask(target, 10)
    lines = text.split("\n")
    ends = [line for line in lines if line in ("event: end", "event: failed")]
    served = await is_served(target)
    return Outcome(
        ends == ["event: end"] and served, f"{len(ends)} last frames; {_describe(text, passed)}"
    )
