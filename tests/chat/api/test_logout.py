"""Sign out, and delete all conversations."""

import asyncio

import httpx

from sessions.client.connection import Client
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server
from tests.streams import ask, read

LIST = "/api/conversations/"


async def test_all_conversations_are_deleted_and_their_answers_stopped(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    await client.get("/")
    for number in range(5):
        await client.post(LIST, json={"title": f"{question} {number}"})
    turn = "turn-" + question[-32:]
    reading = asyncio.create_task(read(client, message=question, turn=turn))
    exchange = await upstream.exchange(question)
    await exchange.send_text("before")
    (key,) = [key async for key in redis.scan_iter(f"holdline:*:turn:{turn}")]
    owner = key.decode().split("{")[1].split("}")[0]
    async with client.stream("GET", "/api/events/") as events:
        lines = events.aiter_lines()
        assert (await client.delete(LIST)).status_code == 204
        deleted = 0
        async with asyncio.timeout(PATIENCE_S):
            while deleted < 5:  # other tabs learn of each
                deleted += '"deleted"' in await anext(lines)
    assert [event.event for event in await reading][-1] == "end"
    assert (await client.get(LIST)).json()["conversations"] == []
    left = {key async for key in redis.scan_iter(f"holdline:{{{owner}}}:*")}
    names = {key.decode().split("}:")[1].partition(":")[0] for key in left}
    assert not names & {"conversation", "conversations", "messages", "turns", "turn", "records"}
    assert (await client.delete(LIST)).status_code == 204


async def test_another_session_keeps_its_conversations(
    client: httpx.AsyncClient, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "an answer")
    async with httpx.AsyncClient(base_url=server.url) as other:
        await other.post(LIST, json={})
        assert (await other.delete(LIST)).status_code == 204
        assert (await other.get(LIST)).json()["conversations"] == []
    assert len((await client.get(LIST)).json()["conversations"]) == 1


async def test_a_cookie_is_worthless_after_the_logout(
    client: httpx.AsyncClient, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "an answer")
    cookies = dict(client.cookies)
    (listed,) = (await client.get(LIST)).json()["conversations"]
    response = await client.post("/api/logout")
    assert response.status_code == 204
    assert response.headers["clear-site-data"] == '"cache", "storage"'
    async with httpx.AsyncClient(base_url=server.url, cookies=cookies) as thief:
        assert (await thief.get(LIST)).json()["conversations"] == []
        assert (await thief.get(f"{LIST}{listed['id']}")).status_code == 404
        created = await thief.post(LIST, json={})
        assert created.status_code == 201
        assert created.headers["set-cookie"]  # of another session
        assert (await thief.post("/api/logout")).status_code == 204


async def test_a_logout_without_a_session_writes_nothing(server: Server, redis: Client) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        before = {key async for key in redis.scan_iter("holdline:session:*")}
        response = await client.post("/api/logout")
        assert response.status_code == 204
        assert "set-cookie" not in response.headers
        await client.get("/")  # a signed cookie, whose session is not stored
        assert (await client.post("/api/logout")).status_code == 204
        assert {key async for key in redis.scan_iter("holdline:session:*")} == before


async def test_a_page_of_another_site_cannot_sign_a_user_out(client: httpx.AsyncClient) -> None:
    await client.post(LIST, json={})
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://other.example"}):
        assert (await client.post("/api/logout", headers=headers)).status_code == 403
        assert (await client.delete(LIST, headers=headers)).status_code == 403
    assert len((await client.get(LIST)).json()["conversations"]) == 1
