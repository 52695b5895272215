"""The events of an owner in Redis: scripts append them, a client reads those after an id."""

import secrets
from dataclasses import replace

import pytest

from sessions import keys
from sessions.client.connection import Client
from sessions.conversation_store import ConversationStore
from sessions.event_store import Event, EventId, EventStore, parse_id, parse_notification
from sessions.keys import ConversationId, MessageId, Owner, SessionDigest, TurnId
from sessions.session_store import Session
from sessions.turns.turn_record import NewTurn, State, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.questions import question_at

MAX_EVENTS = 2000
TTL_S = 3600


@pytest.fixture
def owner() -> Owner:
    return Owner(secrets.token_urlsafe(8))


@pytest.fixture
def events(redis: Client) -> EventStore:
    return EventStore(redis)


async def read_clock(redis: Client, owner: Owner) -> int:
    """Return the time of the owner's Redis node in ms."""
    seconds, micros = await redis.eval("return redis.call('TIME')", 1, keys.events(owner))
    return int(seconds) * 1000 + int(micros) // 1000


def words(found: list[Event]) -> list[str]:
    return [" ".join([event.type, *event.fields.values()]) for event in found]


async def test_every_change_is_announced_once_and_in_order(
    redis: Client, turns: TurnStore, events: EventStore, owner: Owner
) -> None:
    store = ConversationStore(redis, ttl_s=1000)
    begin = (await events.read(owner, None)).last_id
    created = await store.create(Session(SessionDigest("digest"), owner), title="t")
    for title in ("t", "new", "new"):
        await store.change(owner, created, title=title)
    ref = TurnRef(owner, created, TurnId("turn-0123456789-0"))
    first = replace(question_at(ref), may_create=False)
    second = replace(
        question_at(replace(ref, turn=TurnId("turn-0123456789-1"))),
        digest="d2",
        question_id=MessageId("user-2"),
        answer_id=MessageId("answer-2"),
        attempt="attempt-2",
        parent="",
    )
    third = replace(
        question_at(replace(ref, conversation=ConversationId("new"), turn=TurnId("t" * 16))),
        session=SessionDigest("another browser"),
    )
    ends: list[tuple[NewTurn, State]] = [(first, "done"), (second, "failed"), (third, "stopped")]
    for question, state in ends:
        assert (await turns.begin(question)).outcome == "begun"
        assert (await turns.begin(replace(question, attempt="again"))).outcome == "known"
        assert await turns.finish(question.ref, 1, 8, b"end", state, '{"role": "assistant"}')
    for message in ("user-1", "user-1"):
        assert await store.select(owner, created, message)
    conversation = await store.read(owner, created)
    assert conversation
    for _ in range(2):
        assert await store.delete(owner, conversation) is None
    found = await events.read(owner, begin)
    assert found.is_complete
    assert words(found.events) == [
        f"conversation {created} created",
        f"conversation {created} changed",
        f"turn {created} turn-0123456789-0",
        f"end {created} turn-0123456789-0 done",
        f"turn {created} turn-0123456789-1",
        f"end {created} turn-0123456789-1 failed",
        "conversation new created",
        f"turn new {'t' * 16}",
        f"end new {'t' * 16} stopped",
        f"conversation {created} changed",
        f"conversation {created} deleted",
    ]
    assert found.events[-1].id == found.last_id
    for number, event in enumerate(found.events):
        assert (await events.read(owner, event.id)).events == found.events[number + 1 :]
    assert TTL_S - 60 < await redis.ttl(keys.events(owner)) <= TTL_S


@pytest.mark.parametrize(
    ("count", "first_s", "seen_s", "is_complete"),
    [
        (3, -60, -61, True),  # the stream began after the id: an earlier one expires later
        (3, -60, -60, True),
        (3, -60, -60 - TTL_S + 1, True),
        (3, -60, -60 - TTL_S - 1, False),  # an earlier stream may have expired since
        (MAX_EVENTS, -60, -61, False),  # the stream may have been trimmed since
        (MAX_EVENTS, -60, -60, True),
        (3, -60, 60, False),  # a failover has lost events, or it is another server's id
        (0, 0, -1, True),
        (0, 0, -TTL_S + 1, True),
        (0, 0, -TTL_S - 1, False),
        (0, 0, 60, False),
    ],
)
async def test_missing_events_are_noticed(
    redis: Client,
    events: EventStore,
    owner: Owner,
    count: int,
    first_s: int,
    seen_s: int,
    is_complete: bool,
) -> None:
    now = await read_clock(redis, owner)
    pipeline = redis.pipeline(transaction=False)
    for number in range(count):
        entry = {"event": f"turn conversation {number}"}
        pipeline.xadd(keys.events(owner), entry, id=f"{now + first_s * 1000}-{number}")
    await pipeline.execute()
    found = await events.read(owner, EventId(now + seen_s * 1000, 0))
    assert found.is_complete == is_complete
    missed = count if seen_s < first_s else count - 1
    assert len(found.events) == (missed if is_complete and count else 0)
    if count:
        assert found.last_id == EventId(now + first_s * 1000, count - 1)
    else:
        assert found.last_id < EventId(await read_clock(redis, owner), 0)


async def test_the_stream_of_an_owner_has_a_maximum_length(
    redis: Client, events: EventStore, owner: Owner
) -> None:
    store = ConversationStore(redis, ttl_s=1000)
    created = await store.create(Session(SessionDigest("digest"), owner))
    first = (await events.read(owner, None)).last_id
    for number in range(MAX_EVENTS + 300):
        await store.change(owner, created, title=str(number))
    length = await redis.xlen(keys.events(owner))
    assert MAX_EVENTS <= length < MAX_EVENTS + 200  # Redis removes whole nodes of 100 entries
    assert not (await events.read(owner, first)).is_complete
    assert await redis.memory_usage(keys.events(owner)) < 256 << 10


async def test_a_malformed_event_hides_no_other(
    redis: Client, events: EventStore, owner: Owner
) -> None:
    begin = (await events.read(owner, None)).last_id
    for text in (b"", b"turn", b"turn a:b c", b"later kind", b"\xff\n", b"end a b", b"turn a b"):
        await redis.xadd(keys.events(owner), {"event": text})
    found = await events.read(owner, begin)
    assert found.is_complete
    assert words(found.events) == ["turn a b"]


async def test_a_key_of_another_type_prevents_no_change(redis: Client, owner: Owner) -> None:
    await redis.set(keys.events(owner), "no stream")
    store = ConversationStore(redis, ttl_s=1000)
    created = await store.create(Session(SessionDigest("digest"), owner))
    assert await store.change(owner, created, title="new")


async def test_reading_writes_no_key(redis: Client, events: EventStore, owner: Owner) -> None:
    await events.read(owner, None)
    await events.read(owner, EventId(1, 2))
    assert not await redis.exists(keys.events(owner))


@pytest.mark.parametrize(
    "text", ["", "1", "-", "1-", "-1", "1-2-3", "a-1", "1-1 ", "+1-1", "9" * 16 + "-0", "１-1"]
)
def test_a_malformed_id_is_rejected(text: str) -> None:
    assert parse_id(text) is None


@pytest.mark.parametrize(
    "data", [b"", b"1-1", b"x turn a b", b"1-1 turn", b"1-1 turn a", b"1-1  turn a b", b"\xff"]
)
def test_a_malformed_notification_is_ignored(data: bytes) -> None:
    assert parse_notification(data) is None


def test_an_event_of_a_later_version_may_have_more_words() -> None:
    found = parse_notification(b"1-2 turn a b more")
    assert found == Event(EventId(1, 2), "turn", {"conversation": "a", "turn": "b"})


async def test_a_turn_of_no_conversation_is_not_announced(
    redis: Client, turns: TurnStore, owner: Owner
) -> None:
    ref = TurnRef(owner, keys.NO_CONVERSATION, TurnId("turn-0123456789-0"))
    assert (await turns.begin(replace(question_at(ref), request="{}"))).outcome == "begun"
    assert await turns.finish(ref, 1, 8, b"end", "done", "")
    assert not await redis.exists(keys.events(owner))
