"""Deletion of a conversation: atomic against every step of a turn, in chunks, and complete."""

import itertools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from sessions import conversation_store, keys
from sessions.client.connection import Client
from sessions.client.scripts import call
from sessions.conversation_record import Conversation
from sessions.conversation_store import MAX_UNLINKED_TURNS, ConversationStore
from sessions.keys import ConversationId, MessageId, Owner, TurnId
from sessions.turns.turn_record import NewTurn, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.questions import question_at

CONVERSATION = ConversationId("conversation")


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.fixture
def turns(redis: Client) -> TurnStore:
    """Turns whose leases have expired as soon as they begin."""
    return TurnStore(redis, lease_s=0, ttl_s=1000)


@pytest.fixture
def store(redis: Client) -> ConversationStore:
    return ConversationStore(redis, ttl_s=1000)


@pytest.fixture
def owner() -> Owner:
    return Owner(secrets.token_urlsafe(8))


def new_turn(owner: Owner, number: int, *, may_create: bool = False) -> NewTurn:
    first = question_at(TurnRef(owner, CONVERSATION, TurnId(f"turn-0123456789-{number}")))
    return replace(
        first,
        may_create=may_create,
        digest=f"d{number}",
        question_id=MessageId(f"user-{number}"),
        answer_id=MessageId(f"answer-{number}"),
        attempt=f"attempt-{number}",
    )


async def begin_conversation(turns: TurnStore, store: ConversationStore, owner: Owner) -> Any:
    """Store a conversation with one finished turn, and return it."""
    first = new_turn(owner, 1, may_create=True)
    assert (await turns.begin(first)).outcome == "begun"
    assert await turns.finish(first.ref, 1, 8, b"end", "done", '{"role": "assistant"}')
    conversation = await store.read(owner, CONVERSATION)
    assert conversation
    return conversation


async def keys_of(redis: Client, owner: Owner) -> set[str]:
    """Return the owner's keys, without the session's current conversation and the events."""
    found = {key.decode() async for key in redis.scan_iter(f"holdline:{{{owner}}}:*", count=10_000)}
    return {key for key in found if ":current:" not in key and not key.endswith(":events")}


class Steps:
    """The steps of a turn and the deletion, each sent twice, and the expected state."""

    def __init__(self, turns: TurnStore, store: ConversationStore, conversation: Any) -> None:
        self.turns = turns
        self.store = store
        self.conversation: Conversation = conversation
        self.is_deleted = False
        self.state = "none"
        self.fence = 0
        self.turn: NewTurn

    async def begin(self) -> None:
        outcome = (await self.twice(lambda: self.turns.begin(self.turn))).outcome
        assert outcome == ("unknown" if self.is_deleted else "begun")
        if not self.is_deleted:
            self.state, self.fence = "running", 1

    async def stop(self) -> None:
        found = await self.twice(lambda: self.turns.request_stop(self.turn.ref))
        assert found == (self.state == "running")

    async def take_over(self) -> None:
        taken = await self.twice(lambda: self.turns.take_over(self.turn.ref, "another worker"))
        if self.state == "running":
            self.fence += 1
            assert taken.record.state == "running"
            assert taken.record.ref == self.turn.ref
        assert taken.fence == (self.fence if self.state == "running" else -1)

    async def finish(self) -> None:
        if self.fence:  # otherwise no worker holds the turn
            answer = '{"role": "assistant", "content": ""}'
            ref, fence = self.turn.ref, self.fence
            assert await self.twice(
                lambda: self.turns.finish(ref, fence, 8, b"end", "stopped", answer)
            )
            self.state = "finished" if self.state == "running" else self.state

    async def delete(self) -> None:
        owner = self.turn.ref.owner
        running = await self.twice(lambda: self.store.delete(owner, self.conversation))
        assert running == (self.turn.ref.turn if self.state == "running" else None)
        if running is None:
            self.is_deleted, self.state = True, "none"

    async def twice(self, step: Callable[[], Awaitable[Any]]) -> Any:
        first = await step()
        assert await step() == first
        return first


async def test_a_deletion_is_atomic_in_every_order_of_a_turns_steps(
    redis: Client, turns: TurnStore, store: ConversationStore
) -> None:
    for order in itertools.permutations(("begin", "stop", "take_over", "finish", "delete")):
        owner = Owner(secrets.token_urlsafe(8))
        steps = Steps(turns, store, await begin_conversation(turns, store, owner))
        steps.turn = new_turn(owner, 2)
        ref = steps.turn.ref
        for name in order:
            await getattr(steps, name)()
            found = await turns.read(ref, 0, 100)
            assert found.state == {"none": None, "finished": "stopped"}.get(
                steps.state, steps.state
            ), order
            assert (await store.read(owner, CONVERSATION) is None) == steps.is_deleted, order

        if steps.state == "running":
            await steps.finish()
        if not steps.is_deleted:
            branch = await store.read_branch(owner, CONVERSATION)
            assert len(branch) == (2 if steps.state == "none" else 4), order
            await steps.delete()
        assert await keys_of(redis, owner) == set(), order
        # Every step whose reply was lost is sent again, however late.
        assert (await turns.begin(steps.turn)).outcome == "unknown"
        assert not await turns.request_stop(ref)
        assert (await turns.take_over(ref, "another worker")).fence == -1
        assert await turns.commit([(ref, 1, 8, b"end")]) == [-1]
        assert await turns.renew([(ref, 1)]) == [-1]
        assert await turns.finish(ref, 2, 8, b"end", "stopped", "") in (True, False)
        assert await keys_of(redis, owner) == set(), order
        await turns.unregister(ref)


async def seed(redis: Client, owner: Owner, count: int) -> list[str]:
    """Store a conversation with this many finished turns; return the names of their keys."""
    pipeline = redis.pipeline(transaction=False)
    turn_ids = [TurnId(f"old-turn-0123456789-{number}") for number in range(count)]
    conversation = {"created": 1, "updated": 1, "title": "long"}
    for key, mapping in (
        (keys.conversation(owner, CONVERSATION), conversation),
        (keys.messages(owner, CONVERSATION), {"user-1": "\n{}"}),
    ):
        pipeline.hset(key, mapping=mapping)
        pipeline.expire(key, 1000)
    pipeline.zadd(keys.conversations(owner), {CONVERSATION: 1})
    pipeline.sadd(keys.turns(owner, CONVERSATION), *turn_ids)
    pipeline.expire(keys.turns(owner, CONVERSATION), 1000)
    for turn_id in turn_ids:
        pipeline.hset(keys.turn(owner, turn_id), mapping={"state": "done", "fence": 1})
        pipeline.expire(keys.turn(owner, turn_id), 1000)
        pipeline.set(keys.records(owner, turn_id), b"log", ex=1000)
    await pipeline.execute()
    return [name(owner, turn_id) for turn_id in turn_ids for name in (keys.turn, keys.records)]


async def count_existing(redis: Client, names: list[str]) -> int:
    script = "local n = 0 for _, k in ipairs(ARGV) do n = n + redis.call('EXISTS', k) end return n"
    return int(await redis.eval(script, 1, names[0], *names))


@pytest.fixture
def after_each_call(
    monkeypatch: pytest.MonkeyPatch,
) -> list[Callable[[], Awaitable[None]]]:
    """Functions to call after each script call of the conversation store."""
    functions: list[Callable[[], Awaitable[None]]] = []

    async def call_then(redis: Client, *arguments: Any) -> Any:
        reply = await call(redis, *arguments)
        for function in functions:
            await function()
        return reply

    monkeypatch.setattr(conversation_store, "call", call_then)
    return functions


async def test_a_conversation_of_10_000_turns_is_deleted_in_chunks(
    redis: Client, store: ConversationStore, owner: Owner, after_each_call: list[Any]
) -> None:
    names = await seed(redis, owner, 10_000)
    conversation = await store.read(owner, CONVERSATION)
    assert conversation
    left: list[int] = []

    async def count() -> None:
        left.append(await count_existing(redis, names))

    after_each_call.append(count)
    assert await store.delete(owner, conversation) is None
    assert left == list(range(20_000 - 2 * MAX_UNLINKED_TURNS, -1, -2 * MAX_UNLINKED_TURNS))
    assert await keys_of(redis, owner) == set()


async def test_a_new_conversation_with_the_same_id_survives_the_deletion_of_the_old_one(
    redis: Client,
    turns: TurnStore,
    store: ConversationStore,
    owner: Owner,
    after_each_call: list[Any],
) -> None:
    await seed(redis, owner, 2 * MAX_UNLINKED_TURNS)
    old = await store.read(owner, CONVERSATION)
    assert old
    found: list[set[str]] = []

    async def begin_again() -> None:
        after_each_call.clear()
        await begin_conversation(turns, store, owner)
        found.append(await keys_of(redis, owner))

    after_each_call.append(begin_again)
    assert await store.delete(owner, old) is None
    assert await store.delete(owner, old) is None
    assert len(found) == 1
    ref = new_turn(owner, 1).ref
    assert await keys_of(redis, owner) == {
        ref.turn_key,
        ref.log_key,
        keys.conversations(owner),
        keys.conversation(owner, CONVERSATION),
        keys.messages(owner, CONVERSATION),
        keys.turns(owner, CONVERSATION),
        keys.usage(owner),
        keys.expiries(owner),
    }
    assert [message.id for message in await store.read_branch(owner, CONVERSATION)] == [
        "answer-1",
        "user-1",
    ]


async def test_an_interrupted_deletion_leaves_only_keys_that_expire(
    redis: Client, store: ConversationStore, owner: Owner, after_each_call: list[Any]
) -> None:
    await seed(redis, owner, 2 * MAX_UNLINKED_TURNS)
    conversation = await store.read(owner, CONVERSATION)
    assert conversation

    async def crash() -> None:
        raise ConnectionError

    after_each_call.append(crash)
    with pytest.raises(ConnectionError):
        await store.delete(owner, conversation)
    after_each_call.clear()
    left = await keys_of(redis, owner)
    assert len(left) == 2 * MAX_UNLINKED_TURNS + 1
    for key in left:
        assert 0 < await redis.ttl(key) <= 1000
    assert await store.read_page(owner, 10, None) == ([], None)
    assert await store.delete(owner, conversation) is None
    assert await keys_of(redis, owner) == set()
