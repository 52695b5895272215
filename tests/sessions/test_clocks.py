"""Times that Redis stored while its clock was ahead or behind delay nobody."""

import asyncio
import re
import secrets
from dataclasses import replace
from typing import Any

import pytest

from config.settings import Settings
from sessions import export_slot, keys
from sessions.client.connection import Client
from sessions.keys import AddressDigest, ConversationId, Owner, SessionDigest, TurnId
from sessions.limits import ConversationLimiter, Rate
from sessions.session_store import Session
from sessions.turns.turn_limits import TurnLimiter, TurnLimits
from sessions.turns.turn_record import TurnRef
from sessions.turns.turn_store import TurnStore
from tests.processes import PATIENCE_S, ROOT
from tests.questions import question_at

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
SHIFTS_MS = [-YEAR_MS, -HOUR_MS, HOUR_MS, YEAR_MS]
"""By how much the clock was wrong when a time was stored."""

AHEAD_MS = [61_000, HOUR_MS, YEAR_MS]
"""By how much the clock was ahead: a lease of 60 s then ends later than any can."""


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.fixture
def ref() -> TurnRef:
    return TurnRef(
        Owner(secrets.token_urlsafe(8)),
        ConversationId(secrets.token_urlsafe(12)),
        TurnId(secrets.token_urlsafe(16)),
        address=AddressDigest(secrets.token_hex(16)),
    )


async def begin(redis: Client, ref: TurnRef, shift_ms: int) -> TurnStore:
    """Begin a turn whose lease and place in the index have wrong times."""
    store = TurnStore(redis, lease_s=60, ttl_s=1000)
    assert (await store.begin(question_at(ref))).outcome == "begun"
    await redis.hincrby(ref.turn_key, "lease", shift_ms)
    await redis.zincrby(keys.running(), shift_ms, ref.member)
    return store


@pytest.mark.parametrize("shift_ms", [-YEAR_MS, -HOUR_MS])
async def test_a_lease_that_was_written_at_another_time_has_expired(
    redis: Client, ref: TurnRef, shift_ms: int
) -> None:
    store = await begin(redis, ref, shift_ms)
    assert ref in await store.expired_leases()
    assert (await store.take_over(ref, "attempt-2")).fence == 2
    # From now on its times are right.
    assert (await store.take_over(ref, "attempt-3")).fence == 0
    await store.postpone(ref)
    assert ref not in await store.expired_leases()
    assert await store.renew([(ref, 2)]) == [1]
    assert await store.finish(ref, 2, 8, b"end", "done", "")


@pytest.mark.parametrize("shift_ms", AHEAD_MS)
async def test_a_worker_that_lives_keeps_its_turns_when_the_clock_is_set_back(
    redis: Client, ref: TurnRef, shift_ms: int
) -> None:
    store = await begin(redis, ref, shift_ms)
    for attempt in ("attempt-2", "attempt-2", "attempt-3"):
        assert (await store.take_over(ref, attempt)).fence == 0
    await store.postpone(ref)
    assert ref not in await store.expired_leases()
    assert await store.renew([(ref, 1)]) == [1]
    assert (await store.take_over(ref, "attempt-4")).fence == 0
    assert await store.finish(ref, 1, 8, b"end", "done", "")


@pytest.mark.parametrize("shift_ms", AHEAD_MS)
async def test_a_dead_worker_loses_its_turns_soon_after_the_clock_is_set_back(
    redis: Client, ref: TurnRef, shift_ms: int
) -> None:
    await begin(redis, ref, shift_ms)
    store = TurnStore(redis, lease_s=0.2, ttl_s=1000)
    fences: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while 2 not in fences:
            if ref in await store.expired_leases():
                fences.append((await store.take_over(ref, "attempt-2")).fence)
                if fences[-1] == 0:
                    await store.postpone(ref)
            await asyncio.sleep(0.02)
    assert fences[0] == 0, "its worker had time to renew the lease"


async def test_a_lease_that_holds_is_not_expired(redis: Client, ref: TurnRef) -> None:
    store = await begin(redis, ref, 0)
    assert ref not in await store.expired_leases()
    assert (await store.take_over(ref, "attempt-2")).fence == 0
    assert await store.finish(ref, 1, 8, b"end", "done", "")


async def test_expired_leases_before_and_after_now_are_all_found(
    redis: Client, ref: TurnRef
) -> None:
    refs = [replace(ref, turn=TurnId(secrets.token_urlsafe(16))) for _ in SHIFTS_MS]
    for one, shift_ms in zip(refs, SHIFTS_MS, strict=True):
        one_alone = replace(one, conversation=keys.NO_CONVERSATION)
        store = await begin(redis, one_alone, shift_ms)
    found = {one.turn for one in await store.expired_leases()}
    assert found >= {one.turn for one in refs}


def test_the_longest_lease_is_that_of_the_setting() -> None:
    (maximum,) = (
        constraint.le
        for constraint in Settings.model_fields["lease_s"].metadata
        if hasattr(constraint, "le")
    )
    text = (ROOT / "sessions/lua/shared/lease.lua").read_text()
    found = re.search(r"MAX_LEASE_MS = (\d+)", text)
    assert found
    assert int(found[1]) == maximum * 1000


@pytest.mark.parametrize("left_ms", [HOUR_MS + 60_000, YEAR_MS])
@pytest.mark.parametrize("scope", ["session", "address"])
async def test_a_full_window_that_ends_later_than_it_is_long_has_ended(
    redis: Client, ref: TurnRef, scope: str, left_ms: int
) -> None:
    limits: dict[str, Any] = {f"{scope}_rate": Rate(2, 60)}
    limiter = TurnLimiter(redis, TurnLimits(**limits), lease_s=1)
    assert ref.address
    key = {"session": keys.session_rate(ref.owner), "address": keys.address_rate(ref.address)}[
        scope
    ]
    for name in (key, keys.address_bytes(ref.address)):
        await redis.set(name, 10**9, px=left_ms)
    assert await limiter.admit(ref) is None
    assert 0 < await redis.ttl(key) <= 60
    assert await redis.get(key) == b"1"


@pytest.mark.parametrize("left_ms", [HOUR_MS + 60_000, YEAR_MS])
async def test_a_full_window_of_conversations_that_ends_too_late_has_ended(
    redis: Client, ref: TurnRef, left_ms: int
) -> None:
    limiter = ConversationLimiter(redis, Rate(2, 60), Rate(2, 60))
    assert ref.address
    for key in (keys.conversation_rate(ref.owner), keys.address_bytes(ref.address)):
        await redis.set(key, 10**9, px=left_ms)
    assert await limiter.count_write(ref.owner, ref.address, 1) == 0
    assert 0 < await redis.ttl(keys.conversation_rate(ref.owner)) <= 60


@pytest.mark.parametrize("left_ms", [HOUR_MS + 60_000, YEAR_MS, None])
async def test_an_export_that_was_claimed_at_another_time_prevents_no_other(
    redis: Client, ref: TurnRef, left_ms: int | None
) -> None:
    await redis.set(keys.export(ref.owner), "claim-of-a-dead-worker", px=left_ms)
    assert await export_slot.claim(redis, ref.owner)
    assert 0 < await redis.pttl(keys.export(ref.owner)) <= keys.EXPORT_TTL_S * 1000
    assert await export_slot.claim(redis, ref.owner) is None


@pytest.mark.parametrize("age_s", [-365 * 86_400, -3600, 3600])
def test_a_session_of_another_time_is_not_recent(
    age_s: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    created = 1_700_000_000 - age_s
    assert not Session(SessionDigest("d"), Owner("o"), created=created).is_recent
    assert Session(SessionDigest("d"), Owner("o"), created=1_700_000_000 - 2).is_recent
    assert Session(SessionDigest("d"), Owner("o"), created=1_700_000_000 + 2).is_recent
