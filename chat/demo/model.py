"""The model of a first run: with neither key nor base URL set, each worker asks this one, in its own loop.

It stands where an upstream stands, behind a loopback port, and speaks OpenAI's protocol. What it says comes
from `demo_answers`. Some of its models misbehave, to show and to test what Holdline then does; asked to go on
after a failure of their own, they finish the answer.
"""

import asyncio
import sys
import time
import uuid
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from chat.demo import answers
from chat.demo.answers import Said, tokens

MODELS = ("demo", "demo-length", "demo-reasoning", "demo-drop", "demo-stall", "demo-429")
LENGTH_MAX = 40  # tokens that demo-length gives at a time
BREAK_AFTER = 40  # tokens after which demo-drop and demo-stall break, or half of a shorter answer
RETRY_AFTER_S = 1
BODY_MAX = 1 << 26  # bytes; the history is bounded by Holdline, not here
STOP_S = 0.1  # what open streams get to end by themselves; aiohttp takes 0 for no limit

Ending = Literal["stop", "length", "drop", "stall"]
BREAKS: dict[str, Ending] = {"demo-drop": "drop", "demo-stall": "stall"}
Limit = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct):
    """A part of a message; only text has any meaning here."""

    text: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None

    def said(self) -> Said:
        """This message with its text in one piece."""
        if isinstance(self.content, list):
            return Said(self.role, "".join(part.text or "" for part in self.content))
        return Said(self.role, self.content or "")


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class Asked(msgspec.Struct):
    """The body of a request, as far as the demo reads it."""

    model: str = ""
    messages: list[Message] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


@dataclass(frozen=True)
class Script:
    """The tokens of one answer and how it ends."""

    reasoning: list[str]
    content: list[str]
    ending: Ending
    prompt_tokens: int

    def usage(self) -> dict[str, Any]:
        """The tokens, counted as they were cut."""
        made = len(self.reasoning) + len(self.content)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
            "completion_tokens_details": {"reasoning_tokens": len(self.reasoning)},
        }


class Refused(Exception):
    """The request is refused, in OpenAI's words for it."""

    def __init__(
        self, status: int, kind: str, message: str, *, code: str | None, param: str | None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class DemoModel:
    """A small OpenAI-compatible server on a loopback port; `pace_s` is the time between two tokens."""

    def __init__(self, pace_s: float = 0.02) -> None:
        self._pace_s = pace_s
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a port that the system chooses; returns the base URL."""
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list_models)
        # Without handler_cancellation a stalled answer would outlive its client.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stop listening and cut the streams that are open; safe to call again."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = read(await request.read())
        except Refused as refused:
            headers = {"Retry-After": str(RETRY_AFTER_S)} if refused.status == 429 else None
            return web.json_response(refused.body, status=refused.status, headers=headers)
        script = write(asked)
        head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": asked.model,
        }
        if asked.stream:
            return await self._stream(request, head, script, asked.wants_usage)
        if script.ending in ("drop", "stall"):
            await _break(request, script.ending)
        return web.json_response(_completion(head, script))

    async def _stream(
        self, request: web.Request, head: dict[str, Any], script: Script, wants_usage: bool
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
            }
        )
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
            chunk = {**head, "object": "chat.completion.chunk", "choices": choices}
            if wants_usage:
                chunk["usage"] = usage
            await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")

        await send(_choice({"role": "assistant", "content": ""}))
        for name, pieces in (("reasoning_content", script.reasoning), ("content", script.content)):
            for piece in pieces:
                await send(_choice({name: piece}))
                await asyncio.sleep(self._pace_s)
        if script.ending in ("drop", "stall"):
            await _break(request, script.ending)
            return response
        await send(_choice({}, script.ending))
        if wants_usage:
            await send([], script.usage())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _list_models(self, request: web.Request) -> web.Response:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "holdline"} for name in MODELS
        ]
        return web.json_response({"object": "list", "data": models})


def read(body: bytes) -> Asked:
    """Parse and check a request; raises Refused."""
    invalid = "invalid_request_error"
    try:
        asked = msgspec.json.decode(body, type=Asked)
    except msgspec.ValidationError as error:
        raise Refused(400, invalid, str(error), code=None, param=None) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        words = "We could not parse the JSON body of your request."
        raise Refused(400, invalid, words, code=None, param=None) from None
    for name in ("model", "messages"):
        if not getattr(asked, name):
            words = f"Missing required parameter: '{name}'."
            raise Refused(400, invalid, words, code="missing_required_parameter", param=name)
    if asked.model not in MODELS:
        words = (
            f"The model `{asked.model}` does not exist; Holdline's demo has {', '.join(MODELS)}."
        )
        raise Refused(404, invalid, words, code="model_not_found", param=None)
    if asked.model == "demo-429":
        words = f"Rate limit reached for {asked.model} on requests per min. Please try again in {RETRY_AFTER_S}s."
        raise Refused(429, "requests", words, code="rate_limit_exceeded", param=None)
    return asked


def write(asked: Asked) -> Script:
    """The answer that this model gives, and how it ends."""
    messages = [message.said() for message in asked.messages]
    reply = answers.reply_to(messages)
    # One for each message's role, and its text by the same measure as the answer's.
    prompt_tokens = sum(1 + len(tokens(said.text)) for said in messages)
    reasoning = tokens(reply.reasoning) if asked.model == "demo-reasoning" else []
    content = tokens(reply.text)
    if asked.model in BREAKS and not reply.continued:
        half = content[: min(BREAK_AFTER, len(content) // 2)]
        return Script([], half, BREAKS[asked.model], prompt_tokens)
    left = _limit(asked) - len(reasoning)
    if left < len(content):
        return Script(reasoning[: _limit(asked)], content[: max(0, left)], "length", prompt_tokens)
    return Script(reasoning, content, "stop", prompt_tokens)


def _limit(asked: Asked) -> int:
    own = LENGTH_MAX if asked.model == "demo-length" else sys.maxsize
    return min(own, asked.max_tokens or own, asked.max_completion_tokens or own)


async def _break(request: web.Request, ending: Ending) -> None:
    """Cut the connection, or keep silent until the client goes."""
    if ending == "stall":
        await asyncio.Event().wait()
    elif request.transport:
        request.transport.abort()


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def _completion(head: dict[str, Any], script: Script) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(script.content), "refusal": None}
    if script.reasoning:
        message["reasoning_content"] = "".join(script.reasoning)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": script.ending}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": script.usage()}
