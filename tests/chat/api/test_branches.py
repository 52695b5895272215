"""Edited questions and regenerated answers: a tree of messages, one branch of which is current."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.streams import ask, read


async def read_conversation(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the session's only conversation, with the messages of its current branch."""
    (listed,) = (await client.get("/api/conversations/")).json()["conversations"]
    found: dict[str, Any] = (await client.get(f"/api/conversations/{listed['id']}")).json()
    return found


def contents(conversation: dict[str, Any]) -> list[str]:
    """Return the texts of the messages."""
    return [message["content"] for message in conversation["messages"]]


async def show_branch(
    client: httpx.AsyncClient, conversation: dict[str, Any], message: str
) -> httpx.Response:
    """Make a branch with this message the current one."""
    return await client.patch(f"/api/conversations/{conversation['id']}", json={"branch": message})


async def regenerate(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, message: str, *texts: str
) -> list[Any]:
    """Request another answer, send it as the upstream, and return every event of the stream."""
    number = len(upstream.find_requests(question)) + 1
    reading = asyncio.create_task(read(client, regenerate=message))
    await (await upstream.exchange(question, number)).answer(*texts)
    return await reading


async def test_an_edited_question_begins_a_new_branch_and_keeps_the_old_one(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, f"1 {question}", "one")
    await ask(client, upstream, f"2 {question}", "two")
    before = (await read_conversation(client))["messages"]
    assert [message["parent"] for message in before] == [None, *[m["id"] for m in before[:-1]]]
    assert all("alternatives" not in message for message in before)

    await ask(client, upstream, f"2b {question}", "two b", parent=before[2]["parent"])
    sent = upstream.find_requests(f"2b {question}")[0].messages
    assert [m["content"] for m in sent] == [f"1 {question}", "one", f"2b {question}"]
    after = await read_conversation(client)
    assert contents(after) == [f"1 {question}", "one", f"2b {question}", "two b"]
    edited = after["messages"][2]
    assert edited["alternatives"] == [before[2]["id"], edited["id"]]

    assert (await show_branch(client, after, before[2]["id"])).status_code == 200
    assert contents(await read_conversation(client)) == [
        f"1 {question}",
        "one",
        f"2 {question}",
        "two",
    ]
    await ask(client, upstream, f"3 {question}", "three")
    assert contents(await read_conversation(client))[2:] == [
        f"2 {question}",
        "two",
        f"3 {question}",
        "three",
    ]
    await show_branch(client, after, edited["id"])
    await show_branch(client, after, before[2]["id"])
    assert contents(await read_conversation(client))[-1] == "three", (
        "the branch is shown up to its newest message"
    )


async def test_the_first_question_of_a_conversation_can_be_edited(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, f"a {question}", "of a")
    await ask(client, upstream, f"b {question}", "of b", parent="")
    found = await read_conversation(client)
    assert contents(found) == [f"b {question}", "of b"]
    assert len(found["messages"][0]["alternatives"]) == 2
    assert len(upstream.find_requests(f"b {question}")[0].messages) == 1


async def test_a_regenerated_answer_is_an_alternative_to_the_old_one(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "first")
    first = (await read_conversation(client))["messages"][1]
    await ask(client, upstream, f"{question} later", "later")
    events = await regenerate(client, upstream, question, first["id"], "second")
    assert events[-1].data == "second"
    begun = json.loads(events[0].data)
    assert upstream.find_requests(question)[-1].messages == [{"role": "user", "content": question}]
    found = await read_conversation(client)
    assert contents(found) == [question, "second"]
    assert found["messages"][0]["id"] == begun["message"]
    assert found["messages"][1]["id"] == begun["answer"]
    assert found["messages"][1]["alternatives"] == [first["id"], begun["answer"]]
    await regenerate(client, upstream, question, begun["message"], "third")  # by the question's id
    found = await read_conversation(client)
    assert (contents(found), len(found["messages"][1]["alternatives"])) == ([question, "third"], 3)
    await show_branch(client, found, first["id"])
    assert contents(await read_conversation(client)) == [
        question,
        "first",
        f"{question} later",
        "later",
    ]


@pytest.mark.parametrize("ending", ["failed", "stopped", "empty", "blank"])
async def test_a_regeneration_without_text_restores_the_previous_branch(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, ending: str
) -> None:
    await ask(client, upstream, question, "first")
    await ask(client, upstream, f"{question} later", "later")
    before = await read_conversation(client)
    turn = "t" + question[-32:]
    question_id = before["messages"][0]["id"]
    reading = asyncio.create_task(read(client, regenerate=question_id, turn=turn))
    exchange = await upstream.exchange(question, 2)
    if ending == "failed":
        exchange.reply(400, {"error": {"message": "no"}})
    elif ending == "stopped":
        assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
    else:
        await exchange.answer("\n\n" if ending == "blank" else "")
    assert (await reading)[-1].event == ("failed" if ending == "failed" else "end")
    after = await read_conversation(client)
    assert contents(after) == contents(before)
    assert after["running"] is None


async def test_repeated_requests_for_a_running_regeneration_attach_to_it(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "first")
    question_id = (await read_conversation(client))["messages"][0]["id"]
    readings = [asyncio.create_task(read(client, regenerate=question_id)) for _ in range(5)]
    exchange = await upstream.exchange(question, 2)
    await exchange.send_text("sec")
    conversation = await read_conversation(client)
    rejected = await show_branch(client, conversation, question_id)
    assert (rejected.status_code, rejected.json()["error"]["type"]) == (409, "conflict")
    await exchange.answer("ond")
    assert [events[-1].data for events in await asyncio.gather(*readings)] == ["second"] * 5
    assert len(upstream.find_requests(question)) == 2


async def test_invalid_branch_requests_are_rejected_and_change_nothing(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "answer")
    found = await read_conversation(client)
    message, answer = (one["id"] for one in found["messages"])
    for status, query in (
        (404, {"message": "m", "parent": "unknown"}),
        (404, {"message": "m", "parent": f">{message}"}),
        (404, {"regenerate": "unknown"}),
        (404, {"regenerate": answer, "conversation": "another"}),
        (404, {"message": "m", "parent": "", "conversation": "another"}),
        (400, {"regenerate": answer, "message": "m"}),
        (400, {"regenerate": answer, "parent": message}),
    ):
        assert (await client.get("/api/chat_stream/", params=query)).status_code == status, query
    for branch in ("unknown", f">{message}", ">", ""):
        assert (await show_branch(client, found, branch)).status_code == 404
    assert await read_conversation(client) == found
