"""The atomic steps in Redis: each may come twice, and none gets past a fence."""

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from sessions import keys
from sessions.client.connection import Client
from sessions.keys import ConversationId, MessageId, Owner, SessionDigest, TurnId
from sessions.store import Session, Store
from sessions.turn_store import Place, Question, TurnStore
from tests.questions import question_at


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.fixture
def turns(redis: Client) -> TurnStore:
    return TurnStore(redis, lease_s=0.05, kept_s=1000, rate=(0, 1))


@pytest.fixture
def store(redis: Client) -> Store:
    return Store(redis, idle_s=1000, kept_s=1000)


@pytest.fixture
def question() -> Question:
    place = Place(
        Owner(secrets.token_urlsafe(8)), ConversationId("talk"), TurnId("turn-0123456789ab")
    )
    return question_at(place)


def another(question: Question, number: int = 2, digest: str = "d2") -> Question:
    return replace(
        question,
        place=replace(question.place, turn=TurnId(f"turn-0123456789-{number}")),
        digest=digest,
        user=MessageId(f"user-{number}"),
        answer=MessageId(f"answer-{number}"),
        attempt=f"attempt-{number}",
    )


async def state(redis: Client, owner: Owner) -> dict[str, Any]:
    """All that Redis has of an owner but for what the clock changes."""
    found: dict[str, Any] = {}
    async for key in redis.scan_iter(f"holdline:{{{owner}}}:*"):
        kind = (await redis.type(key)).decode()
        value: Any
        if kind == "hash":
            value = await redis.hgetall(key)
            value = {
                name: text
                for name, text in value.items()
                if name not in (b"lease", b"updated", b"created")
            }
        elif kind == "zset":
            value = await redis.zrange(key, 0, -1)
        elif kind == "set":
            value = await redis.smembers(key)
        else:
            value = await redis.get(key)
        found[key.decode()] = value
    return found


async def test_every_step_sent_twice_is_one_step(
    redis: Client, turns: TurnStore, question: Question
) -> None:
    place, owner = question.place, question.place.owner

    async def twice(act: Any) -> Any:
        first = await act()
        before = await state(redis, owner)
        assert await act() == first
        assert await state(redis, owner) == before
        return first

    begun = await twice(lambda: turns.begin(question))
    assert (begun.outcome, begun.user) == ("begun", "user-1")
    assert await twice(lambda: turns.commit([(place, 1, 8, b"frame")])) == [1]
    assert await twice(lambda: turns.renew([(place, 1)])) == [1]
    await expired(redis, place)
    assert await twice(lambda: turns.take_over(place, "attempt-x")) == 2
    assert await twice(lambda: turns.finish(place, 2, 13, b"last", "done", '{"role": "assistant"}'))
    assert await turns.read_log(place) == (b"<user-1>framelast", True)

    again = replace(
        another(question), message="", user=MessageId("user-1"), answer=MessageId("answer-b")
    )
    assert (await twice(lambda: turns.begin(again))).user == "user-1"
    assert await twice(lambda: turns.finish(again.place, 1, 8, b"last", "failed", ""))
    conversation = keys.conversation(owner, place.conversation)
    assert await redis.hget(conversation, "head") == b"answer-1", (
        "no answer came: the branch is as it was"
    )
    store = Store(redis, idle_s=1000, kept_s=1000)
    assert await twice(lambda: store.select(owner, place.conversation, "user-1"))


async def expired(redis: Client, place: Place) -> None:
    """Return when the turn's lease has run out by the clock of the Redis that holds it."""
    until = int(await redis.hget(place.turn_key, "lease") or 0)
    async with asyncio.timeout(30):
        while True:
            seconds, micros = await redis.eval("return redis.call('TIME')", 1, place.turn_key)
            if int(seconds) * 1000 + int(micros) // 1000 > until:
                return
            await asyncio.sleep(0.01)


async def test_what_begin_finds(turns: TurnStore, question: Question) -> None:
    assert (await turns.begin(replace(question, may_create=False))).outcome == "unknown"
    assert (await turns.begin(question)).outcome == "begun"
    assert (await turns.begin(replace(question, attempt="other"))).outcome == "known"
    assert (await turns.begin(replace(question, digest="d2"))).outcome == "conflict"
    busy = await turns.begin(another(question))
    assert (busy.outcome, busy.turn) == ("busy", question.place.turn)
    attached = await turns.begin(another(question, digest="d1"))
    assert (attached.outcome, attached.turn) == ("attach", question.place.turn)


async def test_a_question_without_an_answer_is_not_written_twice(
    turns: TurnStore, store: Store, question: Question
) -> None:
    place = question.place
    await turns.begin(question)
    await turns.finish(place, 1, 8, b"failed", "failed", "")
    again = await turns.begin(another(question, digest="d1"))
    assert (again.outcome, again.user) == ("begun", "user-1")
    again_place = another(question).place
    assert (await turns.read_log(again_place))[0] == b"<user-1>"
    await turns.finish(again_place, 1, 8, b"end", "done", '{"role": "assistant", "content": "a"}')
    branch = await store.branch(place.owner, place.conversation)
    assert [message.id for message in branch] == ["answer-2", "user-1"]
    asked_anew = await turns.begin(another(question, number=3, digest="d1"))
    assert asked_anew.user == "user-3"


async def test_turns_are_limited_in_their_window(redis: Client, question: Question) -> None:
    turns = TurnStore(redis, lease_s=1, kept_s=1000, rate=(1, 3600))
    assert (await turns.begin(question)).outcome == "begun"
    await turns.finish(question.place, 1, 8, b"end", "done", "")
    limited = await turns.begin(another(question))
    assert limited.outcome == "limited"
    assert 3500 < limited.retry_after_s <= 3600
    assert (await turns.begin(question)).outcome == "begun"  # the very attempt that began it


async def test_a_commit_is_refused_by_fence_and_gap(
    redis: Client, turns: TurnStore, question: Question
) -> None:
    place = question.place
    await turns.begin(question)
    assert await turns.commit([(place, 2, 8, b"x"), (place, 1, 9, b"x")]) == [-1, -2]
    assert await turns.commit([(place, 1, 8, b"one"), (place, 1, 8, b"two")]) == [1, -2]
    await expired(redis, place)
    assert await turns.take_over(place, "other worker") == 2
    assert await turns.commit([(place, 1, 11, b"late")]) == [-1]
    assert await turns.renew([(place, 1)]) == [-1]
    assert not await turns.finish(place, 1, 11, b"late", "done", "")
    assert await turns.read_log(place) == (b"<user-1>one", False)
    assert await turns.finish(place, 2, 11, b".", "done", "")
    assert not await turns.finish(place, 2, 11, b"!", "done", "")
    assert await turns.commit([(place, 2, 12, b"late")]) == [-1]
    assert await turns.take_over(place, "third worker") == -1


async def test_a_lease_that_holds_is_not_taken(redis: Client, question: Question) -> None:
    turns = TurnStore(redis, lease_s=1000, kept_s=1000, rate=(0, 1))
    await turns.begin(question)
    assert await turns.take_over(question.place, "other") == 0
    assert await turns.renew([(question.place, 1)]) == [1]


async def test_who_is_asked_to_stop_hears_it_with_the_next_step(
    turns: TurnStore, question: Question
) -> None:
    await turns.begin(question)
    assert await turns.ask_to_stop(question.place)
    assert await turns.renew([(question.place, 1)]) == [2]
    assert await turns.commit([(question.place, 1, 8, b"x")]) == [2]


async def test_what_does_not_run_cannot_be_stopped(
    redis: Client, turns: TurnStore, question: Question
) -> None:
    assert not await turns.ask_to_stop(question.place)
    assert await redis.exists(question.place.turn_key) == 0
    await turns.begin(question)
    await turns.finish(question.place, 1, 8, b"end", "done", "")
    assert not await turns.ask_to_stop(question.place)


async def test_of_a_group_each_turn_is_refused_or_fails_by_itself(
    redis: Client, turns: TurnStore, question: Question
) -> None:
    places = [
        replace(
            question.place,
            conversation=ConversationId(f"talk-{n}"),
            turn=TurnId(f"turn-0123456789-{n}"),
        )
        for n in range(4)
    ]
    for place in places:
        await turns.begin(replace(question, place=place, attempt=place.turn))
    await redis.delete(places[1].log_key)
    await redis.rpush(places[1].log_key, "no log")
    replies = await turns.commit(
        [(place, fence, 8, b"x") for place, fence in zip(places, (1, 1, 2, 1), strict=True)]
    )
    assert [reply if isinstance(reply, int) else type(reply) for reply in replies] == [
        1,
        ResponseError,
        -1,
        1,
    ]
    assert await turns.read_log(places[3]) == (b"<user-1>x", False)
    await redis.delete(places[1].turn_key)
    await redis.rpush(places[1].turn_key, "no turn")
    replies = await turns.renew(
        [(place, fence) for place, fence in zip(places, (1, 1, 2, 1), strict=True)]
    )
    assert [reply if isinstance(reply, int) else type(reply) for reply in replies] == [
        1,
        ResponseError,
        -1,
        1,
    ]
    # Other tests' servers take over what runs here; this one they would stumble over.
    await redis.delete(places[1].turn_key, places[1].log_key)


async def test_a_turn_of_a_deleted_conversation_does_not_bring_it_back(
    redis: Client, turns: TurnStore, store: Store, question: Question
) -> None:
    place = question.place
    await turns.begin(question)
    assert await store.delete(place.owner, place.conversation)
    assert not await turns.finish(place, 1, 8, b"end", "done", '{"role": "assistant"}')
    left = await state(redis, place.owner)
    assert set(left) == {f"holdline:{{{place.owner}}}:current:digest"}


async def test_a_branch_is_read_within_bytes_and_count(
    turns: TurnStore, store: Store, question: Question
) -> None:
    place = question.place
    for number in range(1, 6):
        asked = another(question, number=number, digest=f"d{number}")
        await turns.begin(asked)
        await turns.finish(
            asked.place, 1, 8, b"end", "done", '{"role": "assistant", "content": "a"}'
        )
    whole = await store.branch(place.owner, place.conversation)
    assert len(whole) == 10
    assert [m.id for m in await store.branch(place.owner, place.conversation, max_count=3)] == [
        "answer-5", "user-5", "answer-4",
    ]  # fmt: skip
    assert len(await store.branch(place.owner, place.conversation, max_bytes=1)) == 1
    assert 2 <= len(await store.branch(place.owner, place.conversation, max_bytes=150)) <= 4
    assert await store.branch(place.owner, place.conversation, start=MessageId("unknown")) == []


async def test_scripts_that_redis_forgot_are_loaded_again(
    redis: Client, store: Store, question: Question
) -> None:
    session = Session(SessionDigest("digest"), question.place.owner)
    await redis.script_flush()
    created = await store.create(session, title="made")
    found = await store.read(session.owner, created)
    assert found is not None
    assert found.title == "made"


async def test_the_list_of_running_turns_tells_which_are_overdue(
    redis: Client, question: Question
) -> None:
    turns = TurnStore(redis, lease_s=1000, kept_s=1000, rate=(0, 1))
    await turns.register([])  # all ended meanwhile: nothing to do, and no error
    await turns.register([question.place])
    assert question.place not in await turns.overdue()
    await turns.register([question.place], until_ms=0)
    assert question.place in await turns.overdue()
    await turns.unregister(question.place)
    assert question.place not in await turns.overdue()


@pytest.mark.parametrize(
    "member", [b"", b"one", b"a b c d", b"a b:c d", b"a  c", b"\xff\xfe x y", b"x" * 99]
)
async def test_a_malformed_running_turn_is_dropped_and_hides_no_other(
    redis: Client, turns: TurnStore, question: Question, member: bytes
) -> None:
    await redis.zadd(keys.running(), {member: 1})
    await turns.register([question.place], until_ms=2)
    assert question.place in await turns.overdue()
    assert await redis.zscore(keys.running(), member) is None
    await turns.unregister(question.place)
