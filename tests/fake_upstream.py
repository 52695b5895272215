"""A fake upstream: an HTTP server with the OpenAI API, whose responses a test sends."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web

from chat.turns.context.prompt import Estimator
from tests.processes import PATIENCE_S


class Exchange:
    """One request to the fake upstream, and the response that the test sends."""

    def __init__(self, request: web.Request, body: dict[str, Any]) -> None:
        self.body = body
        self.headers = dict(request.headers)
        self.closed = asyncio.Event()
        ends = [request.get_extra_info(name) for name in ("peername", "sockname")]
        self.connection: tuple[int, int] = (ends[0][1], ends[1][1])
        """The client's port and the fake upstream's port."""
        self._request = request
        self._response: web.StreamResponse | None = None
        self._finished: asyncio.Future[web.StreamResponse] = (
            asyncio.get_running_loop().create_future()
        )

    @property
    def messages(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.body["messages"]
        return found

    @property
    def question(self) -> str:
        return self.messages[-1]["content"]

    async def open(
        self,
        content_type: str = "text/event-stream",
        headers: dict[str, str] | None = None,
        status: int = 200,
    ) -> web.StreamResponse:
        """Send the response headers, unless they were sent before."""
        if self._response is None:
            self._response = web.StreamResponse(
                status=status, headers={"Content-Type": content_type, **(headers or {})}
            )
            await self._response.prepare(self._request)
        return self._response

    async def raw(self, data: bytes) -> None:
        """Send bytes of the body unchanged."""
        await (await self.open()).write(data)

    async def chunk(self, delta: dict[str, Any] | None = None, **fields: Any) -> None:
        """Send one chunk: a choice with this delta, or no choice if it is None."""
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
        if delta is not None and "finish_reason" in fields:
            choices[0]["finish_reason"] = fields.pop("finish_reason")
        body = {"id": "c", "object": "chat.completion.chunk", "choices": choices, **fields}
        await self.raw(
            f"data: {json.dumps(body, ensure_ascii=False)}\n\n".encode("utf-8", "surrogatepass")
        )

    async def send_text(self, *texts: str) -> None:
        """Send one delta for each text."""
        for text in texts:
            await self.chunk({"content": text})

    async def finish(self, reason: str = "stop", usage: dict[str, int] | None = None) -> None:
        """Send `finish_reason`, the usage and `[DONE]`, and end the body."""
        await self.chunk({}, finish_reason=reason)
        if usage:
            await self.chunk(None, usage=usage)
        await self.raw(b"data: [DONE]\n\n")
        await self.end()

    async def answer(self, *texts: str) -> None:
        """Send deltas and the end, and report Holdline's own estimate as the prompt's tokens.

        Such a report leaves the estimate unchanged.
        """
        await self.send_text(*texts)
        estimator = Estimator()
        prompt = round(
            sum(estimator.estimate("any", message["content"]) for message in self.messages)
        )
        await self.finish(usage={"prompt_tokens": prompt, "completion_tokens": len(texts)})

    async def end(self) -> None:
        """End the body without an error, even if the answer is incomplete."""
        response = await self.open()
        await response.write_eof()
        self._finished.set_result(response)

    def drop(self) -> None:
        """Abort the connection."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Send a JSON response instead of a stream."""
        self._finished.set_result(web.json_response(body, status=status, headers=headers))

    async def serve(self) -> web.StreamResponse:
        """Wait until the test ends the response or the client disconnects; then set `closed`."""
        try:
            return await self._finished
        finally:
            self.closed.set()


class ScriptedUpstream:
    """Record every request as an Exchange, which a test finds by its last message and answers.

    With `respond`, that function answers each of them.
    """

    def __init__(
        self, respond: Callable[[Exchange], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        self._respond = respond
        self.base_url = ""
        self.exchanges: list[Exchange] = []
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a free port and return the base URL."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        return f"http://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def find_requests(self, question: str) -> list[Exchange]:
        """Return the requests whose last message ends with `question`."""
        return [exchange for exchange in self.exchanges if exchange.question.endswith(question)]

    async def exchange(self, question: str, number: int = 1) -> Exchange:
        """Return the `number`-th request for this question, once it has arrived."""
        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.find_requests(question)) >= number)
        return self.find_requests(question)[number - 1]

    async def continued(self, partial: str, number: int = 1) -> Exchange:
        """Return the `number`-th request to continue this partial answer, once it has arrived."""
        message = {"role": "assistant", "content": partial}

        def found() -> list[Exchange]:
            return [exchange for exchange in self.exchanges if message in exchange.messages[-2:]]

        async with asyncio.timeout(PATIENCE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(found()) >= number)
        return found()[number - 1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, await request.json())
        async with self._arrived:
            self.exchanges.append(exchange)
            self._arrived.notify_all()
        if self._respond is None:
            return await exchange.serve()
        async with asyncio.TaskGroup() as tasks:
            responding = tasks.create_task(self._respond(exchange))
            response = await exchange.serve()
            responding.cancel()  # nothing is left to send
        return response
