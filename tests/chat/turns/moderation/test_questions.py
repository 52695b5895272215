"""A question is checked before its turn begins; a flagged one never goes upstream."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.chat.turns.moderation.conftest import settings_of
from tests.fake_moderation import FAILING, FLAGGED, FakeModeration
from tests.fake_upstream import ScriptedUpstream
from tests.processes import holdline
from tests.streams import STREAM, ask, asking, read

CONVERSATIONS = "/api/conversations/"


async def reject(client: httpx.AsyncClient, **query: str) -> dict[str, Any]:
    """Send a question, and return the status and the error of its rejection."""
    response = await client.get(STREAM, params=query)
    error = response.json()["error"]
    return {"status": response.status_code, **error}


async def read_contents(client: httpx.AsyncClient, conversation: str) -> list[str]:
    found = (await client.get(CONVERSATIONS + conversation)).json()
    return [message["content"] for message in found["messages"]]


async def test_a_flagged_question_is_rejected_and_sent_upstream_with_no_later_one(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    first = await ask(client, upstream, question, "an answer")
    conversation = json.loads(first[0].data)["conversation"]
    for _ in range(2):
        error = await reject(client, message=f"{question} {FLAGGED}", turn="t" * 20)
        assert (error["status"], error["type"]) == (400, "moderated")
        assert "flagged" in error["message"]
    await ask(client, upstream, f"{question} next", "another answer")
    contents = [question, "an answer", f"{question} next", "another answer"]
    assert await read_contents(client, conversation) == contents
    sent = json.dumps([exchange.messages for exchange in upstream.exchanges])
    assert question in sent
    assert f"{question} {FLAGGED}" not in sent
    # The id of a rejected turn is free.
    reading = asyncio.create_task(read(client, message=f"{question} last", turn="t" * 20))
    await (await upstream.exchange(f"{question} last")).answer("yes")
    assert (await reading)[-1].event == "end"


async def test_a_flagged_first_question_creates_no_conversation(
    client: httpx.AsyncClient, question: str
) -> None:
    await reject(client, message=f"{question} {FLAGGED}")
    assert (await client.get(CONVERSATIONS)).json()["conversations"] == []


async def test_a_flagged_question_does_not_stop_the_running_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text("running. ")
    error = await reject(client, message=f"{question} {FLAGGED}")
    assert error["type"] == "moderated"
    await exchange.answer("on")
    assert (await reading)[-1].data == "running. on"


async def test_a_question_that_passes_stops_the_running_answer_and_is_checked_once(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    conversation = (await client.post("/api/conversations/", json={})).json()["id"]
    place = {"conversation": conversation}
    reading = asyncio.create_task(read(client, None, message=question, **place))
    exchange = await upstream.exchange(question)
    await ask(client, upstream, f"{question} other", "yes", **place)
    await exchange.closed.wait()
    assert (await reading)[-1].event == "end"
    assert moderation.find_checks(question) == [[question], [f"{question} other"]]


async def test_a_known_turn_is_not_checked_again(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    turn = "t" + question[-32:]
    async with asking(client, message=question, turn=turn) as source:
        seen = await anext(source.aiter_sse())
    async with (
        asking(client, message=question, turn=turn) as first,
        asking(client, {"Last-Event-ID": seen.id}, message=question) as second,
        asking(client, message=question) as another_tab,
    ):
        await (await upstream.exchange(question)).answer("yes")
        for source in (first, second, another_tab):
            assert [event async for event in source.aiter_sse()][-1].data == "yes"
    assert (await read(client, message=question, turn=turn))[-1].data == "yes"
    assert moderation.find_checks(question) == [[question]]


async def test_a_regenerated_question_is_checked_and_flagged_ones_are_on_no_branch(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    turn = json.loads((await ask(client, upstream, question, "one"))[0].data)
    place = {"conversation": turn["conversation"]}
    error = await reject(client, message=f"{question} {FLAGGED}", parent="", **place)
    assert error["type"] == "moderated"
    error = await reject(client, message=f"{question} {FLAGGED}", parent=turn["answer"], **place)
    assert error["type"] == "moderated"
    reading = asyncio.create_task(read(client, regenerate=turn["answer"], **place))
    await (await upstream.exchange(question, 2)).answer("two")
    assert (await reading)[-1].data == "two"
    assert moderation.find_checks(question).count([question]) == 2
    messages = (await client.get(CONVERSATIONS + turn["conversation"])).json()["messages"]
    assert [message["content"] for message in messages] == [question, "two"]
    assert "alternatives" not in messages[0]
    assert len(messages[1]["alternatives"]) == 2


async def test_the_system_prompt_of_a_conversation_is_checked_with_each_question(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    created = await client.post(CONVERSATIONS, json={"system": "Answer in verse."})
    await ask(client, upstream, question, "yes")
    assert moderation.find_checks(question) == [[question, "Answer in verse."]]
    url = CONVERSATIONS + created.json()["id"]
    await client.patch(url, json={"system": f"Answer in {FLAGGED}."})
    error = await reject(client, message=f"{question} again")
    assert error["type"] == "moderated"
    assert not upstream.find_requests(f"{question} again")


async def test_every_part_of_a_long_question_is_checked(
    client: httpx.AsyncClient, moderation: FakeModeration, question: str
) -> None:
    text = f"{'long ' * 4000}{question} {FLAGGED}"
    response = await client.post(STREAM, json={"message": text})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "moderated")
    (parts,) = moderation.find_checks(question)
    assert len(parts) > 10
    assert max(map(len, parts)) == 2000


@pytest.mark.parametrize("word", FAILING)
async def test_a_question_that_cannot_be_checked_is_rejected_with_503(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, word: str
) -> None:
    response = await client.get(STREAM, params={"message": f"{question} {word}"})
    assert response.status_code == 503
    assert response.json()["error"]["type"] == "moderation_unavailable"
    assert int(response.headers["retry-after"]) > 0
    assert (await client.get(CONVERSATIONS)).json()["conversations"] == []
    assert not upstream.find_requests(f"{question} {word}")


@pytest.mark.parametrize("word", FAILING)
async def test_a_question_that_cannot_be_checked_passes_if_moderation_fails_open(
    open_client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, word: str
) -> None:
    events = await ask(open_client, upstream, f"{question} {word}", "yes")
    assert events[-1].data == "yes"


async def test_an_endpoint_that_is_down_is_reported_once_a_minute(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"MODERATION_BASE_URL": "http://127.0.0.1:9/v1"}
    async with holdline(REDIS_URL=redis_url, **settings) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            for number in range(3):
                error = await reject(client, message=f"{question} {number}")
                assert (error["status"], error["type"]) == (503, "moderation_unavailable")
        assert server.read_log().count("checks failed") == 1
        assert question not in server.read_log()


async def test_flagged_questions_count_against_the_rate_limit(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"RATE_LIMIT": "3/hour"}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await ask(client, upstream, question, "yes")
        kinds = [
            (await reject(client, message=f"{question} {FLAGGED} {number}"))["type"]
            for number in range(4)
        ]
        assert kinds == ["moderated", "moderated", "rate_limited", "rate_limited"]
        assert len(moderation.find_checks(f"{question} {FLAGGED}")) == 2


async def test_parallel_questions_with_one_turn_id_each_count_against_the_rate_limit(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"RATE_LIMIT": "3/hour"}
    may_end = moderation.hold(question)
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await client.post(CONVERSATIONS, json={})
        parallel = [
            asyncio.create_task(reject(client, message=f"{question} {i} {FLAGGED}", turn="t" * 20))
            for i in range(8)
        ]
        await moderation.check(question, 3)
        may_end.set()
        kinds = sorted([(await one)["type"] for one in parallel])
        assert kinds == ["moderated"] * 3 + ["rate_limited"] * 5
        assert len(moderation.find_checks(question)) == 3


async def test_a_flagged_question_leaves_the_running_turn_of_its_id_its_place(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"TURNS_MAX": "1,40,400", "LEASE_S": "60"}
    flagged, turn = f"{FLAGGED} {question}", "t" + question[-32:]
    may_end = moderation.hold(flagged)
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await client.post(CONVERSATIONS, json={})
        rejected = asyncio.create_task(reject(client, message=flagged, turn=turn))
        await moderation.check(flagged)
        async with asking(client, message=question, turn=turn):
            exchange = await upstream.exchange(question)
            may_end.set()
            assert (await rejected)["type"] == "moderated"
            other = (await client.post(CONVERSATIONS, json={})).json()["id"]
            error = await reject(client, message=f"{question} other", conversation=other)
            assert error["type"] == "turns_exceeded"
            await exchange.finish()


async def test_a_flagged_question_takes_no_place_among_the_running_turns(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"TURNS_MAX": "1,40,400", "LEASE_S": "60"}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        for number in range(3):
            error = await reject(client, message=f"{question} {FLAGGED} {number}")
            assert error["type"] == "moderated"
        assert (await ask(client, upstream, question, "yes"))[-1].data == "yes"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, None),
        ({"MODERATION_API_KEY": "key-of-the-endpoint"}, "Bearer key-of-the-endpoint"),
    ],
)
async def test_the_key_of_the_model_is_sent_to_no_other_endpoint(
    redis_url: str,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
    more: dict[str, str],
    expected: str | None,
) -> None:
    settings = settings_of(upstream, moderation) | {"MODERATION_MODEL": "a-model"} | more
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        await ask(client, upstream, question, "yes")
    at = moderation.checks.index([question])
    assert moderation.keys[at] == expected
    assert moderation.bodies[at] == {"input": question, "model": "a-model"}


async def test_without_input_no_question_is_checked(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"MODERATION": "output"}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        answer = f"an answer to {question}"
        events = await ask(client, upstream, f"{question} {FLAGGED}", answer)
        assert events[-1].data == answer
        assert moderation.find_checks(question) == [[answer]]
