"""The limits of new turns in Redis: what they count, what frees a place, and what they store."""

import secrets
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from sessions import keys
from sessions.client.connection import Client
from sessions.keys import AddressDigest, ConversationId, Owner, SessionDigest, TurnId
from sessions.limits import Rate
from sessions.turns.turn_limits import Rejection, Scope, TurnLimiter, TurnLimits
from sessions.turns.turn_record import TurnRef
from sessions.turns.turn_store import TurnStore
from tests.questions import question_at


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest_asyncio.fixture(autouse=True)
async def _no_turn_runs(redis: Client) -> None:
    """Remove the turns of other tests, which the limit of the server would count."""
    await redis.delete(keys.running())


def new_ref(owner: str = "", address: str | None = "") -> TurnRef:
    """Return a turn of a session and an address, by default of new ones; None: an unknown one."""
    return TurnRef(
        Owner(owner or secrets.token_urlsafe(8)),
        ConversationId(secrets.token_urlsafe(12)),
        TurnId(secrets.token_urlsafe(16)),
        address=None if address is None else AddressDigest(address or secrets.token_hex(16)),
    )


def limit(redis: Client, *, lease_s: float = 60, **limits: Any) -> TurnLimiter:
    return TurnLimiter(redis, TurnLimits(**limits), lease_s=lease_s)


async def begin(store: TurnStore, ref: TurnRef) -> None:
    question = replace(question_at(ref), session=SessionDigest(ref.conversation))
    assert (await store.begin(question)).outcome == "begun"


async def read_limits(redis: Client) -> dict[bytes, object]:
    """Return all keys of limits and of the index, with the value or the members of each."""
    found: dict[bytes, object] = {}
    async for key in redis.scan_iter("holdline:*running*"):
        kind = await redis.type(key)
        if kind == b"set":
            found[key] = await redis.smembers(key)
        else:
            found[key] = await (redis.get(key) if kind == b"string" else redis.zrange(key, 0, -1))
    return found


def unique(scope: Scope) -> dict[str, str]:
    """Return what the turns that a limit counts have in common, as arguments of `new_ref`."""
    names = {"session": ["owner"], "address": ["address"], "server": []}
    return {name: secrets.token_hex(16) for name in names[scope]}


@pytest.mark.parametrize("scope", ["session", "address"])
async def test_a_rate_rejects_a_turn_until_the_window_ends_and_no_turn_of_another(
    redis: Client, scope: Scope
) -> None:
    maximum: dict[str, Any] = {f"{scope}_rate": Rate(3, 3600)}
    limits = limit(redis, **maximum)
    same = unique(scope)
    for _ in range(3):
        assert await limits.admit(new_ref(**same)) is None
    before = await read_limits(redis)
    for _ in range(5):
        rejection = await limits.admit(new_ref(**same))
        assert rejection
        assert (rejection.kind, rejection.scope) == ("rate", scope)
        assert 3590 < rejection.retry_after_s <= 3600
    assert await read_limits(redis) == before, "a rejected turn stores nothing"
    assert await limits.admit(new_ref()) is None
    assert await limits.admit(new_ref(**same), is_counted=True) is None


@pytest.mark.parametrize("scope", ["session", "address", "server"])
async def test_a_maximum_of_running_turns_rejects_a_turn_until_one_has_ended(
    redis: Client, scope: Scope
) -> None:
    limits, store = limit(redis, **{f"{scope}_turns": 3}), TurnStore(redis, lease_s=9, ttl_s=99)
    same = unique(scope)
    running = [new_ref(**same) for _ in range(3)]
    for ref in running:
        assert await limits.admit(ref) is None
        await begin(store, ref)
    before = await read_limits(redis)
    assert await limits.admit(new_ref(**same)) == Rejection("turns", scope)
    assert await read_limits(redis) == before, "a rejected turn stores nothing"
    if scope != "server":
        assert await limits.admit(new_ref()) is None
    assert await store.finish(running[1], 1, 8, b"end", "done", "")
    assert await limits.admit(new_ref(**same)) is None
    assert await limits.admit(new_ref(**same)) == Rejection("turns", scope)


@pytest.mark.parametrize("scope", ["session", "address"])
async def test_an_admission_that_names_a_listed_turn_takes_no_place_and_is_counted_by_the_rates(
    redis: Client, scope: Scope
) -> None:
    maxima: dict[str, Any] = {f"{scope}_rate": Rate(3, 3600), f"{scope}_turns": 1}
    limits = limit(redis, server_turns=1, **maxima)
    ref = new_ref()
    for _ in range(3):
        assert await limits.admit(ref) is None
    for _ in range(2):
        rejection = await limits.admit(ref)
        assert rejection
        assert (rejection.kind, rejection.scope) == ("rate", scope)
        assert await limits.admit(ref, is_counted=True) is None
    assert await redis.zrange(keys.running(), 0, -1) == [ref.member.encode()]
    places = ref.limit_keys[scope == "address"]
    assert await redis.smembers(places) == {ref.member.encode()}


@pytest.mark.parametrize("scope", ["session", "address", "server"])
async def test_a_turn_that_replaces_a_running_one_takes_its_place(
    redis: Client, scope: Scope
) -> None:
    limits = limit(redis, **{f"{scope}_turns": 1})
    first = new_ref()
    assert await limits.admit(first) is None
    second, third = (replace(first, turn=TurnId(f"turn-{number:016}")) for number in (2, 3))
    assert await limits.admit(second) == Rejection("turns", scope)
    assert await limits.admit(second, first.turn) is None
    assert await limits.admit(third, first.turn) == Rejection("turns", scope)
    assert await limits.admit(third, TurnId("no-such-turn-0123")) == Rejection("turns", scope)


@pytest.mark.parametrize("scope", ["session", "address", "server"])
async def test_a_turn_that_never_begins_frees_its_place_when_its_lease_expires(
    redis: Client, scope: Scope
) -> None:
    limits = limit(redis, lease_s=0, **{f"{scope}_turns": 1})
    store, same = TurnStore(redis, lease_s=9, ttl_s=99), unique(scope)
    lost = new_ref(**same)
    assert await limits.admit(lost) is None
    assert await limits.admit(new_ref(**same)) == Rejection("turns", scope)
    assert lost not in await store.expired_leases()  # which removes it from the index
    assert await limits.admit(new_ref(**same)) is None


@pytest.mark.parametrize("conversation", ["conversation", keys.NO_CONVERSATION])
@pytest.mark.parametrize("scope", ["session", "address"])
async def test_a_taken_over_turn_keeps_its_place_and_frees_it_at_its_end(
    redis: Client, scope: Scope, conversation: str
) -> None:
    limits, store = limit(redis, **{f"{scope}_turns": 1}), TurnStore(redis, lease_s=0, ttl_s=99)
    same = unique(scope)
    ref = replace(new_ref(**same), conversation=ConversationId(conversation))
    assert ref.address
    places = {"session": keys.session_turns(ref.owner), "address": keys.address_turns(ref.address)}
    assert await limits.admit(ref) is None
    await begin(store, ref)
    await redis.expire(places[scope], 5)
    (found,) = await store.expired_leases()
    taken = await store.take_over(found, "another worker")
    assert taken.fence == 2
    assert taken.record
    assert (taken.record.ref, taken.record.ref.address) == (ref, ref.address)
    assert await store.renew([(taken.record.ref, 2)]) == [1]
    assert await redis.ttl(places[scope]) > 5
    assert await limits.admit(new_ref(**same)) == Rejection("turns", scope)
    assert await store.finish(taken.record.ref, 2, 8, b"end", "done", "")
    assert await redis.exists(places[scope]) == 0
    assert ref.address.encode() not in await redis.hvals(ref.turn_key)
    assert await limits.admit(new_ref(**same)) is None


@pytest.mark.parametrize("digest", ["d1", "d2"])
async def test_a_turn_that_two_requests_begin_in_two_conversations_counts_once(
    redis: Client, digest: str
) -> None:
    limits, store = limit(redis, session_turns=2), TurnStore(redis, lease_s=60, ttl_s=99)
    first = new_ref()
    second = replace(first, conversation=ConversationId("another"))
    for ref in (first, second):
        assert await limits.admit(ref) is None
    await begin(store, first)
    for ref in (second, first):
        question = replace(question_at(ref), digest=digest, attempt="another")
        outcome = "known" if digest == "d1" else "conflict"
        assert (await store.begin(question)).outcome == outcome
        assert await redis.zrange(keys.running(), 0, -1) == [first.member.encode()]
    assert await limits.admit(new_ref(first.owner)) is None
    assert await store.finish(first, 1, 8, b"end", "done", "")
    assert (await store.begin(question)).outcome == outcome
    assert await redis.zscore(keys.running(), first.member) is None


async def test_the_sets_of_running_turns_expire_unless_their_leases_are_renewed(
    redis: Client,
) -> None:
    limits, store = (
        limit(redis, session_turns=9, address_turns=9),
        TurnStore(redis, lease_s=9, ttl_s=99),
    )
    ref = new_ref()
    assert await limits.admit(ref) is None
    assert len(ref.limit_keys) == 2
    for key in ref.limit_keys:
        assert 0 < await redis.ttl(key) <= keys.LIMITED_TURNS_TTL_S
        await redis.expire(key, 5)
    await begin(store, ref)
    await store.renew([(ref, 1)])
    for key in ref.limit_keys:
        assert await redis.ttl(key) > 5
    await store.finish(ref, 1, 8, b"end", "done", "")
    assert await redis.exists(*ref.limit_keys) == 0, "no address outlives its turns"


@pytest.mark.parametrize("garbage", [b"", b"x", b"1.5", b"-1", b"\xff" * 99, b"9" * 40])
async def test_malformed_keys_are_dropped_and_reject_no_turn(redis: Client, garbage: bytes) -> None:
    limits = limit(
        redis,
        session_rate=Rate(2, 3600),
        session_turns=2,
        address_rate=Rate(2, 3600),
        address_turns=2,
    )
    ref = new_ref()
    assert ref.address
    rates = keys.session_rate(ref.owner), keys.address_rate(ref.address)
    sets = keys.session_turns(ref.owner), keys.address_turns(ref.address)
    for key in (*rates, *sets):
        await redis.set(key, garbage)
    assert await limits.admit(ref) is None
    for key in rates:
        await redis.delete(key)
        await redis.rpush(key, garbage)
    for key in sets:
        await redis.sadd(key, garbage)
    other = replace(ref, turn=TurnId("t" * 20))
    assert await limits.admit(other) is None
    assert await limits.admit(replace(ref, turn=TurnId("u" * 20))) == Rejection("turns", "session")
    assert [await redis.get(key) for key in rates] == [b"1", b"1"]


@pytest.mark.parametrize("scope", ["session", "address"])
async def test_a_rate_without_a_lifetime_locks_nobody_out(redis: Client, scope: Scope) -> None:
    maximum: dict[str, Any] = {f"{scope}_rate": Rate(2, 3600)}
    limits, ref = limit(redis, **maximum), new_ref()
    assert ref.address
    key = {"session": keys.session_rate(ref.owner), "address": keys.address_rate(ref.address)}[
        scope
    ]
    for count in (1, 2, 9):
        await redis.set(key, count)
        assert await limits.admit(ref) is None
        assert 3590 < await redis.ttl(key) <= 3600
        assert await redis.get(key) == b"1"


async def test_a_set_keeps_no_more_turns_than_its_limit(redis: Client) -> None:
    limits, store = limit(redis, session_turns=5), TurnStore(redis, lease_s=9, ttl_s=99)
    owner = secrets.token_urlsafe(8)
    for _ in range(40):
        ref = new_ref(owner)
        assert await limits.admit(ref) is None
        await redis.zrem(keys.running(), ref.member)  # as if the worker had died in between
        assert await redis.scard(keys.session_turns(ref.owner)) <= 5
    await store.unregister(ref)


async def test_an_unknown_address_is_not_limited(redis: Client) -> None:
    limits = limit(redis, address_rate=Rate(1, 3600), address_turns=1)
    for _ in range(3):
        assert await limits.admit(new_ref(address=None)) is None


async def test_addresses_are_hashed_with_a_key_that_all_workers_share(redis: Client) -> None:
    one, two = limit(redis), limit(redis)
    digest = await one.hash_address("192.0.2.1/32")
    assert digest == await two.hash_address("192.0.2.1/32") != await one.hash_address("::/64")
    await redis.delete(keys.address_key())
    assert await limit(redis).hash_address("192.0.2.1/32") != digest
    assert await one.hash_address("192.0.2.1/32") == digest


async def test_a_key_of_addresses_that_has_another_type_is_replaced(redis: Client) -> None:
    await redis.delete(keys.address_key())
    await redis.rpush(keys.address_key(), b"garbage")
    digest = await limit(redis).hash_address("192.0.2.1/32")
    assert digest == await limit(redis).hash_address("192.0.2.1/32")
