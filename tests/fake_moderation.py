"""A fake moderation endpoint: words in a text determine its response."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.processes import PATIENCE_S

FLAGGED = "crimson"
"""A text with this word is flagged."""

FAILING = {
    "glacial": "no response",
    "broken": "status 500",
    "garbled": "not JSON",
    "partial": "fewer results than texts",
    "mute": "a result without a verdict",
}
"""A text with one of these words gets no verdict, but this response."""


class FakeModeration:
    """Records the texts of every request, and can hold the requests with a word back."""

    def __init__(self) -> None:
        self.base_url = ""
        self.checks: list[list[str]] = []
        self.bodies: list[dict[str, object]] = []
        self.keys: list[str | None] = []
        self._held: dict[str, asyncio.Event] = {}
        self._arrived = asyncio.Condition()

    def hold(self, word: str) -> asyncio.Event:
        """Hold requests with this word back until the event is set."""
        self._held[word] = asyncio.Event()
        return self._held[word]

    def find_checks(self, word: str) -> list[list[str]]:
        """Return the texts of each request with this word."""
        return [texts for texts in self.checks if word in " ".join(texts)]

    async def check(self, word: str, number: int = 1) -> list[str]:
        """Return the texts of the `number`-th request with this word, once it has arrived."""
        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.find_checks(word)) >= number)
        return self.find_checks(word)[number - 1]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        async with self._arrived:
            self.checks.append(texts)
            self.bodies.append(body)
            self.keys.append(request.headers.get("Authorization"))
            self._arrived.notify_all()
        joined = " ".join(texts)
        for word, event in self._held.items():
            if word in joined:
                await event.wait()
        results: list[dict[str, object]] = [{"flagged": FLAGGED in text} for text in texts]
        if "glacial" in joined:
            await asyncio.Event().wait()
        elif "broken" in joined:
            return web.json_response({"error": {"message": joined}}, status=500)
        elif "garbled" in joined:
            return web.Response(body=b"<html>moderated?")
        elif "partial" in joined:
            results.pop()
        elif "mute" in joined:
            results = [{"id": "?"} for _ in texts]
        return web.Response(body=json.dumps({"results": results}), content_type="application/json")


@asynccontextmanager
async def fake_moderation() -> AsyncIterator[FakeModeration]:
    """Serve a fake endpoint on a free port."""
    moderation = FakeModeration()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/moderations", moderation.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    moderation.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield moderation
    await runner.cleanup()
