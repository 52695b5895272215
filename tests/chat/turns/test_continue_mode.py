"""An answer is continued with CONTINUE_MODE=auto: by prefill where the server supports it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.chat.turns.test_requests import model_list, server_for, until_asked_for_models
from tests.raw_upstream import STOP, RawUpstream, delta, error, raw_upstream, stream, text
from tests.streams import read, text_of

SENTENCES = "".join(f"Sentence {number} says something of its own. " for number in range(1, 11))
CUT = 280
LLAMA = {"owned_by": "llamacpp"}


@asynccontextmanager
async def continuing(
    fields: dict[str, Any], **settings: str
) -> AsyncIterator[tuple[RawUpstream, httpx.AsyncClient]]:
    """Yield an upstream whose list of models has these fields, and a client of a server."""
    async with raw_upstream() as upstream:
        upstream.models = model_list(**fields)
        async with (
            server_for(upstream, **settings) as server,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            await until_asked_for_models(upstream)
            yield upstream, client


def is_prefilled(body: dict[str, Any]) -> bool:
    return bool(body["messages"][-1]["role"] == "assistant")


def has_partial(body: dict[str, Any]) -> bool:
    return any(message["role"] == "assistant" for message in body["messages"])


def finish_of(events: list[ServerSentEvent]) -> str:
    assert events[-1].event == "end"
    usage = json.loads(next(event.data for event in events if event.event == "usage"))
    return str(usage["finish_reason"])


def continue_exactly(body: dict[str, Any]) -> bytes:
    """Answer like a server that continues the last message and trims its white space."""
    if not has_partial(body):
        return text(SENTENCES[:CUT], finish="length")
    return text(SENTENCES[len(body["messages"][-1]["content"]) :])


def begin_again(body: dict[str, Any]) -> bytes:
    """Answer like a model that begins its answer again, after prompt and prefill."""
    whole = SENTENCES if has_partial(body) else SENTENCES[:CUT]
    return text(whole, finish="stop" if has_partial(body) else "length")


def restart_differently(body: dict[str, Any]) -> bytes:
    """Answer like a model that restarts its answer and then writes another text."""
    if not has_partial(body):
        return text(SENTENCES[:CUT], finish="length")
    return text(SENTENCES[: CUT // 2], "But here it goes another way. " * 4)


@pytest.mark.parametrize("owner", ["llamacpp", "vllm", "sglang"])
async def test_a_server_that_continues_the_last_message_is_prefilled(owner: str) -> None:
    async with continuing({"owned_by": owner}) as (upstream, client):
        upstream.add("q", continue_exactly)
        events = await read(client, message="q")
        assert (text_of(events), finish_of(events)) == (SENTENCES, "stop")
        body = upstream.requests["q"][1]
        assert is_prefilled(body)
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize("fields", [{}, {"owned_by": "openai"}, {"owned_by": ["vllm"]}])
async def test_any_other_server_is_prompted(fields: dict[str, Any]) -> None:
    async with continuing(fields) as (upstream, client):
        upstream.add("q", text(SENTENCES[:CUT], finish="length"), text(SENTENCES[CUT:]))
        events = await read(client, message="q")
        assert (text_of(events), finish_of(events)) == (SENTENCES, "stop")
        body = upstream.requests["q"][1]
        assert not is_prefilled(body)
        assert "continue_final_message" not in body


async def test_an_answer_that_begins_again_after_prefill_ends_the_use_of_prefill() -> None:
    async with continuing(LLAMA) as (upstream, client):
        for case in ("first", "second"):
            upstream.add(case, begin_again)
            client.cookies.clear()  # a new session: a new conversation
            events = await read(client, message=case)
            assert (text_of(events), finish_of(events)) == (SENTENCES, "stop")
        assert is_prefilled(upstream.requests["first"][1])
        assert not is_prefilled(upstream.requests["second"][1])


async def test_a_prefilled_answer_that_restarts_differently_is_requested_by_prompt() -> None:
    def answer(body: dict[str, Any]) -> bytes:
        return restart_differently(body) if is_prefilled(body) else text(SENTENCES[CUT:])

    def answer_first(body: dict[str, Any]) -> bytes:
        return answer(body) if has_partial(body) else text(SENTENCES[:CUT], finish="length")

    async with continuing(LLAMA) as (upstream, client):
        upstream.add("q", answer_first)
        events = await read(client, message="q")
        assert (text_of(events), finish_of(events)) == (SENTENCES, "stop")
        assert [is_prefilled(body) for body in upstream.requests["q"]] == [False, True, False]


async def test_a_prompted_answer_that_restarts_differently_ends_as_interrupted() -> None:
    async with continuing({}) as (upstream, client):
        upstream.add("q", restart_differently)
        events = await read(client, message="q")
        assert (text_of(events), finish_of(events)) == (SENTENCES[:CUT], "interrupted")
        assert len(upstream.requests["q"]) == 2


REJECTION = {"error": {"message": "Assistant response prefill is incompatible with thinking."}}


@pytest.mark.parametrize(
    "rejection",
    [
        error(400, REJECTION),
        error(500, REJECTION),
        stream(REJECTION),
        stream(delta(reasoning="hm"), STOP),
    ],
    ids=["400", "500", "inside the response", "only reasoning"],
)
async def test_a_rejected_prefill_is_requested_by_prompt_and_not_tried_again(
    rejection: bytes,
) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        if is_prefilled(body):
            return rejection
        return text(SENTENCES[CUT:] if has_partial(body) else SENTENCES[:CUT], finish="length")

    async with continuing(LLAMA, CONTINUE_MAX="2") as (upstream, client):
        for case, expected in (("first", [False, True, False]), ("second", [False, False, False])):
            upstream.add(case, answer)
            client.cookies.clear()
            assert text_of(await read(client, message=case)).startswith(SENTENCES)
            assert [is_prefilled(body) for body in upstream.requests[case]][:3] == expected


async def test_an_answer_with_reasoning_is_not_prefilled() -> None:
    async with continuing(LLAMA) as (upstream, client):
        first = stream(delta(reasoning="hm"), delta(SENTENCES[:CUT]), delta(finish="length"))
        upstream.add("q", first, text(SENTENCES[CUT:]))
        assert text_of(await read(client, message="q")) == SENTENCES
        assert not is_prefilled(upstream.requests["q"][1])


async def test_an_answer_that_is_interrupted_in_its_reasoning_starts_over() -> None:
    async with continuing(LLAMA) as (upstream, client):
        cut = stream(delta(reasoning="Let me see"), done=False)
        upstream.add("q", cut, stream(delta(reasoning="hm"), delta("Hello"), STOP))
        events = await read(client, message="q")
        assert (text_of(events), finish_of(events)) == ("Hello", "stop")
        assert not any(map(has_partial, upstream.requests["q"]))


@pytest.mark.parametrize("space", [" ", "\n\n", "\n", "  "])
async def test_white_space_at_the_seam_is_neither_rejected_nor_doubled(space: str) -> None:
    whole = f"One two{space}three four five."

    def answer(body: dict[str, Any]) -> bytes:
        if not has_partial(body):
            return text(f"One two{space}", finish="length")
        partial = body["messages"][-1]["content"]
        assert partial == partial.rstrip()
        return text(whole[len(partial) :])

    async with continuing(LLAMA) as (upstream, client):
        upstream.add("q", answer)
        assert text_of(await read(client, message="q")) == whole
