"""An upgrade from version 0.1: its conversations open, and its running turns are finished.

tests/data/version_0_1.json holds every key that two servers of commit 5b762fc had written to a
Redis that they shared. One server had been killed during an answer, which had a seam already. The
other had been stopped by SIGTERM during another answer, and had released its lease. The log of a
finished turn had been deleted, as if it had expired. A Redis outage had ended an answer; since then
its turn `failed-store-turn` was in the index of running turns, although it was finished.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from httpx_sse import ServerSentEvent

from chat.log import legacy
from chat.log.log import MAX_LOG_BYTES
from chat.log.records import Kind
from sessions.client.connection import Client, connect
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S, holdline
from tests.streams import read, text_of

PARKED, KILLED = "parked-on-sigterm-turn", "running-killed-turn"
KEPT, EXPIRED = "finished-log-kept-turn", "finished-expired-turn"
PARTIAL = {PARKED: "In the Alps,\n近莱茵河源, ", KILLED: "The Baltic Sea is brackish,\nand "}
REST = {PARKED: ("near the\n", "Oberalp Pass."), KILLED: ("shallow", ", 55 m on average.")}
WHOLE = {turn: text + "".join(REST[turn]) for turn, text in PARTIAL.items()}
LIFETIME_S = {"session": 7_776_000, "history": 34_560_000, "log": 3600}


@dataclass
class Recording:
    """The keys of version 0.1, in a Redis that no other test uses."""

    redis: Client
    cookie: str
    values: dict[str, Any]
    """A dict for a hash or a sorted set, a list for a set; a log is a list of its frames."""

    @property
    def owner(self) -> str:
        """Return the text before the names of the owner's keys."""
        return next(key for key in self.values if "{" in key).partition("}")[0] + "}:"

    @property
    def conversations(self) -> dict[str, str]:
        """Return the ids of the conversations by their titles."""
        prefix = f"{self.owner}conversation:"
        return {
            value["title"]: key.removeprefix(prefix)
            for key, value in self.values.items()
            if key.startswith(prefix)
        }

    def frames(self, turn: str) -> list[bytes]:
        """Return the frames of a recorded log."""
        return [frame.encode() for frame in self.values[f"{self.owner}log:{turn}"]]

    def ids(self, turn: str) -> list[str]:
        """Return the id of each frame of a recorded log."""
        return [f"{turn}.{end}" for end in accumulate(map(len, self.frames(turn)))]

    def messages(self, title: str) -> dict[str, dict[str, Any]]:
        """Return the stored messages of a conversation by their ids, with the parent of each."""
        stored = self.values[f"{self.owner}messages:{self.conversations[title]}"]
        found = {}
        for message, entry in stored.items():
            if not message.startswith(">"):
                parent, _, body = entry.partition("\n")
                found[message] = {"id": message, "parent": parent or None, **json.loads(body)}
        return found

    def children(self, title: str, parent: str | None) -> list[str]:
        """Return the ids of a message's children in the order of their creation."""
        stored = self.values[f"{self.owner}messages:{self.conversations[title]}"]
        children: str = stored[f">{parent or ''}"]
        return children.split()

    def branch(self, title: str, last: str) -> list[dict[str, Any]]:
        """Return the stored messages up to the message `last`."""
        messages, found = self.messages(title), []
        message: str | None = last
        while message:
            found.append(messages[message])
            message = found[-1]["parent"]
        return found[::-1]

    async def left(self) -> list[str]:
        """Return the names of the owner's keys that Redis has now."""
        return sorted([key.decode() async for key in self.redis.scan_iter(f"{self.owner}*")])

    async def log(self, turn: str) -> bytes:
        """Return a log that Redis has now."""
        return await self.redis.get(f"{self.owner}log:{turn}") or b""


async def load(redis: Client, entry: dict[str, Any]) -> None:
    """Write a recorded key; leases have expired, and a session has just been created."""
    key, kind, ttl, value = entry["key"], entry["type"], entry["ttl"], entry["value"]
    if kind == "hash":
        if int(value.get("lease", 0)):
            value = {**value, "lease": time.time_ns() // 1_000_000 - 1000}
        await redis.hset(key, mapping=value)
    elif kind == "set":
        await redis.sadd(key, *value)
    elif kind == "zset":
        if key == "holdline:running":
            value = dict.fromkeys(value, time.time_ns() // 1_000_000 - 1000)
        await redis.zadd(key, value)
    else:
        if ttl == "session":
            value = json.dumps({**json.loads(value), "created": int(time.time())})
        await redis.set(key, "".join(value))
    if ttl in LIFETIME_S:
        await redis.expire(key, LIFETIME_S[ttl])


@pytest_asyncio.fixture
async def recording(lone_redis_url: str) -> AsyncIterator[Recording]:
    """Yield the data of version 0.1 in a Redis without a server."""
    stored = json.loads((Path(__file__).parent / "data" / "version_0_1.json").read_text())
    redis = connect(lone_redis_url)
    for entry in stored["keys"]:
        await load(redis, entry)
    yield Recording(
        redis, stored["cookie"], {entry["key"]: entry["value"] for entry in stored["keys"]}
    )
    for key in [key async for key in redis.scan_iter("holdline:*")]:
        await redis.delete(key)
    await redis.aclose()


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Yield a fake upstream that receives the requests of one test only."""
    upstream = ScriptedUpstream()
    upstream.base_url = await upstream.start()
    yield upstream
    await upstream.stop()


@asynccontextmanager
async def upgraded(
    recording: Recording, redis_url: str, upstream: ScriptedUpstream
) -> AsyncIterator[httpx.AsyncClient]:
    """Start a server of this version; yield a client with the cookie that version 0.1 set."""
    async with (
        holdline(
            REDIS_URL=redis_url,
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
            RATE_LIMIT="off",
        ) as server,
        httpx.AsyncClient(
            base_url=server.url, timeout=PATIENCE_S, cookies={"holdline": recording.cookie}
        ) as client,
    ):
        yield client


@pytest_asyncio.fixture
async def client(
    recording: Recording, lone_redis_url: str, upstream: ScriptedUpstream
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a server that has started on the data."""
    async with upgraded(recording, lone_redis_url, upstream) as client:
        yield client


@pytest_asyncio.fixture
async def other_client(
    client: httpx.AsyncClient, recording: Recording, lone_redis_url: str, upstream: ScriptedUpstream
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a second server, which follows the turns that the first continues."""
    async with upgraded(recording, lone_redis_url, upstream) as other_client:
        yield other_client


async def finish(upstream: ScriptedUpstream, turn: str) -> Exchange:
    """Send the rest of an interrupted answer as the upstream; return the request."""
    exchange = await upstream.continued(PARTIAL[turn])
    await exchange.answer(*REST[turn])
    return exchange


async def until_finished(recording: Recording, turn: str, client: httpx.AsyncClient) -> None:
    """Return when a turn has ended and the index of running turns is empty."""
    await read(client, turn=turn)
    async with asyncio.timeout(PATIENCE_S):
        while await recording.redis.zcard("holdline:running"):
            await asyncio.sleep(0.02)


async def status_after(client: httpx.AsyncClient, last: str) -> int:
    """Return the status of a reconnect after the frame `last`, which is a turn's last one."""
    headers = {"Last-Event-ID": last}
    return (await client.get("/api/chat_stream/", headers=headers)).status_code


def shown(events: list[ServerSentEvent]) -> list[tuple[str, str, str]]:
    """Return the frames of a stream without its heartbeats."""
    return [
        (event.event, event.data, event.id)
        for event in events
        if event.event != "message" or event.data
    ]


async def test_every_conversation_and_message_of_0_1_opens(
    client: httpx.AsyncClient, recording: Recording
) -> None:
    listed = (await client.get("/api/conversations/")).json()["conversations"]
    assert {one["title"]: one["id"] for one in listed} == recording.conversations
    for title, conversation in recording.conversations.items():
        path = f"/api/conversations/{conversation}"
        opened = (await client.get(path)).json()
        head = recording.values[f"{recording.owner}conversation:{conversation}"]["head"]
        for message in opened["messages"]:
            message.pop("alternatives", None)
        assert opened["messages"] == recording.branch(title, head)
        exported = (await client.get(f"{path}/export", params={"format": "json"})).json()
        assert exported["messages"] == opened["messages"]

    branches = f"/api/conversations/{recording.conversations['Branches']}"
    messages = recording.messages("Branches")
    leaves = set(messages) - {message["parent"] for message in messages.values()}
    assert len(leaves) == 3
    for leaf in leaves:
        assert (await client.patch(branches, json={"branch": leaf})).status_code == 200
        found = (await client.get(branches)).json()["messages"]
        alternatives = [message.pop("alternatives", [message["id"]]) for message in found]
        assert alternatives == [
            recording.children("Branches", message["parent"]) for message in found
        ]
        assert found == recording.branch("Branches", leaf)


@pytest.mark.parametrize(
    ("name", "other_name", "scheme"),
    [("holdline", "__Host-holdline", "http"), ("__Host-holdline", "holdline", "https")],
)
async def test_the_cookie_of_0_1_is_kept_until_its_session_expires(
    client: httpx.AsyncClient, recording: Recording, name: str, other_name: str, scheme: str
) -> None:
    client.cookies.clear()
    headers = {"X-Forwarded-Proto": scheme, "Cookie": f"a=b; {name}={recording.cookie}"}
    for _ in range(2):
        listed = await client.get("/api/conversations/", headers=headers)
        assert {one["id"] for one in listed.json()["conversations"]} == set(
            recording.conversations.values()
        )
        assert "set-cookie" not in (await client.get("/", headers=headers)).headers
        created = await client.post("/api/conversations/", json={}, headers=headers)
        assert "set-cookie" not in created.headers
        recording.values[f"{recording.owner}conversation:{created.json()['id']}"] = {
            "title": created.json()["id"]
        }

    for other in (f"{other_name}={recording.cookie}", f"{name}={recording.cookie}x"):
        sent = {**headers, "Cookie": other}
        assert (await client.get("/api/conversations/", headers=sent)).json()["conversations"] == []
    new = (await client.get("/", headers={"X-Forwarded-Proto": scheme})).headers["set-cookie"]
    session_id = new.partition("=")[2].partition(".")[0]
    sent = {**headers, "Cookie": f"{name}={session_id}"}  # without its signature
    assert "set-cookie" in (await client.post("/api/conversations/", json={}, headers=sent)).headers

    (session,) = [key for key in recording.values if key.startswith("holdline:session:")]
    begun = int(time.time()) - LIFETIME_S["history"] - 1
    await recording.redis.set(
        session, json.dumps({**json.loads("".join(recording.values[session])), "created": begun})
    )
    listed = await client.get("/api/conversations/", headers=headers)
    assert listed.json()["conversations"] == []
    assert "set-cookie" in (await client.get("/", headers=headers)).headers


async def test_reasons_of_seams_and_types_of_failures_of_0_1_are_returned_as_stored(
    client: httpx.AsyncClient, recording: Recording
) -> None:
    conversation = recording.conversations["Finished"]
    messages = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    reasons = [seam["why"] for message in messages for seam in message.get("continued", ())]
    assert reasons == ["broke_off", "broke_off"]
    for kind in ("nonsense", "store"):
        events = await read(client, turn=f"failed-{kind}-turn")
        assert events[-1].event == "failed"
        assert json.loads(events[-1].data)["type"] == kind


async def test_viewers_of_0_1_receive_the_rest_without_a_gap_or_a_repetition(
    client: httpx.AsyncClient,
    other_client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    recording: Recording,
) -> None:
    clients = (client, other_client)
    views = {
        (one, turn, last): asyncio.create_task(read(one, {"Last-Event-ID": last}, turn=turn))
        for one in clients
        for turn in PARTIAL
        for last in recording.ids(turn)
    }
    new_views = {
        (one, turn): asyncio.create_task(read(one, turn=turn))
        for one in clients
        for turn in PARTIAL
    }
    for turn in PARTIAL:
        exchange = await finish(upstream, turn)
        assert {"role": "assistant", "content": PARTIAL[turn]} in exchange.messages
    whole: dict[str, list[tuple[str, str, str]]] = {}
    for (_, turn), view in new_views.items():
        frames = shown(await view)
        assert frames == whole.setdefault(turn, frames)

    for turn, frames in whole.items():
        ids = recording.ids(turn)
        assert [last for _, _, last in frames[: len(ids)]] == ids
        names = {name: None for name, _, _ in frames[len(ids) :]}  # deltas may share a frame
        assert list(names) == ["continued", "message", "usage", "end"]
        assert json.loads(frames[len(ids)][1])["why"] == "interrupted"
        text = "".join(data for name, data, _ in frames if name == "message")
        assert text == frames[-1][1] == WHOLE[turn]
    for (_, turn, last), view in views.items():
        assert shown(await view) == whole[turn][recording.ids(turn).index(last) + 1 :]
    for one in clients:
        for frames in whole.values():
            for at, (_, _, last) in enumerate(frames[:-1], 1):
                assert shown(await read(one, {"Last-Event-ID": last})) == frames[at:]
            assert await status_after(one, frames[-1][2]) == 204
    assert len(upstream.exchanges) == 2


async def test_an_interrupted_turn_of_0_1_is_finished_under_its_old_key(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, recording: Recording
) -> None:
    for turn in PARTIAL:
        await finish(upstream, turn)
    for turn in PARTIAL:
        await until_finished(recording, turn, client)
        log = await recording.log(turn)
        assert log.startswith(b"".join(recording.frames(turn)))
        assert log.endswith(b"\ndata: ".join(WHOLE[turn].encode().split(b"\n")) + b"\n\n")
        assert 0 < await recording.redis.ttl(f"{recording.owner}log:{turn}") <= LIFETIME_S["log"]
        stored = await recording.redis.hgetall(f"{recording.owner}turn:{turn}")
        assert (stored[b"state"], int(stored[b"length"])) == (b"done", len(log))
    assert [key for key in await recording.left() if ":records:" in key] == []
    assert await recording.redis.zcard("holdline:running:2") == 0

    opened = [
        (await client.get(f"/api/conversations/{recording.conversations[title]}")).json()
        for title in ("Parked", "Running")
    ]
    assert [one["running"] for one in opened] == [None, None]
    parked, killed = [one["messages"][-1] for one in opened]
    assert parked["content"] == WHOLE[PARKED]
    assert killed["content"] == WHOLE[KILLED]
    assert killed["reasoning"] == "One that is almost enclosed."
    assert [seam["why"] for seam in parked["continued"]] == ["interrupted"]
    assert [seam["why"] for seam in killed["continued"]] == ["broke_off", "interrupted"]


async def test_a_log_of_0_1_that_is_longer_than_records_may_be_is_continued(
    recording: Recording, lone_redis_url: str, upstream: ScriptedUpstream
) -> None:
    begin, frames = len(await recording.log(PARKED)), bytearray()
    while len(frames) <= MAX_LOG_BYTES:
        frames += legacy.encode(PARKED, begin + len(frames), Kind.REASONING, "hm")
    await recording.redis.append(f"{recording.owner}log:{PARKED}", bytes(frames))
    async with upgraded(recording, lone_redis_url, upstream) as client:
        viewing = asyncio.create_task(read(client, {"Last-Event-ID": f"{PARKED}.{begin}"}))
        await finish(upstream, PARKED)
        events = await viewing
    assert (events[-1].event, events[-1].data) == ("end", WHOLE[PARKED])
    assert text_of(events) == "".join(REST[PARKED])


async def test_a_finished_turn_of_0_1_is_replayed_from_every_frame_of_its_log(
    client: httpx.AsyncClient, recording: Recording
) -> None:
    for turn in (KEPT, "branches-again-turn", "failed-nonsense-turn", "failed-store-turn"):
        ids = recording.ids(turn)
        whole = await read(client, turn=turn)
        assert [event.id for event in whole] == ids
        for at, last in enumerate(ids[:-1], 1):
            assert shown(await read(client, {"Last-Event-ID": last})) == shown(whole)[at:]
        assert await status_after(client, ids[-1]) == 204
        inside = await read(client, {"Last-Event-ID": f"{turn}.20"})
        assert inside[0].event == "restart"
        assert shown(inside)[1:] == shown(whole)
    assert text_of(await read(client, turn=KEPT)) == "Lake Baikal\nis the deepest, with 1,642 m."


async def test_a_turn_of_0_1_whose_log_has_expired_is_replayed_from_the_history(
    client: httpx.AsyncClient, recording: Recording
) -> None:
    length = recording.values[f"{recording.owner}turn:{EXPIRED}"]["length"]
    for headers in ({}, {"Last-Event-ID": f"{EXPIRED}.100"}):
        events = await read(client, headers, turn=EXPIRED)
        assert [event.event for event in events] == [
            "restart", "turn", "reasoning", "message", "continued", "usage", "end",
        ]  # fmt: skip
        assert text_of(events) == events[-1].data == "Mount Everest, 8,849 m high."
        assert json.loads(events[4].data) == {"at": 15, "why": "broke_off"}
        assert events[-1].id == f"{EXPIRED}.{length}"
    assert await status_after(client, f"{EXPIRED}.{length}") == 204


async def test_a_stop_of_a_running_turn_of_0_1_keeps_its_partial_answer(
    client: httpx.AsyncClient, recording: Recording
) -> None:
    for turn in PARTIAL:
        viewing = asyncio.create_task(read(client, {"Last-Event-ID": recording.ids(turn)[2]}))
        assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
        events = await viewing
        assert (events[-1].event, events[-1].data) == ("end", PARTIAL[turn])
        assert json.loads(events[-2].data)["finish_reason"] == "stopped"
        assert (await recording.log(turn)).startswith(b"".join(recording.frames(turn)))
    assert [key for key in await recording.left() if ":records:" in key] == []


async def test_a_deletion_of_conversations_of_0_1_leaves_no_key(
    client: httpx.AsyncClient, recording: Recording
) -> None:
    for conversation in recording.conversations.values():
        deleted = await client.delete(f"/api/conversations/{conversation}")
        assert deleted.status_code == 204
    left = [key for key in await recording.left() if not key.endswith(":events")]
    assert [key for key in left if ":current:" not in key] == []
    async with asyncio.timeout(PATIENCE_S):
        while await recording.redis.exists("holdline:running"):
            await asyncio.sleep(0.02)


async def test_the_first_question_counts_every_conversation_of_0_1(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, recording: Recording
) -> None:
    question = "How much is there?"
    conversation = recording.conversations["Finished"]
    reading = asyncio.create_task(read(client, message=question, conversation=conversation))
    await (await upstream.exchange(question)).answer("That much.")
    await reading
    usage = await recording.redis.hgetall(f"{recording.owner}usage")
    sizes = {name.decode(): int(size) for name, size in usage.items()}
    total = sizes.pop("*")
    assert set(sizes) == set(recording.conversations.values())
    assert sum(sizes.values()) == total
    for found in sizes:
        stored = recording.values[f"{recording.owner}messages:{found}"]
        assert sum(map(len, stored.values())) < sizes[found] < 100_000


async def test_a_new_question_in_a_conversation_of_0_1_has_a_log_of_records(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, recording: Recording
) -> None:
    # The running turns of the last two are stopped by the question.
    for title, partial in (
        ("Finished", None),
        ("Branches", None),
        ("Parked", PARTIAL[PARKED]),
        ("Running", PARTIAL[KILLED]),
    ):
        conversation = recording.conversations[title]
        head = recording.values[f"{recording.owner}conversation:{conversation}"]["head"]
        earlier = [message["content"] for message in recording.branch(title, head)]
        turn, question = f"new-{title}-question", f"And after {title}?"
        reading = asyncio.create_task(
            read(client, message=question, conversation=conversation, turn=turn)
        )
        exchange = await upstream.exchange(question)
        sent = [message["content"] for message in exchange.messages]
        assert sent == [*earlier, *([partial] if partial else []), question]
        await exchange.answer("Next.")
        assert text_of(await reading) == "Next."
        left = await recording.left()
        assert f"{recording.owner}records:{turn}" in left
        assert f"{recording.owner}log:{turn}" not in left
        assert await recording.redis.hget(f"{recording.owner}turn:{turn}", "records") == b"1"
