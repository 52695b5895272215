"""The one way to Redis: its errors, its scripts, its connections."""

import asyncio
import hashlib

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessions.client import scripts
from sessions.client.connection import MAX_CONNECTIONS, connect
from sessions.client.errors import (
    UNAVAILABLE_ERRORS,
    ReplyTimeout,
    WritesUnavailable,
    as_connection_error,
    classify_reply,
)
from sessions.client.notifications import Notifications
from tests.own_redis import own_redis
from tests.processes import PATIENCE_S, redis_server
from tests.proxy import redis_proxy


async def test_a_server_of_another_protocol_counts_as_unavailable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        client = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(UNAVAILABLE_ERRORS):
            await scripts.call(client, "PUBLISH", ["channel"], [""])
        await client.aclose()


@pytest.mark.parametrize(
    "text",
    [
        "NOREPLICAS Not enough good replicas to write.",
        "MISCONF Redis is configured to save RDB snapshots, but it cannot persist on disk.",
        "Error running script (call to f_1): @user_script:1: -READONLY You can't write against",
        "The user executing the script can't publish to the channel mentioned in the command",
        "ACL failure in script: User hold has no permissions to run the 'set' command script: x",
    ],
)
def test_an_error_that_rejects_writes_for_now_counts_as_unavailable(text: str) -> None:
    found = classify_reply(ResponseError(text))
    assert isinstance(found, WritesUnavailable)
    assert isinstance(found, UNAVAILABLE_ERRORS)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "unknown command 'EVALSHA', with args beginning with: 'x'",
        "unknown command `EVALSHA`, with args beginning with: `x`",
        "Unknown Redis command called from script script: x, on @user_script:9.",
    ],
)
def test_a_command_that_redis_does_not_have_counts_as_unavailable(text: str) -> None:
    assert isinstance(classify_reply(ResponseError(text)), UNAVAILABLE_ERRORS)


async def test_a_database_that_redis_does_not_have_counts_as_unavailable() -> None:
    async with redis_server("--databases", "2") as url:
        client = connect(f"{url}?db=2")
        for _ in range(2):
            with pytest.raises(UNAVAILABLE_ERRORS, match="out of range"):
                await scripts.call(client, "GET", ["key"], [])
        notifications = Notifications(client)
        running = asyncio.create_task(notifications.run("channel", lambda data: None))
        async with asyncio.timeout(PATIENCE_S):
            while not notifications.fault:
                await asyncio.sleep(0.01)
        assert notifications.fault.reason == "Redis has no database of this number"
        await notifications.subscribe("other", lambda channel: None, lambda channel, data: None)
        await notifications.unsubscribe("other")
        assert not running.done()
        running.cancel()
        await asyncio.wait([running])
        await client.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        1,
        b"MISCONF as data",
        None,
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
        ResponseError("ERR about MISCONF "),
        NoScriptError("No matching script."),
    ],
)
def test_other_replies_are_returned_unchanged(reply: object) -> None:
    assert classify_reply(reply) is reply


@pytest.mark.parametrize("error", [AttributeError("x"), KeyError("x"), RuntimeError("x")])
async def test_an_error_of_a_closed_connection_is_converted_only_around_the_call(
    error: Exception,
) -> None:
    with pytest.raises(RedisConnectionError), as_connection_error():
        raise error
    assert isinstance(classify_reply(error), RedisConnectionError)
    with pytest.raises(type(error)):  # an error of Holdline's own code must not be retried
        async with ReplyTimeout():
            raise error


async def test_a_late_reply_is_a_timeout_of_redis() -> None:
    with pytest.raises(RedisTimeoutError):
        async with ReplyTimeout(0.01):
            await asyncio.Event().wait()


async def test_scripts_are_loaded_again_in_one_write_after_redis_has_lost_them() -> None:
    async with own_redis() as redis, redis_proxy(redis.url) as proxy:
        client = connect(proxy.url)
        await scripts.load(client)
        await redis.admin.script_flush()
        proxy.exchanges.clear()
        calls: list[scripts.Call] = [
            ("register", ["holdline:running"], [0, 60, "member"]),
            ("expired", ["holdline:running"], [10]),
        ]
        assert (await scripts.call_in_order(client, calls))[1] == [b"member"]
        sent = [[command[0] for command in exchange] for exchange in proxy.exchanges]
        assert sent == [[b"EVALSHA"] * 2, [b"SCRIPT"] * len(scripts.SCRIPTS), [b"EVALSHA"] * 2]
        await client.aclose()


async def test_commands_and_notifications_share_one_pool() -> None:
    async with own_redis() as redis:
        client = connect(redis.url)
        pubsub = client.pubsub()
        await asyncio.gather(
            *(scripts.call(client, "ECHO", [], ["x"]) for _ in range(4 * MAX_CONNECTIONS))
        )
        await pubsub.subscribe("channel")
        await asyncio.gather(
            *(scripts.call(client, "ECHO", [], ["x"]) for _ in range(4 * MAX_CONNECTIONS))
        )
        listed = await redis.admin.client_list()
        own = int((await redis.admin.client_info())["id"])
        assert len([one for one in listed if int(one["id"]) != own]) == MAX_CONNECTIONS
        await pubsub.aclose()
        await client.aclose()


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_cancellation_while_connecting_ends_a_call(redis_url: str, steps: int) -> None:
    """On Python 3.11 redis-py swallows a cancellation while it connects."""
    client = connect(redis_url)
    calling = asyncio.create_task(scripts.call(client, "GET", ["key"], []))
    for _ in range(steps):
        await asyncio.sleep(0)
    if calling.cancel():
        await asyncio.wait([calling])
        assert calling.cancelled()
    await client.aclose()


def test_a_script_is_called_by_the_hash_of_its_text() -> None:
    for name, text in scripts.SCRIPTS.items():
        command = scripts._build_command((name, ["key"], ["argument"]), scripts._SHAS)
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        assert command == ("EVALSHA", sha, 1, "key", "argument")
