"""A log that another worker writes is followed without gaps in spite of lost connections."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest_asyncio

from chat.log.follower import Follower
from chat.log.log import Log, LogState
from chat.log.logs import Logs
from sessions.client.connection import connect
from sessions.client.notifications import Notifications
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turns.turn_record import TurnRecord, TurnRef
from sessions.turns.turn_store import TurnStore
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S
from tests.proxy import Command, RedisProxy, redis_proxy
from tests.questions import question_at

LEASE_S = 60
"""No lease expires, so that no poll of a silent log helps out."""


class Pair:
    """A store that writes logs directly to Redis, and a worker that follows them by a proxy."""

    def __init__(self, writer: TurnStore, logs: Logs, proxy: RedisProxy) -> None:
        self.writer = writer
        self.logs = logs
        self.proxy = proxy

    async def begin(self) -> TurnRecord:
        owner, turn = Owner(secrets.token_urlsafe(8)), TurnId(secrets.token_hex(8))
        ref = TurnRef(owner, ConversationId("conversation"), turn)
        await self.writer.begin(question_at(ref))
        record = await self.writer.find(ref.owner, ref.turn)
        assert record
        return record

    async def append(self, ref: TurnRef, offset: int, data: bytes) -> None:
        assert await self.writer.commit([(ref, 1, offset, data)]) == [1]


@pytest_asyncio.fixture
async def own() -> AsyncIterator[OwnRedis]:
    async with own_redis() as redis:
        yield redis


@pytest_asyncio.fixture
async def pair(own: OwnRedis) -> AsyncIterator[Pair]:
    async with redis_proxy(own.url) as proxy:
        direct, followed = connect(own.url), connect(proxy.url)
        writer, reader = (
            TurnStore(redis, lease_s=LEASE_S, ttl_s=1000) for redis in (direct, followed)
        )
        notifications = Notifications(followed)
        follower = Follower(notifications, reader)
        following = asyncio.create_task(follower.run(lambda turn_key: None))
        await asyncio.sleep(0)
        yield Pair(writer, Logs(reader, follower), proxy)
        following.cancel()
        await asyncio.wait([following])
        await notifications.close()
        await direct.aclose()
        await followed.aclose()


async def until_committed(log: Log, length: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while log.committed < length:
            await log.wait_for_commit()


async def test_a_log_is_read_only_after_its_subscription_is_confirmed(pair: Pair) -> None:
    record = await pair.begin()
    async with pair.logs.open(record) as log:
        assert log.data == b"<user-1>"
        names = [
            command[0] for command in pair.proxy.passed if record.ref.log_key.encode() in command
        ]
        assert names[0] == b"SUBSCRIBE"
        assert len(names) > 1
        await pair.append(record.ref, 8, b"more")
        await until_committed(log, 12)
    assert log.data == b"<user-1>more"


async def test_a_connection_that_dies_silently_is_replaced_and_its_log_catches_up(
    pair: Pair,
) -> None:
    pings: list[Command] = []

    def first_ping(command: Command) -> bool:
        if command[0] == b"PING":
            pings.append(command)
        return command[0] == b"PING" and len(pings) == 1

    record = await pair.begin()
    pair.proxy.hold_replies(first_ping)
    async with pair.logs.open(record) as log:
        async with asyncio.timeout(PATIENCE_S):
            while not pings:
                await asyncio.sleep(0.01)
        await pair.append(record.ref, 8, b"skipped")
        await until_committed(log, 15)
        assert log.data == b"<user-1>skipped"
        assert len(pings) <= 3, "the third PING at the latest is on a new connection"


async def test_bytes_of_a_lost_notification_are_read_after_the_next_one(
    pair: Pair, own: OwnRedis
) -> None:
    record = await pair.begin()
    async with pair.logs.open(record) as log:
        await own.admin.append(record.ref.log_key, b"skipped")
        await pair.append(record.ref, 15, b"heard")
        await until_committed(log, 20)
        assert log.data == b"<user-1>skippedheard"


async def test_a_slow_read_delays_no_other_log(pair: Pair, own: OwnRedis) -> None:
    slow, quick = await pair.begin(), await pair.begin()
    async with pair.logs.open(slow) as stuck, pair.logs.open(quick) as log:
        pair.proxy.hold_replies(lambda command: slow.ref.log_key.encode() in command)
        await own.admin.publish(slow.ref.log_key, b"8:")  # says nothing of the bytes: they are read
        await own.admin.append(slow.ref.log_key, b"late")
        for number in range(3):
            await pair.append(quick.ref, 8 + 4 * number, b"more")
            await until_committed(log, 12 + 4 * number)
        assert stuck.data == b"<user-1>"
        await pair.proxy.recover()
        await until_committed(stuck, 12)


async def test_a_malformed_notification_does_not_end_the_follower(
    pair: Pair, own: OwnRedis
) -> None:
    record = await pair.begin()
    async with pair.logs.open(record) as log:
        for data in (b"", b"nonsense", b"12", b":x", b"-1:x", b"99999999999999999:x", b"\xff\x00:"):
            await own.admin.publish(record.ref.log_key, data)
        await pair.append(record.ref, 8, b"more")
        await until_committed(log, 12)
        assert log.data == b"<user-1>more"


async def test_a_viewer_of_a_deleted_turn_gets_a_failure_and_the_end(
    pair: Pair, own: OwnRedis
) -> None:
    record = await pair.begin()
    async with pair.logs.open(record) as log:
        await own.admin.delete(record.ref.turn_key, record.ref.log_key)
        await own.admin.publish(record.ref.log_key, b"8.")  # the end that was not received
        async with asyncio.timeout(PATIENCE_S):
            while log.is_open:
                await log.wait_for_commit()
        assert log.state is LogState.FINISHED
        assert b'\0f{"type": "not_found"' in log.data
