"""Run an upstream that responds with given bytes, for any deviation of a server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

Answer = bytes | Callable[[dict[str, Any]], bytes]
"""The bytes of an HTTP response, or a function of the request's body that returns them."""


class RawUpstream:
    """Sends the n-th response of a case to its n-th request, and repeats the last response.

    A question names its case by its first word.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.cases: dict[str, list[Answer]] = {}
        self.requests: dict[str, list[dict[str, Any]]] = {}
        self.heads: list[str] = []
        self.models: bytes = http(
            b'{"error": "no list"}', status=404, content_type="application/json"
        )

    def add(self, case: str, *answers: Answer) -> None:
        """Set the responses of a case."""
        self.cases[case] = list(answers)
        self.requests[case] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if head.startswith("GET"):
                writer.write(self.models)
            else:
                lengths = [line for line in head.lower().split("\r\n") if "content-length" in line]
                body = json.loads(await reader.readexactly(int(lengths[0].split(":")[1])))
                question = next(
                    one["content"]
                    for one in reversed(body["messages"])
                    if one["role"] == "user"
                    and not one["content"].startswith("Your answer broke off")
                )
                case = question.split()[0]
                self.requests[case].append(body)
                answers = self.cases[case]
                answer = answers[min(len(self.requests[case]), len(answers)) - 1]
                writer.write(answer(body) if callable(answer) else answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def raw_upstream() -> AsyncIterator[RawUpstream]:
    """Run a raw upstream on a free port."""
    upstream = RawUpstream()
    server = await asyncio.start_server(upstream._serve, "127.0.0.1", 0)
    upstream.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield upstream


def http(
    body: bytes,
    status: int = 200,
    content_type: str = "text/event-stream; charset=utf-8",
    **headers: Any,
) -> bytes:
    """Return a response with this body, whose length is given; `_` in a header's name means `-`."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def event(data: Any, name: str = "") -> bytes:
    """Return one event; `data` is sent as JSON, unless it is a string."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def delta(content: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """Return a chunk with one choice; `more` are fields of the delta."""
    fields = {**({} if content is None else {"content": content}), **more}
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
DONE = b"data: [DONE]\n\n"
STOP = delta(finish="stop")


def stream(*chunks: Any, done: bool = True, **headers: Any) -> bytes:
    """Return a response that streams these chunks: objects, or bytes that are sent unchanged."""
    events = [chunk if isinstance(chunk, bytes) else event(chunk) for chunk in chunks]
    return http(b"".join([*events, DONE if done else b""]), **headers)


def text(*pieces: str, finish: Any = "stop") -> bytes:
    """Return a response that streams these pieces of text, and then ends."""
    return stream(*(delta(piece) for piece in pieces), delta(finish=finish))


def error(status: int, body: Any, **headers: Any) -> bytes:
    """Return an error response with a JSON body."""
    return http(json.dumps(body).encode(), status, "application/json", **headers)
