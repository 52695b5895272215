"""The limits of what an owner stores: counted atomically, checked before anything is written."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from sessions import export_slot, keys, limits
from sessions.client.connection import Client, connect, is_cluster
from sessions.client.errors import OutOfMemoryError
from sessions.client.scripts import call
from sessions.conversation_store import ConversationStore
from sessions.keys import (
    NO_CONVERSATION,
    AddressDigest,
    ConversationId,
    MessageId,
    Owner,
    SessionDigest,
    TurnId,
)
from sessions.limits import NO_RATE, ConversationLimiter, Rate, StorageLimitReached, StorageLimits
from sessions.session_store import Session
from sessions.turns.turn_limits import TurnLimiter, TurnLimits
from sessions.turns.turn_record import NewTurn, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.processes import PATIENCE_S, REDIS_KINDS, redis_of_kind
from tests.questions import question_at

ANSWER = '{"role": "assistant", "content": "a"}'
CONVERSATION = ConversationId("conversation")
OTHER = SessionDigest("other")


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.fixture
def session() -> Session:
    return Session(SessionDigest(secrets.token_hex(8)), Owner(secrets.token_urlsafe(8)))


class Stores:
    """The stores of an owner that may have `max_bytes`."""

    def __init__(self, redis: Client, session: Session, max_bytes: int = 1 << 30) -> None:
        self.redis = redis
        self.session = session
        self.owner = session.owner
        self.limits = StorageLimits(redis, max_bytes)
        self.turns = TurnStore(redis, lease_s=60, ttl_s=1000, limits=self.limits)
        self.conversations = ConversationStore(redis, ttl_s=1000, limits=self.limits)

    def build(self, number: int = 1, text: str = "q", **fields: Any) -> NewTurn:
        """Return a question in CONVERSATION."""
        new = question_at(TurnRef(self.owner, CONVERSATION, TurnId(f"turn-0123456789-{number}")))
        ids = {
            "digest": f"d{number}",
            "question_id": MessageId(f"user-{number}"),
            "answer_id": MessageId(f"answer-{number}"),
            "attempt": f"attempt-{number}",
            "message": f'{{"role": "user", "content": "{text}"}}',
        }
        return replace(new, **{**ids, **fields})

    def build_alone(self, number: int, request: str) -> NewTurn:
        """Return a question of /v1 in no conversation."""
        new = self.build(number, request=request)
        return replace(new, ref=replace(new.ref, conversation=NO_CONVERSATION))

    async def answer(self, new: NewTurn) -> None:
        """Begin and finish a turn."""
        assert (await self.turns.begin(new)).outcome == "begun"
        assert await self.turns.finish(new.ref, 1, length_of(new), b"end", "done", ANSWER)

    async def read_usage(self) -> dict[str, int]:
        """Return the usage of the owner, whose sum is right and whose entries all can expire."""
        found = await self.redis.hgetall(keys.usage(self.owner))
        usage = {name.decode(): int(value) for name, value in found.items()}
        total = usage.pop("*", 0)
        assert sum(usage.values()) == total
        expiries = await self.redis.zrange(keys.expiries(self.owner), 0, -1)
        assert {entry.decode() for entry in expiries} == set(usage)
        return usage

    async def forget_usage(self) -> None:
        """Leave the data as version 0.1 would have written it."""
        await self.redis.delete(keys.usage(self.owner), keys.expiries(self.owner))

    async def dump(self) -> dict[bytes, bytes]:
        """Return every key of the owner, as Redis serialises it."""
        names = [key async for key in self.redis.scan_iter(f"holdline:{{{self.owner}}}:*")]
        return {name: await self.redis.dump(name) for name in names}


def length_of(new: NewTurn) -> int:
    return len(b"".join(new.first_record)) + len(new.question_id)


@pytest.fixture
def stores(redis: Client, session: Session) -> Stores:
    return Stores(redis, session)


async def reject(act: Awaitable[Any]) -> str:
    """Return the limit that rejected what `act` would have stored."""
    with pytest.raises(StorageLimitReached) as caught:
        await act
    return caught.value.resource


async def test_the_usage_follows_every_step_and_is_nothing_after_a_deletion(
    stores: Stores,
) -> None:
    await stores.answer(stores.build(1))
    first = (await stores.read_usage())[CONVERSATION]
    await stores.answer(stores.build(2, text="x" * 5000))
    second = (await stores.read_usage())[CONVERSATION]
    assert 5000 < second - first < 5000 + first
    for system in ("y" * 3000, "y", "y" * 3000):
        assert await stores.conversations.change(stores.owner, CONVERSATION, system=system)
        assert (await stores.read_usage())[CONVERSATION] == second + len(system)
    created = await stores.conversations.create(stores.session, title="t", system="z" * 2000)
    assert (await stores.read_usage())[created] > 2000
    for conversation_id in (CONVERSATION, created):
        found = await stores.conversations.read(stores.owner, conversation_id)
        assert found
        assert await stores.conversations.delete(stores.owner, found) is None
    assert await stores.read_usage() == {}


async def test_a_kept_request_counts_while_its_turn_runs(stores: Stores) -> None:
    for new in (stores.build(1, request="r" * 9000), stores.build_alone(2, "r" * 9000)):
        assert (await stores.turns.begin(new)).outcome == "begun"
        assert (await stores.read_usage())[f"request {new.ref.turn}"] == 9000
        assert await stores.turns.finish(new.ref, 1, length_of(new), b"end", "done", ANSWER)
        assert f"request {new.ref.turn}" not in await stores.read_usage()
    not_kept = stores.build_alone(3, "")
    assert (await stores.turns.begin(not_kept)).outcome == "begun"
    assert set(await stores.read_usage()) == {CONVERSATION}


async def test_nothing_is_written_over_the_limit_of_bytes_and_a_running_answer_ends(
    redis: Client, session: Session
) -> None:
    stores = Stores(redis, session, max_bytes=10_000)
    running = stores.build(1, text="x" * 4000)
    assert (await stores.turns.begin(running)).outcome == "begun"
    other = Stores(redis, session, max_bytes=5_000)
    before = await stores.dump()
    for act in (
        other.turns.begin(other.build(2)),
        other.turns.check(other.build(2)),
        other.turns.begin(replace(other.build(2), message="", question_id=running.question_id)),
        other.turns.begin(other.build_alone(3, "r" * 100)),
        other.conversations.create(session, title="t"),
        other.conversations.change(session.owner, CONVERSATION, system="y" * 1000),
    ):
        assert await reject(act) == "bytes"
    assert await stores.dump() == before
    assert not await other.turns.request_stop(other.build(2).ref)
    # A known turn, a question that is being answered, and a smaller change need no room.
    assert (await other.turns.begin(replace(running, attempt="x"))).outcome == "known"
    again = replace(other.build(2), digest=running.digest)
    assert (await other.turns.begin(again)).outcome == "attach"
    assert await other.conversations.change(session.owner, CONVERSATION, title="")
    assert (await other.turns.begin(other.build_alone(4, ""))).outcome == "begun"
    answer = '{"role": "assistant", "content": "%s"}' % ("a" * 20_000)
    assert await other.turns.finish(running.ref, 1, length_of(running), b"end", "done", answer)
    assert len(await other.conversations.read_branch(session.owner, CONVERSATION)) == 2


async def test_parallel_requests_do_not_exceed_a_limit_together(
    redis: Client, session: Session
) -> None:
    stores = Stores(redis, session, max_bytes=20_000)
    acts = [stores.conversations.create(session, system="s" * 4000) for _ in range(20)]
    results = await asyncio.gather(*acts, return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 4
    assert sum(isinstance(result, StorageLimitReached) for result in results) == 16


async def test_an_owner_with_the_maximum_of_conversations_creates_none(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_CONVERSATIONS", 3)
    created = [await stores.conversations.create(stores.session) for _ in range(3)]
    assert await reject(stores.conversations.create(stores.session)) == "conversations"
    assert await reject(stores.turns.begin(stores.build(1))) == "conversations"
    inside = stores.build(2)
    inside = replace(inside, ref=replace(inside.ref, conversation=created[0]), may_create=False)
    assert (await stores.turns.begin(inside)).outcome == "begun"
    found = await stores.conversations.read(stores.owner, created[1])
    assert found
    await stores.conversations.delete(stores.owner, found)
    elsewhere = replace(stores.build(1), session=SessionDigest("another browser"))
    assert (await stores.turns.begin(elsewhere)).outcome == "begun"


async def test_a_conversation_with_the_maximum_of_messages_takes_no_question(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_MESSAGES", 4)
    await stores.answer(stores.build(1))
    await stores.answer(stores.build(2))
    before = await stores.dump()
    assert await reject(stores.turns.begin(stores.build(3))) == "messages"
    again = replace(stores.build(4), message="", question_id=MessageId("user-2"))
    assert await reject(stores.turns.begin(again)) == "messages"
    assert await stores.dump() == before
    assert await stores.conversations.change(stores.owner, CONVERSATION, title="a longer title")


async def test_an_expired_conversation_counts_no_longer(redis: Client, session: Session) -> None:
    stores = Stores(redis, session)
    brief = ConversationStore(redis, ttl_s=1, limits=stores.limits)
    expiring = await brief.create(session, system="s" * 5000)
    assert (await stores.read_usage())[expiring] > 5000
    for key in (keys.usage(session.owner), keys.expiries(session.owner)):
        await redis.persist(key)  # as another conversation's write would
    await redis.persist(keys.conversations(session.owner))
    async with asyncio.timeout(PATIENCE_S):
        while await redis.exists(keys.conversation(session.owner, expiring)):
            await asyncio.sleep(0.02)
    assert (await stores.turns.begin(stores.build(1))).outcome == "begun"
    assert set(await stores.read_usage()) == {CONVERSATION}
    assert await redis.zcard(keys.conversations(session.owner)) == 1


async def test_a_request_that_expired_without_an_end_counts_no_longer(stores: Stores) -> None:
    lost = stores.build_alone(1, "r" * 5000)
    assert (await stores.turns.begin(lost)).outcome == "begun"
    entry = f"request {lost.ref.turn}"
    await stores.redis.zadd(keys.expiries(stores.owner), {entry: 1})
    assert (await stores.turns.begin(stores.build(2))).outcome == "begun"
    assert set(await stores.read_usage()) == {CONVERSATION}


async def test_a_conversation_that_an_older_worker_extended_stays(stores: Stores) -> None:
    await stores.answer(stores.build(1))
    before = await stores.read_usage()
    await stores.redis.zadd(keys.expiries(stores.owner), {CONVERSATION: 1})
    await stores.conversations.create(stores.session)
    assert (await stores.read_usage())[CONVERSATION] == before[CONVERSATION]
    page, _ = await stores.conversations.read_page(stores.owner, 10, None)
    assert len(page) == 2


async def test_data_of_an_earlier_version_is_counted_at_the_first_write(stores: Stores) -> None:
    for number, text in ((1, "x" * 20_000), (2, "short")):
        await stores.answer(stores.build(number, text=text))
    old = await stores.conversations.create(stores.session, system="s" * 5000)
    exact = await stores.read_usage()
    await stores.forget_usage()
    await stores.answer(stores.build(3))
    found = await stores.read_usage()
    assert set(found) == {CONVERSATION, old}
    assert 0.5 * exact[CONVERSATION] < found[CONVERSATION] < 2 * exact[CONVERSATION]
    assert 0.5 * exact[old] < found[old] < 2 * exact[old]
    for conversation_id in (CONVERSATION, old):
        conversation = await stores.conversations.read(stores.owner, conversation_id)
        assert conversation
        await stores.conversations.delete(stores.owner, conversation)
    assert await stores.read_usage() == {}


async def test_data_of_an_earlier_version_over_the_limit_allows_no_question_until_it_is_deleted(
    redis: Client, session: Session
) -> None:
    stores = Stores(redis, session, max_bytes=20_000)
    large = await Stores(redis, session).conversations.create(session, system="s" * 50_000)
    await stores.forget_usage()
    assert await reject(stores.turns.begin(stores.build(1))) == "bytes"
    found = await stores.conversations.read(session.owner, large)
    assert found
    await stores.conversations.delete(session.owner, found)
    assert (await stores.turns.begin(stores.build(1))).outcome == "begun"


async def test_a_conversation_of_an_older_worker_is_counted_at_its_next_question(
    stores: Stores,
) -> None:
    await stores.conversations.create(stores.session)
    await stores.answer(stores.build(1, text="x" * 9000))
    entries = [keys.usage(stores.owner), keys.expiries(stores.owner)]
    size = (await stores.read_usage())[CONVERSATION]
    await stores.redis.hincrby(entries[0], "*", -size)
    await stores.redis.hdel(entries[0], CONVERSATION)
    await stores.redis.zrem(entries[1], CONVERSATION)
    await stores.answer(stores.build(2))
    assert 9000 < (await stores.read_usage())[CONVERSATION] < 2 * size + 9000


async def test_the_work_of_a_write_does_not_grow_with_what_the_owner_has(stores: Stores) -> None:
    for number in range(30):
        await stores.answer(stores.build(number))
        await stores.conversations.create(stores.session)

    async def count_commands() -> int:
        info = await call(stores.redis, "INFO", [], ["commandstats"])
        return sum(
            int(line.split(b"calls=")[1].split(b",")[0])
            for line in info.splitlines()
            if b"calls=" in line and b"info" not in line
        )

    if is_cluster(stores.redis):  # INFO has no key, so that any node may answer
        return
    costs = []
    for number in (30, 31):
        before = await count_commands()
        await stores.answer(stores.build(number))
        costs.append(await count_commands() - before)
        for _ in range(30):
            await stores.conversations.create(stores.session)
    assert costs[1] <= costs[0]


async def test_the_usage_has_the_lifetime_of_the_conversations(stores: Stores) -> None:
    await stores.answer(stores.build(1))
    for key in (keys.usage(stores.owner), keys.expiries(stores.owner)):
        assert 900 < await stores.redis.ttl(key) <= 1000


async def test_requests_for_conversations_have_ten_times_the_rate_of_turns(
    stores: Stores,
) -> None:
    limiter = ConversationLimiter(stores.redis, Rate(2, 3600))
    for _ in range(30):
        assert await limiter.count_read(stores.owner) == 0
    assert await stores.dump() == {}, "nothing is stored for an owner without conversations"
    found = [await limiter.count_write(stores.owner, None, 1) for _ in range(20)]
    assert found == [0] * 20
    assert 0 < await limiter.count_write(stores.owner, None, 1) <= 3600
    await stores.conversations.create(stores.session)
    assert 0 < await limiter.count_read(stores.owner) <= 3600
    assert await ConversationLimiter(stores.redis, NO_RATE).count_read(stores.owner) == 0


@pytest.mark.parametrize("garbage", [b"", b"x", b"1.5", b"9" * 40, None])
async def test_a_malformed_count_of_requests_is_dropped(
    stores: Stores, garbage: bytes | None
) -> None:
    limiter = ConversationLimiter(stores.redis, Rate(1, 3600))
    key = keys.conversation_rate(stores.owner)
    await stores.redis.rpush(key, "x") if garbage is None else await stores.redis.set(key, garbage)
    found = [await limiter.count_write(stores.owner, None, 1) for _ in range(11)]
    assert found[:10] == [0] * 10
    assert found[10] > 0


async def test_a_count_of_requests_without_a_lifetime_locks_nobody_out(stores: Stores) -> None:
    limiter = ConversationLimiter(stores.redis, Rate(1, 3600))
    key = keys.conversation_rate(stores.owner)
    await stores.redis.set(key, 99)
    assert await limiter.count_write(stores.owner, None, 1) == 0
    assert 3590 < await stores.redis.ttl(key) <= 3600


async def test_all_owners_of_an_address_share_what_it_may_store(stores: Stores) -> None:
    address_rate = Rate(2, 3600)
    limiter = ConversationLimiter(stores.redis, NO_RATE, address_rate)
    address, other = AddressDigest(secrets.token_hex(16)), AddressDigest(secrets.token_hex(16))
    size = address_rate.max_bytes // 10
    for i in range(10):
        assert await limiter.count_write(Owner(f"owner{i}"), address, size) == 0
    assert 0 < await limiter.count_write(Owner("one more"), address, size) <= 3600
    assert await limiter.count_write(Owner("one more"), other, size) == 0
    assert await limiter.count_write(Owner("one more"), None, size) == 0
    turn_limiter = TurnLimiter(stores.redis, TurnLimits(address_rate=address_rate), lease_s=60)
    ref = replace(stores.build(1).ref, address=address)
    rejection = await turn_limiter.admit(ref, size=size)
    assert rejection
    assert rejection[:2] == ("bytes", "address")
    assert await turn_limiter.admit(replace(ref, address=other), size=size) is None


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_full_memory_gives_a_clear_error_in_every_script_and_deletes(
    kind: str, session: Session
) -> None:
    async with redis_of_kind(kind) as url:
        redis = connect(url)
        stores = Stores(redis, session)
        await stores.answer(stores.build(1))
        await stores.answer(stores.build(2))
        running = stores.build(3)
        assert (await stores.turns.begin(running)).outcome == "begun"
        ref = running.ref
        network = "192.0.2.1/32"
        digest = await TurnLimiter(redis, TurnLimits(), lease_s=60).hash_address(network)
        await set_maxmemory(redis, lambda used: 1)
        fourth = replace(ref, conversation=ConversationId("another"), turn=TurnId("turn-4"))
        acts: list[Callable[[], Awaitable[Any]]] = [
            lambda: stores.turns.begin(replace(stores.build(4), ref=fourth, session=OTHER)),
            lambda: stores.turns.begin(stores.build_alone(5, "r")),
            lambda: stores.conversations.create(session),
            lambda: stores.conversations.change(session.owner, CONVERSATION, title="longer"),
            lambda: stores.conversations.change(session.owner, CONVERSATION, title=""),
        ]
        for act in acts:
            with pytest.raises(OutOfMemoryError):
                await act()
        # A worker that has just started still finds a known turn.
        assert await TurnLimiter(redis, TurnLimits(), lease_s=60).hash_address(network) == digest
        assert (await stores.turns.check(replace(running, attempt="x"))).outcome == "known"
        limiter = ConversationLimiter(redis, Rate(1, 60))
        assert await limiter.count_read(session.owner) == 0
        claim = await export_slot.claim(redis, session.owner)
        assert claim
        await export_slot.release(redis, session.owner, claim)
        assert len(await stores.conversations.read_branch(session.owner, CONVERSATION)) == 5
        await stores.limits.memory_watch.sample()
        assert await reject(stores.conversations.create(session)) == "memory"
        # The running turn continues, here or elsewhere, and ends.
        end = length_of(running)
        assert await stores.turns.commit([(ref, 1, end, b"text")]) == [1]
        assert await stores.turns.renew([(ref, 1)]) == [1]
        await stores.turns.release(ref, 1)
        assert (await stores.turns.take_over(ref, "attempt")).fence == 2
        assert await stores.turns.request_stop(ref)
        assert await stores.turns.commit([(ref, 2, end + 4, b"more")]) == [2]
        assert await stores.turns.finish(ref, 2, end + 8, b"end", "stopped", ANSWER)
        found = await stores.conversations.read(session.owner, CONVERSATION)
        assert found
        assert await stores.conversations.delete(session.owner, found) is None
        assert await stores.read_usage() == {}
        await redis.aclose()


@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_nearly_full_memory_allows_answers_to_end_and_no_question_to_begin(
    kind: str, session: Session
) -> None:
    async with redis_of_kind(kind) as url:
        redis = connect(url)
        stores = Stores(redis, session)
        await fill(redis)
        running = stores.build(1)
        assert (await stores.turns.begin(running)).outcome == "begun"
        await set_maxmemory(redis, lambda used: int(used / 0.8))
        await stores.limits.memory_watch.sample()
        created = await stores.conversations.create(session)
        await set_maxmemory(redis, lambda used: int(used / 0.95))
        await stores.limits.memory_watch.sample()
        before = await stores.dump()
        for act in (
            stores.turns.begin(stores.build(2)),
            stores.turns.begin(stores.build_alone(3, "")),
            stores.conversations.create(session),
            stores.conversations.change(session.owner, created, system="s"),
        ):
            assert await reject(act) == "memory"
        assert await stores.dump() == before
        assert (await stores.turns.begin(replace(running, attempt="x"))).outcome == "known"
        assert await stores.turns.commit([(running.ref, 1, length_of(running), b"a")]) == [1]
        assert await stores.turns.finish(
            running.ref, 1, length_of(running) + 1, b"end", "done", ANSWER
        )
        await set_maxmemory(redis, lambda used: 0)
        await stores.limits.memory_watch.sample()
        assert (await stores.turns.begin(stores.build(2))).outcome == "begun"
        await redis.aclose()


async def fill(redis: Client) -> None:
    """Store some MB on every node, so that a few per cent of its memory are enough for a test."""
    for number in range(24):
        await redis.setrange(f"filler:{number}", 2_000_000, b"x")


async def set_maxmemory(redis: Client, choose: Callable[[int], int]) -> None:
    """Set the maximum of every node, as a function of the memory that it uses."""
    await redis.initialize()
    nodes = redis.get_primaries() if is_cluster(redis) else [None]
    for node in nodes:
        target: dict[str, Any] = {"target_nodes": node} if node else {}
        used = (await redis.info("memory", **target))["used_memory"]
        await redis.config_set("maxmemory", choose(used), **target)


async def test_a_redis_that_forbids_info_counts_as_not_full_and_ends_no_watch(
    session: Session,
) -> None:
    async with redis_of_kind("redis") as url:
        admin = connect(url)
        await set_maxmemory(admin, lambda used: used)
        rules = ("on", "nopass", "allkeys", "allchannels", "+@all", "-info")
        await admin.execute_command("ACL", "SETUSER", "user", *rules)
        redis = connect(url.replace("unix://", "unix://user:password@"))
        stores = Stores(redis, session)
        await stores.limits.memory_watch.sample()
        assert not stores.limits.memory_watch.is_nearly_full("key")
        await admin.execute_command("ACL", "SETUSER", "user", "+info")
        await stores.limits.memory_watch.sample()
        assert stores.limits.memory_watch.is_nearly_full("key")
        await redis.aclose()
        await admin.aclose()
