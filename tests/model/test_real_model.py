"""With a real model, Holdline's answers equal those of llama-server despite interruptions."""

import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.model.model_server import EXACT, Answer, Message, ModelServer, model_server
from tests.processes import find_worker, holdline, private_folder, start
from tests.streams import asking, read, text_of

QUESTION = "Why is the sky blue?"
STORY = "Write a long story about a lighthouse."
UNCONTINUED = {"continue": "false"}
STOP_TIMEOUT_S = 5.0
"""Enough for the step that runs when the stop arrives; the answer would take minutes."""


def settings_for(model: ModelServer, **settings: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": model.base_url, "CHAT_MODEL": "smollm2", **settings}


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def data_of(events: list[ServerSentEvent], name: str) -> dict[str, Any]:
    """Return the data of the frame with this name."""
    data: dict[str, Any] = json.loads(next(event.data for event in events if event.event == name))
    return data


def assert_equal(events: list[ServerSentEvent], direct: Answer) -> None:
    """Assert that a turn has the text, the finish reason and the usage of a direct answer."""
    assert events[-1].event == "end"
    assert events[-1].data == text_of(events) == direct.text
    usage = data_of(events, "usage")
    assert usage["finish_reason"] == direct.finish_reason
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage[name] == direct.usage[name]


async def read_deltas(events: AsyncIterator[ServerSentEvent], count: int) -> str:
    """Return the id of the turn after `count` deltas of its answer."""
    turn = json.loads((await anext(events)).data)["turn"]
    while count:
        count -= (await anext(events)).event == "message"
    return str(turn)


async def test_a_conversation_has_the_text_and_the_usage_of_direct_requests() -> None:
    async with (
        model_server("--predict", "24") as model,
        holdline(**settings_for(model)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        history: list[Message] = []
        turns = []
        for question in ("Name three colors.", "Which one is the sky?", "And the grass?"):
            events = await read(client, None, **UNCONTINUED, message=question)
            assert_equal(events, await model.ask(*history, user(question)))
            history += [user(question), assistant(events[-1].data)]
            turns.append(data_of(events, "turn"))
        again = await read(client, None, **UNCONTINUED, regenerate=turns[2]["answer"])
        assert_equal(again, await model.ask(*history[:5]))
        edit = {"message": "And the sun?", "parent": turns[0]["answer"]}
        edited = await read(client, None, **UNCONTINUED, **edit)
        assert_equal(edited, await model.ask(*history[:2], user("And the sun?")))


async def test_a_continued_answer_has_the_text_of_an_answer_without_an_output_limit() -> None:
    async with (
        model_server("--predict", "48", *EXACT) as model,
        holdline(**settings_for(model)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        events = await read(client, message=QUESTION)
        usage = data_of(events, "usage")
        assert len(usage["continued"]) >= 2
        assert {seam["why"] for seam in usage["continued"]} == {"length"}
        direct = await model.ask(user(QUESTION), max_tokens=usage["completion_tokens"])
        assert events[-1].event == "end"
        assert events[-1].data == text_of(events) == direct.text


async def test_a_full_context_ends_the_answer_and_the_next_question_fits() -> None:
    long = "The keeper wrote down the weather, the ships and the birds. " * 90
    async with (
        model_server("--ctx-size", "2048", "--ignore-eos") as model,
        holdline(**settings_for(model)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        events = await read(client, message=long)
        assert events[-1].event == "end", events[-1].data
        assert events[-1].data == text_of(events) != ""
        usage = data_of(events, "usage")
        assert usage["finish_reason"] == "length"
        assert usage["prompt_tokens"] + usage["completion_tokens"] >= 2000
        async with asking(client, message="What did the keeper write down?") as source:
            await read_deltas(source.aiter_sse(), 1)


async def test_an_answer_has_the_same_text_after_its_worker_was_killed() -> None:
    async with (
        model_server(*EXACT) as model,
        holdline(**settings_for(model, WORKERS="2", LEASE_S="0.5")) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        async with asking(client, message=QUESTION) as source:
            turn = await read_deltas(source.aiter_sse(), 5)
            os.kill(find_worker_of(source.response), signal.SIGKILL)
        await assert_interrupted_and_equal(await read(client, turn=turn), model, "interrupted")


async def test_an_answer_has_the_same_text_after_the_server_was_killed() -> None:
    async with model_server(*EXACT) as model, private_folder() as home:
        server = await start(home, **settings_for(model))
        async with httpx.AsyncClient(base_url=server.url, timeout=300) as client:
            async with asking(client, message=QUESTION) as source:
                events = source.aiter_sse()
                turn = await read_deltas(events, 5)
                await server.stop(signal.SIGKILL)
                with pytest.raises(httpx.HTTPError):
                    [event async for event in events]
            server = await start(home, **settings_for(model))
            client.base_url = httpx.URL(server.url)
            await assert_interrupted_and_equal(await read(client, turn=turn), model, "interrupted")
        await server.stop()


async def test_an_answer_has_the_same_text_after_the_model_server_was_killed() -> None:
    async with (
        model_server(*EXACT) as model,
        holdline(**settings_for(model)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        async with asking(client, message=QUESTION) as source:
            turn = await read_deltas(source.aiter_sse(), 5)
            await model.kill()
            await model.start()
        await assert_interrupted_and_equal(await read(client, turn=turn), model, "connection_lost")


async def test_a_stop_ends_the_generation() -> None:
    async with (
        model_server("--ignore-eos", "--ctx-size", "8192") as model,
        holdline(**settings_for(model)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=300) as client,
    ):
        async with asking(client, message=STORY) as source:
            events = source.aiter_sse()
            turn = await read_deltas(events, 3)
            assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
            await model.wait_until_idle(STOP_TIMEOUT_S)
            rest = [event async for event in events]
        assert rest[-1].event == "end"
        assert data_of(rest, "usage")["finish_reason"] == "stopped"


async def assert_interrupted_and_equal(
    events: list[ServerSentEvent], model: ModelServer, why: str
) -> None:
    """Assert that an answer to QUESTION has one seam, and the text of a direct answer.

    Requests while the model loads may add further reasons at the same place.
    """
    direct = await model.ask(user(QUESTION))
    assert events[-1].event == "end", events[-1].data
    assert events[-1].data == text_of(events) == direct.text
    usage = data_of(events, "usage")
    assert usage["continued"][0]["why"] == why
    (at,) = {seam["at"] for seam in usage["continued"]}
    assert 0 < at < len(direct.text)
    assert usage["finish_reason"] == direct.finish_reason


def find_worker_of(response: httpx.Response) -> int:
    """Return the id of the worker that sends this response, and so generates its answer."""
    stream = response.extensions["network_stream"]
    client, server = (stream.get_extra_info(name)[1] for name in ("client_addr", "server_addr"))
    return find_worker((server, client))
