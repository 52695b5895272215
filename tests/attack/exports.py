"""Attacks by an answer whose Markdown is costly to render, or hostile, in exports."""

import asyncio
import contextlib
import re
import time

import httpx

from tests.attack.target import Outcome, Target, gather_bounded, measure_delay, summarise
from tests.fake_upstream import Exchange
from tests.streams import STREAM

_EXPORT_S = 4
"""The process that renders is stopped after two seconds."""

_FORMATS = ("markdown", "json", "html")

_NESTED = {
    "quotes": ">" * 2000,
    "lists": "- " * 2000,
    "numbers": "1. " * 2000,
    "mixed": "> - 1. " * 700,
    "brackets": "[" * 5000,
    "images": "![" * 5000,
    "emphasis": "*a_ " * 5000,
}
_COSTLY = {
    "addresses": "//a.b/" * 10_000,
    "definitions": "\n\n".join(f"[a{n}]: b" for n in range(4000)),
    "repeated definitions": "[a]: b\n" * 8000,
    "open emphasis": "**a **a " * 8000,
    "open code": "".join("`" * n + "a" for n in range(350)),
    "tables": "|a" * 200 + "\n" + "|-" * 200 + "\n" + ("|b" * 200 + "\n") * 60,
    "links": "[a](" * 8000,
    "entities": "&a" * 20_000,
    "mail addresses": "a@b." * 12_000,
}
_HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> [a](javascript:alert(1)) "
    "[b](data:text/html,x) ![c](http://evil.example/pixel) <svg onload=alert(1)> "
    "<a href='vbscript:x'>d</a> <style>@import 'http://evil.example'</style> <iframe src=//x>"
)


async def _store(target: Target, client: httpx.AsyncClient, text: str) -> str:
    """Store an answer in a new conversation between two others; return the conversation."""

    async def respond(exchange: Exchange) -> None:
        answers = {"first": "before", "second": text, "third": "after"}
        with contextlib.suppress(ConnectionError):
            await exchange.answer(answers[exchange.question])

    target.respond = respond
    created = str((await client.post("/api/conversations/", json={})).json()["id"])
    for question in ("first", "second", "third"):
        params = {"message": question, "conversation": created}
        stream = (await client.get(STREAM, params=params)).text
        assert "event: end" in stream, stream[-300:]
    return created


async def _export_each(target: Target, answers: dict[str, str]) -> Outcome:
    problems, slowest = [], 0.0
    async with target.open_client(timeout=60) as client:
        await client.get("/")
        for name, text in answers.items():
            created = await _store(target, client, text)
            for kind in _FORMATS:
                begun = time.monotonic()
                response = await client.get(
                    f"/api/conversations/{created}/export", params={"format": kind}
                )
                passed = time.monotonic() - begun
                slowest = max(slowest, passed)
                whole = "before" in response.text and "after" in response.text
                if response.status_code != 200 or not whole or passed > _EXPORT_S:
                    problems.append(f"{name} as {kind}: {response.status_code}, {passed:.1f} s")
    return Outcome(
        not problems, f"slowest {slowest:.1f} s; {'; '.join(problems) or 'all are whole'}"
    )


async def export_nested_markdown(target: Target) -> Outcome:
    """Export answers that nest blocks or spans thousands of times."""
    return await _export_each(target, _NESTED)


async def export_costly_markdown(target: Target) -> Outcome:
    """Export answers that cost a renderer more than linear time."""
    return await _export_each(target, _COSTLY)


async def export_hostile_markdown(target: Target) -> Outcome:
    """Export an answer with scripts, images and other requests."""
    async with target.open_client() as client:
        await client.get("/")
        created = await _store(target, client, _HOSTILE)
        page = await client.get(f"/api/conversations/{created}/export", params={"format": "html"})
    active = re.findall(
        r"<(?:script|img|svg|iframe|object|embed|link|form)\b|<[^>]*\son\w+="
        r"|href=\"(?!https?:|mailto:|#)",
        page.text,
    )
    return Outcome(not active, f"active content: {', '.join(sorted(set(active))) or 'none'}")


async def export_all_the_time(target: Target) -> Outcome:
    """Export one costly conversation many times at once: others must not wait."""
    async with target.open_client(timeout=60) as client:
        await client.get("/")
        created = await _store(target, client, _COSTLY["addresses"])

        async def export() -> int:
            path = f"/api/conversations/{created}/export"
            return (await client.get(path, params={"format": "html"})).status_code

        async with measure_delay(target) as delays:
            begun = time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(45):
                    statuses = await gather_bounded([export() for _ in range(8)])
            passed = time.monotonic() - begun
    return Outcome(
        max(delays) < 1 and passed < 45,
        f"{summarise(statuses) if passed < 45 else 'no end'} in {passed:.1f} s; "
        f"others waited for {max(delays) * 1000:.0f} ms at most",
    )


async def leave_questions_of_definitions(target: Target) -> Outcome:
    """Ask ten questions of link definitions, and export them all."""
    async with target.open_client(timeout=60) as client:
        await client.get("/")
        created = (await client.post("/api/conversations/", json={})).json()["id"]
        for number in range(10):
            text = f"{number}\n" + "[a]: b\n" * 4000
            await client.post(STREAM, json={"message": text, "conversation": created})
        begun = time.monotonic()
        response = await client.get(
            f"/api/conversations/{created}/export", params={"format": "html"}
        )
        passed = time.monotonic() - begun
    return Outcome(
        response.status_code == 200 and passed < _EXPORT_S,
        f"{response.status_code} after {passed:.1f} s",
    )
