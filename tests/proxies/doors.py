"""The ways to ask a question: each has a request, and a decoder of its response.

A row of DOORS adds a door to all tests of proxies.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from httpx_sse._decoders import SSEDecoder

from tests.proxies.configurations import SHIPPED
from tests.proxies.curl import Response, request
from tests.proxies.fronts import Front
from tests.streams import STREAM


@dataclass(frozen=True)
class Door:
    """A way to ask a question and to read its answer."""

    name: str
    path: str
    """Its `{}` is replaced by the question."""
    decode: Callable[[bytes], str]
    """Return the text of the answer in a response that may end anywhere."""
    build_body: Callable[[str], Any] = lambda question: None
    """Return the JSON body of a POST; None for a GET."""
    has_heartbeats: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


def ask(
    front: Front, protocol: str, door: Door, question: str
) -> AbstractAsyncContextManager[Response]:
    """Ask a question through a door, and yield the response as it arrives."""
    # With the shipped files, Holdline knows its own origin.
    origin = {"Origin": front.url} if front.name in SHIPPED else {}
    path = door.path.format(quote(question))
    return request(front, protocol, path, {**door.headers, **origin}, door.build_body(question))


async def read_text(response: Response, door: Door, text: str) -> None:
    """Return when this text of the answer has arrived."""
    await response.read_until(lambda body: door.decode(body) == text)


def decode_sse(body: bytes) -> str:
    decoder = SSEDecoder()
    events = [decoder.decode(line) for line in keep_whole(body, b"\n\n").split("\n")]
    return "".join(event.data for event in events if event and event.event == "message")


def decode_ndjson(body: bytes) -> str:
    events = [json.loads(line) for line in keep_whole(body, b"\n").splitlines()]
    return "".join(event["data"] for event in events if event["event"] == "message")


def decode_chunks(body: bytes) -> str:
    """Decode OpenAI's chunks."""
    lines = [line for line in keep_whole(body, b"\n\n").splitlines() if line.startswith("data: {")]
    choices = [choice for line in lines for choice in json.loads(line[6:])["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def decode_completion(body: bytes) -> str:
    """Decode OpenAI's object of a complete answer."""
    return str(json.loads(body)["choices"][0]["message"]["content"])


def decode_text(body: bytes) -> str:
    return body.decode(errors="ignore")


def decode_json(body: bytes) -> str:
    return str(json.loads(body)["answer"])


def keep_whole(body: bytes, end: bytes) -> str:
    """Return the body up to its last complete event."""
    return body[: body.rfind(end) + len(end)].decode()


def build_request(question: str, **fields: bool) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], **fields}


API_KEY = "proxies-0123456789abcdef"
AUTHORISED = {"Authorization": f"Bearer {API_KEY}"}
COMPLETIONS = "/v1/chat/completions"
ASK = STREAM + "?message={}"
DOORS = (
    Door("sse", ASK, decode_sse),
    Door("sse-post", STREAM, decode_sse, lambda question: {"message": question}),
    Door("ndjson", f"{ASK}&format=ndjson", decode_ndjson),
    Door("text", f"{ASK}&format=text", decode_text, has_heartbeats=False),
    Door(
        "v1", COMPLETIONS, decode_chunks, lambda question: build_request(question, stream=True),
        headers=AUTHORISED,
    ),
)  # fmt: skip
"""The doors whose answers arrive piece by piece."""
ALL_DOORS = (
    *DOORS,
    Door("json", f"{ASK}&format=json", decode_json),
    Door("v1-complete", COMPLETIONS, decode_completion, build_request, headers=AUTHORISED),
)
