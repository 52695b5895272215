"""The Lua scripts: each may be sent twice, and none ignores a fence."""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from sessions import export_slot, keys
from sessions.client import scripts
from sessions.client.connection import Client
from sessions.client.scripts import call
from sessions.conversation_store import ConversationStore
from sessions.event_store import EventId, EventRead, EventStore
from sessions.keys import ConversationId, MessageId, Owner, SessionDigest, TurnId
from sessions.limits import StorageLimits
from sessions.session_store import Session, SessionStore
from sessions.turns.turn_limits import TurnLimiter, TurnLimits
from sessions.turns.turn_record import NewTurn, TakeOver, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.processes import PATIENCE_S
from tests.questions import question_at, read_log


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.fixture
def turns(redis: Client) -> TurnStore:
    return TurnStore(redis, lease_s=0.05, ttl_s=1000)


@pytest.fixture
def store(redis: Client) -> ConversationStore:
    return ConversationStore(redis, ttl_s=1000)


@pytest.fixture
def question() -> NewTurn:
    ref = TurnRef(
        Owner(secrets.token_urlsafe(8)), ConversationId("conversation"), TurnId("turn-0123456789ab")
    )
    return question_at(ref)


def another(
    question: NewTurn, number: int = 2, digest: str = "d2", parent: str | None = None
) -> NewTurn:
    return replace(
        question,
        ref=replace(question.ref, turn=TurnId(f"turn-0123456789-{number}")),
        digest=digest,
        question_id=MessageId(f"user-{number}"),
        answer_id=MessageId(f"answer-{number}"),
        parent=parent,
        attempt=f"attempt-{number}",
    )


async def read_state(redis: Client, owner: Owner) -> dict[str, Any]:
    """Return the keys of an owner with their values, except fields that depend on the clock."""
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
        elif kind == "stream":
            value = [fields for _, fields in await redis.xrange(key)]
        elif kind == "set":
            value = await redis.smembers(key)
        else:
            value = await redis.get(key)
        found[key.decode()] = value
    return found


async def test_every_script_sent_twice_takes_effect_once(
    redis: Client, turns: TurnStore, question: NewTurn, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, owner = question.ref, question.ref.owner
    sent: set[str] = set()
    send = scripts._send

    async def record(redis: Client, calls: Sequence[scripts.Call]) -> list[Any]:
        sent.update(name for name, _, _ in calls)
        return await send(redis, calls)

    monkeypatch.setattr(scripts, "_send", record)

    async def twice(act: Any) -> Any:
        first = await act()
        before = await read_state(redis, owner)
        assert await act() == first
        assert await read_state(redis, owner) == before
        return first

    limiter = TurnLimiter(redis, TurnLimits(), lease_s=1)
    assert await twice(lambda: limiter.admit(ref)) is None
    begun = await twice(lambda: turns.begin(question))
    assert (begun.outcome, begun.question_id) == ("begun", "user-1")
    assert await twice(lambda: turns.commit([(ref, 1, 8, b"frame")])) == [1]
    assert await twice(lambda: turns.renew([(ref, 1)])) == [1]
    await wait_until_expired(redis, ref)
    assert (await twice(lambda: turns.take_over(ref, "attempt-x"))).fence == 2
    assert await twice(lambda: turns.finish(ref, 2, 13, b"last", "done", '{"role": "assistant"}'))
    assert await read_log(turns, ref) == (b"<user-1>framelast", True)

    again = replace(
        another(question),
        message="",
        question_id=MessageId("user-1"),
        answer_id=MessageId("answer-b"),
    )
    assert (await twice(lambda: turns.begin(again))).question_id == "user-1"
    assert await twice(lambda: turns.finish(again.ref, 1, 8, b"last", "failed", ""))
    conversation = keys.conversation(owner, ref.conversation)
    assert await redis.hget(conversation, "head") == b"answer-1", (
        "without an answer the branch is unchanged"
    )
    store = ConversationStore(redis, ttl_s=1000)
    assert await twice(lambda: store.select(owner, ref.conversation, "user-1"))
    assert await twice(lambda: store.change(owner, ref.conversation, title="new"))
    assert len(await twice(lambda: store.read_branch(owner, ref.conversation))) == 2

    third = another(question, number=3, digest="d3")
    await turns.begin(third)
    assert await twice(lambda: turns.request_stop(third.ref))
    await twice(lambda: turns.release(third.ref, 1))
    assert third.ref in await twice(turns.expired_leases)
    await twice(lambda: turns.unregister(third.ref))
    found = await store.read(owner, ref.conversation)
    assert found
    assert await twice(lambda: store.delete(owner, found)) == third.ref.turn
    assert await turns.finish(third.ref, 1, 8, b"last", "stopped", "")
    assert await twice(lambda: store.delete(owner, found)) is None
    alone = TurnRef(owner, keys.NO_CONVERSATION, TurnId("alone"))
    request = replace(question_at(alone), request='{"messages": []}')
    assert (await twice(lambda: turns.begin(request))).outcome == "begun"
    assert await turns.read_request(alone) == b'{"messages": []}'
    assert await twice(lambda: turns.finish(alone, 1, 8, b"last", "done", "{}"))
    assert await turns.read_request(alone) is None
    assert 0 < await redis.ttl(alone.turn_key) <= 3600
    unreadable = replace(ref, owner=Owner(secrets.token_urlsafe(8)))
    await turns.begin(question_at(unreadable))
    await twice(lambda: turns.drop(unreadable))
    assert await turns.find(unreadable.owner, unreadable.turn) is None
    found = await store.read(unreadable.owner, unreadable.conversation)
    assert found
    assert found.running is None
    session, created = SessionDigest("digest"), ConversationId("created")
    names = [
        keys.conversation(owner, created), keys.conversations(owner), keys.current(owner, session),
        keys.events(owner), keys.usage(owner), keys.expiries(owner),
    ]  # fmt: skip
    allowed = StorageLimits(redis).build_arguments(owner)
    create = [created, 1000, *allowed, "title", "t"]
    assert await twice(lambda: call(redis, "create", names, create)) == b"created"
    assert len((await twice(lambda: read_events(redis, owner))).events) == 10
    identity = await twice(lambda: call(redis, "identify", [keys.instance()], ["a" * 16, "b" * 64]))
    assert await call(redis, "identify", [keys.instance()], ["c" * 16, "d" * 64]) == identity
    claim = (keys.export(owner),), ("claim-1", 60_000)
    assert await twice(lambda: call(redis, "claim_export", *claim)) == 1
    assert 0 < await redis.ttl(keys.export(owner)) <= keys.EXPORT_TTL_S
    assert await twice(lambda: export_slot.claim(redis, owner)) is None
    await twice(lambda: export_slot.release(redis, owner, "claim-1"))
    sessions = SessionStore(redis, idle_s=60, ttl_s=60)
    stored = Session(SessionDigest(secrets.token_hex(32)), owner, created=int(time.time()))
    await twice(lambda: sessions.end(stored))
    ended = await redis.get(keys.session(stored.digest))
    assert json.loads(ended) == {"owner": "", "created": stored.created}
    assert sent >= set(scripts.SCRIPTS) - {"count"}, "a repeated request counts twice"


async def test_an_export_that_outlives_its_claim_releases_no_other(redis: Client) -> None:
    owner = Owner(secrets.token_urlsafe(8))
    slow = await export_slot.claim(redis, owner)
    assert slow
    await redis.delete(keys.export(owner))  # as when the claim expires
    other = await export_slot.claim(redis, owner)
    assert other
    await export_slot.release(redis, owner, slow)
    assert await export_slot.claim(redis, owner) is None
    await export_slot.release(redis, owner, other)
    assert await export_slot.claim(redis, owner)


async def read_events(redis: Client, owner: Owner) -> EventRead:
    """Return all events of an owner, as for a client that has seen none of the last hour."""
    seconds, _ = await redis.eval("return redis.call('TIME')", 1, keys.events(owner))
    return await EventStore(redis).read(owner, EventId(int(seconds) * 1000 - 3_000_000, 0))


async def wait_until_expired(redis: Client, ref: TurnRef) -> None:
    """Return when the turn's lease has expired by the clock of its Redis node."""
    until = int(await redis.hget(ref.turn_key, "lease") or 0)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seconds, micros = await redis.eval("return redis.call('TIME')", 1, ref.turn_key)
            if int(seconds) * 1000 + int(micros) // 1000 > until:
                return
            await asyncio.sleep(0.01)


async def test_begin_reports_each_state_of_a_turn_and_its_conversation(
    turns: TurnStore, question: NewTurn
) -> None:
    assert (await turns.begin(replace(question, may_create=False))).outcome == "unknown"
    assert (await turns.begin(question)).outcome == "begun"
    assert (await turns.begin(replace(question, attempt="other"))).outcome == "known"
    assert (await turns.begin(replace(question, digest="d2"))).outcome == "conflict"
    for other in (replace(another(question), may_create=False), another(question, parent="")):
        busy = await turns.begin(other)
        assert (busy.outcome, busy.turn) == ("busy", question.ref.turn)
    assert (await turns.begin(another(question))).outcome == "elsewhere"
    attached = await turns.begin(another(question, digest="d1"))
    assert (attached.outcome, attached.turn) == ("attach", question.ref.turn)


@pytest.mark.parametrize("state", ["done", "stopped", "failed", "x", ""])
@pytest.mark.parametrize("digest", ["d1", "d2"])
async def test_a_conversation_is_busy_only_while_its_turn_runs(
    redis: Client, turns: TurnStore, question: NewTurn, state: str, digest: str
) -> None:
    await turns.begin(question)
    # Only a foreign write leaves the conversation with a turn that has ended.
    await redis.hset(question.ref.turn_key, "state", state)
    assert (await turns.check(another(question, digest=digest))).outcome == "free"
    assert (await turns.begin(another(question, digest=digest))).outcome == "begun"


async def test_a_repeated_unanswered_question_is_stored_once(
    turns: TurnStore, store: ConversationStore, question: NewTurn
) -> None:
    ref = question.ref
    await turns.begin(question)
    await turns.finish(ref, 1, 8, b"failed", "failed", "")
    again = await turns.begin(another(question, digest="d1"))
    assert (again.outcome, again.question_id) == ("begun", "user-1")
    again_ref = another(question).ref
    assert (await read_log(turns, again_ref))[0] == b"<user-1>"
    await turns.finish(again_ref, 1, 8, b"end", "done", '{"role": "assistant", "content": "a"}')
    branch = await store.read_branch(ref.owner, ref.conversation)
    assert [message.id for message in branch] == ["answer-2", "user-1"]
    repeated = await turns.begin(another(question, number=3, digest="d1"))
    assert repeated.question_id == "user-3"


@pytest.mark.parametrize("conversation", ["conversation", keys.NO_CONVERSATION])
async def test_a_check_returns_the_result_of_begin_and_writes_nothing(
    redis: Client, turns: TurnStore, question: NewTurn, conversation: str
) -> None:
    ref = replace(question.ref, conversation=ConversationId(conversation))
    question = replace(question, ref=ref)
    begun, known, conflict = "begun", "known", "conflict"
    assert (await turns.check(question)).outcome == "free"
    assert await read_state(redis, question.ref.owner) == {}
    await turns.begin(question)
    before = await read_state(redis, question.ref.owner)
    assert (await turns.check(question)).outcome == begun
    assert (await turns.check(replace(question, attempt="other"))).outcome == known
    assert (await turns.check(replace(question, digest="d2"))).outcome == conflict
    for other, running, outcome in (
        (another(question, digest="d1"), question.ref.turn, "attach"),
        (another(question, parent=""), question.ref.turn, "busy"),
        (another(question), None, "elsewhere"),
    ):
        found = await turns.check(other)
        if conversation == keys.NO_CONVERSATION:
            assert (found.outcome, found.turn) == ("free", None)
        else:
            assert (found.outcome, found.turn) == (outcome, running)
    assert await read_state(redis, question.ref.owner) == before


async def test_a_first_question_joins_the_conversation_that_another_one_has_begun(
    turns: TurnStore, question: NewTurn
) -> None:
    await turns.begin(question)
    ref = replace(another(question).ref, conversation=ConversationId("other"))
    # One that is an edit of the beginning stops the running answer. Any other waits for its end.
    edited = replace(another(question, parent=""), ref=ref)
    for found in (await turns.check(edited), await turns.begin(edited)):
        assert (found.outcome, found.conversation) == ("moved", "conversation")
    await turns.finish(question.ref, 1, 8, b"end", "done", "")
    other = replace(another(question), ref=ref)
    for found in (await turns.check(other), await turns.begin(other)):
        assert (found.outcome, found.conversation) == ("moved", "conversation")


async def test_a_question_begins_a_new_conversation_while_another_one_is_answered(
    turns: TurnStore, question: NewTurn
) -> None:
    await turns.begin(question)
    ref = replace(another(question).ref, conversation=ConversationId("other"))
    other = replace(another(question), ref=ref, session=question.session)
    assert (await turns.check(other)).outcome == "free"
    begun = [await turns.begin(other), await turns.begin(other)]
    assert [one.outcome for one in begun] == ["begun", "begun"]
    # Sent again without their turns, both attach to the turns that answer them.
    for running in (question, other):
        for conversation in (question.ref.conversation, ref.conversation, ConversationId("third")):
            again = another(question, number=3, digest=running.digest)
            again = replace(again, ref=replace(again.ref, conversation=conversation))
            for found in (await turns.check(again), await turns.begin(again)):
                assert (found.outcome, found.turn) == ("attach", running.ref.turn)


async def test_a_commit_with_an_old_fence_or_a_gap_is_rejected(
    redis: Client, turns: TurnStore, question: NewTurn
) -> None:
    ref = question.ref
    await turns.begin(question)
    assert await turns.commit([(ref, 2, 8, b"x"), (ref, 1, 9, b"x")]) == [-1, -2]
    assert await turns.commit([(ref, 1, 8, b"one"), (ref, 1, 8, b"two")]) == [1, -2]
    await wait_until_expired(redis, ref)
    assert (await turns.take_over(ref, "other worker")).fence == 2
    assert await turns.commit([(ref, 1, 11, b"late")]) == [-1]
    assert await turns.renew([(ref, 1)]) == [-1]
    assert not await turns.finish(ref, 1, 11, b"late", "done", "")
    assert await read_log(turns, ref) == (b"<user-1>one", False)
    assert await turns.finish(ref, 2, 11, b".", "done", "")
    assert not await turns.finish(ref, 2, 11, b"!", "done", "")
    assert await turns.commit([(ref, 2, 12, b"late")]) == [-1]
    assert await turns.take_over(ref, "third worker") == TakeOver(-1)


async def test_a_turn_with_a_valid_lease_is_not_taken_over(
    redis: Client, question: NewTurn
) -> None:
    turns = TurnStore(redis, lease_s=60, ttl_s=1000)
    await turns.begin(question)
    assert await turns.take_over(question.ref, "other") == TakeOver(0)
    assert await turns.renew([(question.ref, 1)]) == [1]


async def test_a_stop_request_is_returned_by_the_next_renewal_or_commit(
    turns: TurnStore, question: NewTurn
) -> None:
    await turns.begin(question)
    assert await turns.request_stop(question.ref)
    assert await turns.renew([(question.ref, 1)]) == [2]
    assert await turns.commit([(question.ref, 1, 8, b"x")]) == [2]


async def test_a_turn_that_is_not_running_cannot_be_stopped(
    redis: Client, turns: TurnStore, question: NewTurn
) -> None:
    assert not await turns.request_stop(question.ref)
    assert await redis.exists(question.ref.turn_key) == 0
    await turns.begin(question)
    await turns.finish(question.ref, 1, 8, b"end", "done", "")
    assert not await turns.request_stop(question.ref)


async def test_one_rejected_or_failed_turn_of_a_batch_affects_no_other(
    redis: Client, turns: TurnStore, question: NewTurn
) -> None:
    refs = [
        replace(
            question.ref,
            conversation=ConversationId(f"conversation-{n}"),
            turn=TurnId(f"turn-0123456789-{n}"),
        )
        for n in range(4)
    ]
    for ref in refs:
        session = SessionDigest(ref.turn)
        await turns.begin(replace(question, ref=ref, session=session, attempt=ref.turn))
    await redis.delete(refs[1].log_key)
    await redis.rpush(refs[1].log_key, "no log")
    replies = await turns.commit(
        [(ref, fence, 8, b"x") for ref, fence in zip(refs, (1, 1, 2, 1), strict=True)]
    )
    assert [reply if isinstance(reply, int) else type(reply) for reply in replies] == [
        1,
        ResponseError,
        -1,
        1,
    ]
    assert await read_log(turns, refs[3]) == (b"<user-1>x", False)
    await redis.delete(refs[1].turn_key)
    await redis.rpush(refs[1].turn_key, "no turn")
    replies = await turns.renew(
        [(ref, fence) for ref, fence in zip(refs, (1, 1, 2, 1), strict=True)]
    )
    assert [reply if isinstance(reply, int) else type(reply) for reply in replies] == [
        1,
        ResponseError,
        -1,
        1,
    ]
    # Servers of other tests take over turns that run here, and would fail on this one.
    await redis.delete(refs[1].turn_key, refs[1].log_key)


async def test_the_log_of_a_finished_turn_is_kept_for_log_keep_s(
    redis: Client, question: NewTurn
) -> None:
    turns = TurnStore(redis, lease_s=60, ttl_s=1000, log_keep_s=77)
    await turns.begin(question)
    assert await turns.finish(question.ref, 1, 8, b"end", "done", "")
    assert 70 < await redis.ttl(question.ref.log_key) <= 77
    assert 900 < await redis.ttl(question.ref.turn_key) <= 1000


async def test_finishing_a_turn_does_not_restore_its_deleted_conversation(
    redis: Client, turns: TurnStore, store: ConversationStore, question: NewTurn
) -> None:
    ref = question.ref
    await turns.begin(question)
    assert await turns.finish(ref, 1, 8, b"end", "done", '{"role": "assistant"}')
    conversation = await store.read(ref.owner, ref.conversation)
    assert conversation
    assert await store.delete(ref.owner, conversation) is None
    assert await turns.finish(ref, 1, 8, b"end", "done", '{"role": "assistant"}')
    left = await read_state(redis, ref.owner)
    assert set(left) == {keys.current(ref.owner, question.session), keys.events(ref.owner)}


async def test_a_branch_is_limited_in_bytes_and_messages(
    turns: TurnStore, store: ConversationStore, question: NewTurn
) -> None:
    ref = question.ref
    for number in range(1, 6):
        asked = another(question, number=number, digest=f"d{number}")
        await turns.begin(asked)
        await turns.finish(asked.ref, 1, 8, b"end", "done", '{"role": "assistant", "content": "a"}')
    whole = await store.read_branch(ref.owner, ref.conversation)
    assert len(whole) == 10
    assert [m.id for m in await store.read_branch(ref.owner, ref.conversation, max_count=3)] == [
        "answer-5", "user-5", "answer-4",
    ]  # fmt: skip
    assert len(await store.read_branch(ref.owner, ref.conversation, max_bytes=1)) == 1
    assert 2 <= len(await store.read_branch(ref.owner, ref.conversation, max_bytes=150)) <= 4
    assert await store.read_branch(ref.owner, ref.conversation, start=MessageId("unknown")) == []


async def test_scripts_missing_from_redis_are_loaded_again(
    redis: Client, store: ConversationStore, question: NewTurn
) -> None:
    session = Session(SessionDigest("digest"), question.ref.owner)
    await redis.script_flush()
    created = await store.create(session, title="made")
    found = await store.read(session.owner, created)
    assert found is not None
    assert found.title == "made"


async def test_a_released_turn_is_listed_as_expired_until_it_is_unregistered(
    redis: Client, question: NewTurn
) -> None:
    turns = TurnStore(redis, lease_s=60, ttl_s=1000)
    await turns.begin(question)
    assert question.ref not in await turns.expired_leases()
    await turns.release(question.ref, 1)
    assert question.ref in await turns.expired_leases()
    await turns.unregister(question.ref)
    assert question.ref not in await turns.expired_leases()


@pytest.mark.parametrize("offset_s", [-3600, 3600])
async def test_a_worker_with_a_wrong_clock_neither_loses_nor_takes_over_a_turn(
    redis: Client, question: NewTurn, monkeypatch: pytest.MonkeyPatch, offset_s: int
) -> None:
    right, right_ns = time.time, time.time_ns
    turns = TurnStore(redis, lease_s=30, ttl_s=1000)
    other = another(question).ref
    other = replace(other, conversation=ConversationId("other"))
    await turns.begin(question)
    await turns.begin(replace(another(question), ref=other, session=SessionDigest("other")))
    monkeypatch.setattr(time, "time", lambda: right() + offset_s)
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + offset_s * 1_000_000_000)
    mine = {question.ref, other}
    assert not mine & set(await turns.expired_leases())
    assert (await turns.take_over(question.ref, "another")).fence == 0
    assert await turns.renew([(question.ref, 1)]) == [1]
    await turns.release(other, 1)
    monkeypatch.undo()
    assert mine & set(await turns.expired_leases()) == {other}
    assert (await turns.take_over(question.ref, "another")).fence == 0
    taken = await turns.take_over(other, "another")
    assert (taken.fence, taken.record) == (2, await turns.find(other.owner, other.turn))
    for ref in (question.ref, other):
        await turns.unregister(ref)


async def test_a_read_returns_the_turns_state_the_logs_length_and_the_bytes(
    redis: Client, turns: TurnStore, question: NewTurn
) -> None:
    ref = question.ref
    assert await turns.read(ref, 0, 10) == (None, 0, b"")
    await turns.begin(question)
    await turns.commit([(ref, 1, 8, b"0123456789")])
    assert await turns.read(ref, 8, 4) == ("running", 18, b"0123")
    assert await turns.read(ref, 12, 100) == ("running", 18, b"456789")
    assert await turns.read(ref, 12, 0) == ("running", 18, b"")
    assert await turns.read(ref, 18, 5) == ("running", 18, b"")
    await turns.finish(ref, 1, 18, b"end", "done", "")
    assert await turns.read(ref, 18, 5) == ("done", 21, b"end")
    await redis.delete(ref.log_key)
    assert await turns.read(ref, 18, 5) == ("done", 0, b"")


@pytest.mark.parametrize(
    "member", [b"", b"one", b"a b c d", b"a b:c d", b"a  c", b"\xff\xfe x y", b"x" * 99]
)
async def test_a_malformed_running_turn_is_dropped_and_hides_no_other(
    redis: Client, turns: TurnStore, question: NewTurn, member: bytes
) -> None:
    await redis.zadd(keys.running(), {member: 1})
    await turns.begin(question)
    await turns.release(question.ref, 1)
    assert question.ref in await turns.expired_leases()
    assert await redis.zscore(keys.running(), member) is None
    await turns.unregister(question.ref)
