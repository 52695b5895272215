"""Requests and answers of /v1 are checked like questions and answers of the web UI."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fake_moderation import FLAGGED
from tests.fake_upstream import ScriptedUpstream

PATH = "/v1/chat/completions"


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "system", "content": FLAGGED}, {"role": "user", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": FLAGGED}]}]},
        {"messages": [{"role": "user", "content": "hi", "name": FLAGGED}]},
        {"messages": [{"role": "assistant", "refusal": FLAGGED}, {"role": "user", "content": "x"}]},
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "a", "function": {"name": "f", "arguments": FLAGGED}}]}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": FLAGGED}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {FLAGGED: {}}}}]},
        {"prediction": {"content": FLAGGED}},
        {"unknown": [{"deep": [FLAGGED]}]},
        {"unknown": f"data:;base64,not base64 but {FLAGGED}"},
        {"unknown": f"data:{FLAGGED} x;base64," + "A" * 3000},
        {"messages": [{"role": "user", "content": f"how_to_{FLAGGED}_" + "A" * 3000}]},
        {"tools": [{"image_url": {"url": f"how_to_{FLAGGED}_" + "A" * 3000}}]},
    ],
)  # fmt: skip
async def test_a_flagged_string_anywhere_in_a_request_never_goes_upstream(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, fields: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": question}], "seed": 1, **fields}
    before = len(upstream.exchanges)
    response = await client.post(PATH, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "moderated"
    assert len(upstream.exchanges) == before


@pytest.mark.parametrize("stream", [True, False])
async def test_flagged_text_and_tool_calls_of_an_answer_are_not_sent(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, stream: bool
) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": FLAGGED}}
    responses: list[list[dict[str, Any]]] = [
        [{"content": "Fine so far. "}, {"content": f"Then {FLAGGED}."}],
        [{"refusal": f"No {FLAGGED}."}],
        [{"tool_calls": [call]}],
    ]
    for number, deltas in enumerate(responses, 1):
        body = {"messages": [{"role": "user", "content": question}], "stream": stream, "tools": []}
        sending = asyncio.create_task(client.post(PATH, json=body))
        exchange = await upstream.exchange(question, number)
        for delta in deltas:
            await exchange.chunk(delta)
        await exchange.finish()
        text = (await sending).text
        assert FLAGGED not in text
        assert "content_filter" in text or "moderated" in text


async def test_scores_that_contain_unchecked_text_are_left_out(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    body = {"messages": [{"role": "user", "content": question}], "logprobs": True}
    sending = asyncio.create_task(client.post(PATH, json=body))
    exchange = await upstream.exchange(question)
    choice = {"delta": {"content": "Fine."}, "logprobs": {"content": [{"token": FLAGGED}]}}
    await exchange.raw(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
    await exchange.finish()
    response = await sending
    assert response.json()["choices"][0]["message"]["content"] == "Fine."
    assert FLAGGED not in response.text
