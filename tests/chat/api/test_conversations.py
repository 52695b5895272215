"""The JSON API of conversations."""

import json
from typing import Any

import httpx
import pytest

from sessions.client.connection import Client
from sessions.keys import ConversationId
from tests.chat.turns.test_prompt_cost import lengthen, owner_of
from tests.fake_upstream import ScriptedUpstream
from tests.streams import ask

LIST = "/api/conversations/"


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Create a conversation and return it."""
    response = await client.post(LIST, json=fields)
    assert response.status_code == 201
    found: dict[str, Any] = response.json()
    return found


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the type of an error response with a message."""
    error = response.json()["error"]
    assert set(error) == {"type", "message"}
    assert error["message"]
    return response.status_code, error["type"]


async def test_a_conversation_can_be_created_read_renamed_pinned_and_deleted(
    client: httpx.AsyncClient,
) -> None:
    created = await create(client)
    path = LIST + created["id"]
    assert created["title"] == ""
    assert created["running"] is None
    changed = await client.patch(
        path, json={"title": " 新名字 ", "pinned": True, "system": "Be brief."}
    )
    assert changed.status_code == 200
    found = (await client.get(path)).json()
    assert (found["title"], found["pinned"], found["system"]) == ("新名字", True, "Be brief.")
    assert found["messages"] == []
    assert (await client.delete(path)).status_code == 204
    assert error_of(await client.get(path)) == (404, "not_found")
    assert error_of(await client.delete(path)) == (404, "not_found")
    assert error_of(await client.patch(path, json={"title": "x"})) == (404, "not_found")


async def test_a_conversations_model_and_system_prompt_are_sent_upstream(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    created = await create(client, model="other-model", system="Answer in rhyme.")
    await ask(client, upstream, question, "x", conversation=created["id"])
    exchange = await upstream.exchange(question)
    assert exchange.body["model"] == "other-model"
    assert exchange.messages[0] == {"role": "system", "content": "Answer in rhyme."}
    messages = (await client.get(LIST + created["id"])).json()["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]


async def test_a_newly_created_conversation_becomes_the_current_one(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "in the first")
    created = await create(client)
    events = await ask(client, upstream, f"{question} 2", "in the second")
    assert json.loads(events[0].data)["conversation"] == created["id"]
    assert (await client.get(LIST + created["id"])).json()["title"] == f"{question} 2"


async def test_the_conversation_list_is_paged_newest_first_without_gaps_or_repeats(
    client: httpx.AsyncClient,
) -> None:
    await client.get("/")
    ids = [(await create(client, title=f"number {number}"))["id"] for number in range(25)]
    seen, cursor = [], None
    for size in (10, 10, 5):
        page = (
            await client.get(LIST, params={"limit": 10} | ({"cursor": cursor} if cursor else {}))
        ).json()
        assert len(page["conversations"]) == size
        seen += [one["id"] for one in page["conversations"]]
        cursor = page["next"]
    assert cursor is None
    assert sorted(seen) == sorted(ids)
    assert [one["updated"] for one in (await client.get(LIST)).json()["conversations"]] == sorted(
        [one["updated"] for one in (await client.get(LIST)).json()["conversations"]], reverse=True
    )


async def test_a_long_conversation_can_be_read_completely_or_in_pages_from_its_end(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    conversation = json.loads((await ask(client, upstream, question, "first"))[0].data)[
        "conversation"
    ]
    await lengthen(redis, await owner_of(redis, conversation), ConversationId(conversation), 450)
    path = LIST + conversation
    complete = (await client.get(path)).json()
    assert len(complete["messages"]) == 452
    assert not complete["earlier"]
    ids = [message["id"] for message in complete["messages"]]
    page = (await client.get(path, params={"limit": 100})).json()
    assert ([m["id"] for m in page["messages"]], page["earlier"]) == (ids[-100:], True)
    page = (await client.get(path, params={"limit": 100, "before": ids[-100]})).json()
    assert ([m["id"] for m in page["messages"]], page["earlier"]) == (ids[-200:-100], True)
    page = (await client.get(path, params={"limit": 100, "before": ids[52]})).json()
    assert ([m["id"] for m in page["messages"]], page["earlier"]) == (ids[:52], False)
    page = (await client.get(path, params={"before": ids[0]})).json()
    assert (page["messages"], page["earlier"]) == ([], False)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=201",
        "limit=٣",
        "limit=-1",
        "cursor=x",
        "cursor=.x",
        "cursor=1e5.x",
        "cursor=%ff",
    ],
)
async def test_an_invalid_list_query_is_rejected(client: httpx.AsyncClient, query: str) -> None:
    assert error_of(await client.get(f"{LIST}?{query}")) == (400, "bad_request")


async def test_an_invalid_query_for_a_page_of_messages_is_rejected(
    client: httpx.AsyncClient,
) -> None:
    path = LIST + (await create(client))["id"]
    assert error_of(await client.get(path, params={"limit": "0"})) == (400, "bad_request")
    assert error_of(await client.get(path, params={"before": "unknown"})) == (404, "not_found")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"5", b'{"title": 5}', b'{"title": ""}', b'{"title": "   "}',
        b'{"unknown": 1}', b"\xff", b'{"pinned": "yes"}',
        b'{"model": "no-such-model"}', json.dumps({"title": "x" * 121}).encode(),
        b'{"title": "\\ud80"}', b"{}" * 600_000,
    ],
)  # fmt: skip
async def test_an_invalid_patch_body_is_rejected_and_changes_nothing(
    client: httpx.AsyncClient, content: bytes
) -> None:
    path = LIST + (await create(client, title="unchanged"))["id"]
    response = await client.patch(
        path, content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (400, 413)
    assert response.json()["error"]["message"]
    assert (await client.get(path)).json()["title"] == "unchanged"


async def test_other_content_types_and_other_origins_are_rejected_and_change_nothing(
    client: httpx.AsyncClient,
) -> None:
    path = LIST + (await create(client, title="unchanged"))["id"]
    form = await client.post(LIST, content=b"title=x", headers={"Content-Type": "text/plain"})
    assert error_of(form) == (400, "bad_request")
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://elsewhere.example"}):
        assert error_of(await client.post(LIST, json={}, headers=headers)) == (403, "forbidden")
        assert error_of(await client.patch(path, json={"title": "x"}, headers=headers)) == (
            403,
            "forbidden",
        )
        assert error_of(await client.delete(path, headers=headers)) == (403, "forbidden")
    assert (await client.get(path)).json()["title"] == "unchanged"


async def test_deleting_a_conversation_stops_its_running_turn(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    created = await create(client)
    async with client.stream(
        "GET", "/api/chat_stream/", params={"message": question, "conversation": created["id"]}
    ):
        exchange = await upstream.exchange(question)
        assert (await client.get(LIST + created["id"])).json()["running"]
        assert (await client.delete(LIST + created["id"])).status_code == 204
        await exchange.closed.wait()
    assert (await client.get(LIST)).json()["conversations"] == []


async def test_unknown_paths_and_methods_are_rejected(client: httpx.AsyncClient) -> None:
    assert (await client.get("/nothing")).json()["error"]["type"] == "http"
    assert (await client.get("/nothing")).status_code == 404
    assert (await client.put(LIST)).status_code == 405
    for path in ("/js/", "/js/..%2f..%2fserver.py", "/vendor/", "/js/%2e%2e/package.json", "/%00"):
        assert (await client.get(path)).status_code == 404, path


async def test_a_script_is_served_as_utf_8_javascript(client: httpx.AsyncClient) -> None:
    headers = (await client.get("/js/app.js")).headers
    assert headers["content-type"] == "text/javascript; charset=utf-8"


async def test_info_returns_the_models_and_the_message_limit(client: httpx.AsyncClient) -> None:
    info = (await client.get("/api/info")).json()
    assert info == {
        "model": "test-model",
        "models": ["test-model", "other-model"],
        "demo": False,
        "message_max": 32_000,
    }
