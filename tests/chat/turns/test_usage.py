"""Every answer has token counts: those that the upstream reported, or a marked estimate."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.turns.context.prompt import estimate_size, estimate_text
from chat.turns.usage import TurnUsage, fill_report, restore_usage
from chat.upstream.response.chunks import Usage
from tests.fake_upstream import ScriptedUpstream
from tests.streams import ask, asking, read

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "estimated")
TEXT = "twelve words of an answer, about as long as answers here are, 汉字"


def counts_of(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in COUNTS if name in report}


async def read_stored(client: httpx.AsyncClient, conversation: str) -> dict[str, Any]:
    """Return the counts of a conversation's last message, which its export has as well."""
    url = f"/api/conversations/{conversation}"
    usage = (await client.get(url)).json()["messages"][-1]["usage"]
    exported = (await client.get(f"{url}/export", params={"format": "json"})).json()
    assert exported["messages"][-1]["usage"] == usage
    return counts_of(usage)


@pytest.mark.parametrize("how", ["complete", "stopped", "failed"])
async def test_an_answer_without_reported_counts_has_a_marked_estimate(
    new_client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, how: str
) -> None:
    async with asking(new_client, message=question) as source:
        events = source.aiter_sse()
        turn = json.loads((await anext(events)).data)
        exchange = await upstream.exchange(question)
        await exchange.chunk({"reasoning_content": "let me think"})
        await exchange.send_text(TEXT)
        shown = ""
        while shown != TEXT:
            event = await anext(events)
            shown += event.data if event.event == "message" else ""
        if how == "complete":
            await exchange.finish()
        elif how == "failed":
            exchange.drop()
        else:
            await new_client.post(f"/api/turns/{turn['turn']}/stop")
        usage = json.loads((await anext(events)).data)
    prompt = round(estimate_size([{"role": "user", "content": question}]))
    output = round(estimate_text("let me think") + estimate_text(TEXT))
    assert counts_of(usage) == {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "estimated": True,
    }
    assert await read_stored(new_client, turn["conversation"]) == counts_of(usage)


async def test_reported_counts_are_not_marked(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "one", "two")
    usage = counts_of(json.loads(events[-2].data))
    assert usage["completion_tokens"] == 2
    assert "estimated" not in usage
    assert await read_stored(client, json.loads(events[0].data)["conversation"]) == usage


async def test_a_rejected_request_counts_no_tokens(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    (await upstream.exchange(question)).reply(400, {"error": {"message": "no"}})
    usage = counts_of(json.loads((await reading)[-2].data))
    assert usage == {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "estimated": True,
    }


async def test_a_request_that_is_stopped_before_its_response_counts_its_prompt(
    new_client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(new_client, message=question) as source:
        events = source.aiter_sse()
        turn = json.loads((await anext(events)).data)
        await upstream.exchange(question)
        await new_client.post(f"/api/turns/{turn['turn']}/stop")
        usage = counts_of(json.loads((await anext(events)).data))
    prompt = round(estimate_size([{"role": "user", "content": question}]))
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, 0)
    assert usage["estimated"] is True


@pytest.mark.parametrize(
    ("report", "filled"),
    [
        (None, TurnUsage(10, 4, 14, estimated=True)),
        (Usage(prompt_tokens=7), TurnUsage(7, 4, 11, estimated=True)),
        (Usage(completion_tokens=0), TurnUsage(10, 0, 10, estimated=True)),
        (Usage(total_tokens=20), TurnUsage(10, 4, 20, estimated=True)),
        (Usage(prompt_tokens=7, completion_tokens=2), TurnUsage(7, 2, 9)),
        (Usage(prompt_tokens=7, completion_tokens=2, total_tokens=30), TurnUsage(7, 2, 30)),
    ],
    ids=str,
)
def test_an_incomplete_report_is_completed_and_marked(
    report: Usage | None, filled: TurnUsage
) -> None:
    assert fill_report(report, 10, 4) == filled


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 99), st.integers(0, 99)), max_size=5))
def test_a_sum_is_an_estimate_if_one_part_is(parts: list[tuple[bool, int, int]]) -> None:
    total = TurnUsage(0, 0, 0)
    for estimated, prompt, completion in parts:
        total = total.add(TurnUsage(prompt, completion, prompt + completion, estimated))
    assert total.estimated is any(estimated for estimated, _, _ in parts)
    assert total.total_tokens == total.prompt_tokens + total.completion_tokens


@pytest.mark.parametrize(
    ("attempts", "restored"),
    [
        ([], None),
        ([{"number": 1, "mode": "new"}], TurnUsage(0, 50, 50, estimated=True)),
        ([{"tokens": 8, "output": 0}], TurnUsage(8, 50, 58, estimated=True)),
        (
            [
                {"tokens": 8, "output": 0},
                {
                    "tokens": 30,
                    "output": 20,
                    "usage": {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30},
                },
            ],
            TurnUsage(39, 51, 90, estimated=True),
        ),
        ([{"tokens": 8, "output": 60}], TurnUsage(8, 0, 8, estimated=True)),
    ],
    ids=["no request", "an older version", "one request", "after a reported one", "taken back"],
)
def test_a_takeover_restores_the_usage_of_earlier_requests(
    attempts: list[dict[str, Any]], restored: TurnUsage | None
) -> None:
    assert restore_usage(attempts, 50) == restored
