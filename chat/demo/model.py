"""Serve the demo model, which answers when neither a key nor a base URL is set.

Each worker runs one in its own event loop. It is an upstream like any other: it listens on a
loopback port and implements OpenAI's protocol, with the answers of `chat.demo.answers`. Some of
its models fail in a certain way, to show and to test how Holdline reacts. When asked to continue
after such a failure, they finish the answer.
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
from chat.demo.answers import ChatMessage, split_tokens

MODELS = ("demo", "demo-length", "demo-reasoning", "demo-drop", "demo-stall", "demo-429")
MAX_LENGTH_TOKENS = 40
"""Tokens in one response of demo-length."""

FAULT_AFTER_TOKENS = 40
"""Tokens after which demo-drop and demo-stall fail; half of a shorter answer."""

RETRY_AFTER_S = 1
MAX_BODY_BYTES = 1 << 26
"""Limit of aiohttp; Holdline itself bounds the history."""

STOP_TIMEOUT_S = 0.1
"""How long open streams may take to end; aiohttp takes 0 for no limit."""

Ending = Literal["stop", "length", "drop", "stall"]
"""How an answer ends: with this finish reason, a closed connection, or no more data."""

FAULTS: dict[str, Ending] = {"demo-drop": "drop", "demo-stall": "stall"}
TokenLimit = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct):
    """A part of a message; parts other than text are ignored."""

    text: str | None = None


class Message(msgspec.Struct):
    """A message of a request."""

    role: str
    content: str | list[Part] | None = None

    def to_chat_message(self) -> ChatMessage:
        """Return this message with its parts joined."""
        if isinstance(self.content, list):
            return ChatMessage(self.role, "".join(part.text or "" for part in self.content))
        return ChatMessage(self.role, self.content or "")


class StreamOptions(msgspec.Struct):
    """The options of a streamed response."""

    include_usage: bool | None = None


class CompletionRequest(msgspec.Struct):
    """The body of a request; other fields are ignored."""

    model: str = ""
    messages: list[Message] = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None

    @property
    def includes_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def token_limit(self) -> int:
        limit = MAX_LENGTH_TOKENS if self.model == "demo-length" else sys.maxsize
        return min(limit, self.max_tokens or limit, self.max_completion_tokens or limit)


@dataclass(frozen=True)
class ScriptedAnswer:
    """The tokens of one answer, and how it ends."""

    reasoning: list[str]
    content: list[str]
    ending: Ending
    prompt_tokens: int

    def usage(self) -> dict[str, Any]:
        """Return the exact number of tokens."""
        completion_tokens = len(self.reasoning) + len(self.content)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
            "completion_tokens_details": {"reasoning_tokens": len(self.reasoning)},
        }


class ApiError(Exception):
    """The request is rejected; `body` is the error in OpenAI's format."""

    def __init__(
        self, status: int, kind: str, message: str, *, code: str | None, param: str | None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class DemoModel:
    """A small OpenAI-compatible server on a loopback port."""

    def __init__(self, token_interval_s: float = 0.02) -> None:
        self._token_interval_s = token_interval_s
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen on a port that the system chooses; return the base URL."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list_models)
        # handler_cancellation: otherwise a stalled answer would outlive its client.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_TIMEOUT_S
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stop listening and close open streams; safe to repeat."""
        runner, self._runner = self._runner, None
        if runner:
            await runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            completion_request = parse_request(await request.read())
        except ApiError as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)} if error.status == 429 else None
            return web.json_response(error.body, status=error.status, headers=headers)
        answer = script_answer(completion_request)
        common = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": completion_request.model,
        }
        if completion_request.stream:
            return await self._stream(request, common, answer, completion_request.includes_usage)
        if answer.ending in ("drop", "stall"):
            await _inject_fault(request, answer.ending)
        return web.json_response(_format_completion(common, answer))

    async def _stream(
        self,
        request: web.Request,
        common: dict[str, Any],
        answer: ScriptedAnswer,
        includes_usage: bool,
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
            }
        )
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
            chunk = {**common, "object": "chat.completion.chunk", "choices": choices}
            if includes_usage:
                chunk["usage"] = usage
            await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")

        await send(_format_choices({"role": "assistant", "content": ""}))
        for field, tokens in (("reasoning_content", answer.reasoning), ("content", answer.content)):
            for token in tokens:
                await send(_format_choices({field: token}))
                await asyncio.sleep(self._token_interval_s)
        if answer.ending in ("drop", "stall"):
            await _inject_fault(request, answer.ending)
            return response
        await send(_format_choices({}, answer.ending))
        if includes_usage:
            await send([], answer.usage())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _list_models(self, request: web.Request) -> web.Response:
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "holdline"} for name in MODELS
        ]
        return web.json_response({"object": "list", "data": models})


def parse_request(body: bytes) -> CompletionRequest:
    """Decode and validate the body of a request; raises ApiError."""
    invalid = "invalid_request_error"
    try:
        request = msgspec.json.decode(body, type=CompletionRequest)
    except msgspec.ValidationError as error:
        raise ApiError(400, invalid, str(error), code=None, param=None) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        message = "We could not parse the JSON body of your request."
        raise ApiError(400, invalid, message, code=None, param=None) from None
    for name in ("model", "messages"):
        if not getattr(request, name):
            message = f"Missing required parameter: '{name}'."
            raise ApiError(400, invalid, message, code="missing_required_parameter", param=name)
    if request.model not in MODELS:
        names = ", ".join(MODELS)
        message = f"The model `{request.model}` does not exist; Holdline's demo has {names}."
        raise ApiError(404, invalid, message, code="model_not_found", param=None)
    if request.model == "demo-429":
        message = (
            f"Rate limit reached for {request.model} on requests per min. "
            f"Please try again in {RETRY_AFTER_S}s."
        )
        raise ApiError(429, "requests", message, code="rate_limit_exceeded", param=None)
    return request


def script_answer(request: CompletionRequest) -> ScriptedAnswer:
    """Choose the tokens of the answer, and how it ends."""
    messages = [message.to_chat_message() for message in request.messages]
    reply = answers.reply_to(messages)
    # One token for the role of each message, and the tokens of its text.
    prompt_tokens = sum(1 + len(split_tokens(message.text)) for message in messages)
    reasoning = split_tokens(reply.reasoning) if request.model == "demo-reasoning" else []
    content = split_tokens(reply.text)
    if request.model in FAULTS and not reply.is_continuation:
        count = min(FAULT_AFTER_TOKENS, len(content) // 2)
        return ScriptedAnswer([], content[:count], FAULTS[request.model], prompt_tokens)
    limit = request.token_limit
    if len(reasoning) + len(content) > limit:
        content = content[: max(0, limit - len(reasoning))]
        return ScriptedAnswer(reasoning[:limit], content, "length", prompt_tokens)
    return ScriptedAnswer(reasoning, content, "stop", prompt_tokens)


async def _inject_fault(request: web.Request, ending: Ending) -> None:
    """Close the connection, or send nothing more until the client disconnects."""
    if ending == "stall":
        await asyncio.Event().wait()
    elif request.transport:
        request.transport.abort()


def _format_choices(
    delta: dict[str, str], finish_reason: str | None = None
) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def _format_completion(common: dict[str, Any], answer: ScriptedAnswer) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(answer.content), "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.ending}
    return {**common, "object": "chat.completion", "choices": [choice], "usage": answer.usage()}
