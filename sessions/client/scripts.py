"""Run scripts and commands by name, many in one write, without redis-py's overhead per command."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis

from sessions.client.connection import Client, is_cluster
from sessions.client.errors import (
    CONNECTION_ERRORS,
    NoScriptError,
    ReplyTimeout,
    call_redis_py,
    classify_reply,
)
from sessions.client.unreadable import find_unreadable, is_type_error

_FOLDER = Path(__file__).parents[1] / "lua"
_PARTS = {
    "announce": re.compile(rb"\b(announce|MAX_EVENTS)\b"),
    "full_memory": re.compile(rb"\ballow_full_memory\("),
    "lease": re.compile(rb"\bMAX_LEASE_MS\b"),
    "usage": re.compile(rb"\b(find_limit|set_size|grow|forget)\("),
}
"""The parts that scripts share, with the names by which a script uses them."""


def _read_script(path: Path) -> bytes:
    """Return a script, after the shared parts that it uses."""
    text = path.read_bytes()
    parts = [name for name, names in _PARTS.items() if names.search(text)]
    return b"".join([(_FOLDER / "shared" / f"{name}.lua").read_bytes() for name in parts]) + text


SCRIPTS = {path.stem: _read_script(path) for path in sorted(_FOLDER.glob("*.lua"))}
_SHARDED = {name: text.replace(b"'PUBLISH'", b"'SPUBLISH'") for name, text in SCRIPTS.items()}
"""On a Cluster a notification stays on the node of its log instead of going to all nodes."""

Argument = str | bytes | int | float
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""Name of a script (lower case) or of a command (capitals), its keys, its arguments."""

_Command = tuple[Argument, ...]


async def call(redis: Client, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run one script or command and return its raw reply; raise an error of Redis."""
    (reply,) = raise_errors(await call_all(redis, [(name, keys, arguments)]))
    return reply


async def call_in_order(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run calls one after another, on a single Redis in one write; raise the first error."""
    if is_cluster(redis):  # calls to different nodes have no order
        return [await call(redis, *one) for one in calls]
    return raise_errors(await call_all(redis, calls))


async def call_all(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run calls in one write for each node; an error of Redis is returned as the call's reply.

    A key of the wrong type is dropped, and the call that needs it runs again.
    """
    replies = await _send(redis, calls)
    if NoScriptError in map(type, replies):  # Redis has restarted
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        await load(redis)
        await _repeat(redis, calls, replies, missing)
    if unreadable := [i for i, reply in enumerate(replies) if is_type_error(reply)]:
        await _drop_unreadable(redis, [key for i in unreadable for key in calls[i][1]])
        await _repeat(redis, calls, replies, unreadable)
    return replies


async def _repeat(
    redis: Client, calls: Sequence[Call], replies: list[Any], numbers: list[int]
) -> None:
    """Run some of the calls again, and replace their replies."""
    again = await _send(redis, [calls[i] for i in numbers])
    for i, reply in zip(numbers, again, strict=True):
        replies[i] = reply


async def _drop_unreadable(redis: Client, names: list[str]) -> None:
    names = list(dict.fromkeys(names))
    types = raise_errors(await _send(redis, [("TYPE", [name], []) for name in names]))
    drops: list[Call] = [("UNLINK", [name], []) for name in find_unreadable(names, types)]
    if drops:
        raise_errors(await _send(redis, drops))


def raise_errors(replies: list[Any]) -> list[Any]:
    """Return replies without an error; raise the first error among them."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def load(redis: Client) -> None:
    """Load every script in one write for each node; raise UNAVAILABLE_ERRORS."""
    if is_cluster(redis):
        async with ReplyTimeout():
            await call_redis_py(redis.initialize())
            pipeline = redis.pipeline(transaction=False)
            for node in redis.get_primaries():
                for text in _SHARDED.values():
                    pipeline.execute_command("SCRIPT LOAD", text, target_nodes=node)
            replies = await _execute(pipeline)
    else:
        replies = await _exchange(redis, [("SCRIPT", "LOAD", text) for text in SCRIPTS.values()])
    raise_errors(replies)


async def call_once(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run calls as `call_all` does, but neither load scripts nor drop keys of the wrong type."""
    return await _send(redis, calls)


async def _send(redis: Client, calls: Sequence[Call]) -> list[Any]:
    if not is_cluster(redis):
        return await _exchange(redis, [_build_command(one, _SHAS) for one in calls])
    commands = [_build_command(one, _SHARDED_SHAS) for one in calls]
    async with ReplyTimeout():
        replies = await _exchange_with_cluster(redis, commands)
        # redis-py's pipeline repeats a command that it could not send, but not one without a reply.
        lost = [i for i, reply in enumerate(replies) if isinstance(reply, CONNECTION_ERRORS)]
        if lost:
            again = await _exchange_with_cluster(redis, [commands[i] for i in lost])
            for i, reply in zip(lost, again, strict=True):
                replies[i] = reply
    return replies


async def _exchange(redis: Client, commands: Sequence[_Command]) -> list[Any]:
    pack: Any = hiredis.pack_command
    packed = b"".join([pack(command) for command in commands])
    found: list[Any] = await redis.pipelines.exchange(packed, len(commands))
    return found


async def _exchange_with_cluster(redis: Client, commands: Sequence[_Command]) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return await _execute(pipeline)


async def _execute(pipeline: Any) -> list[Any]:
    replies: list[Any] = await call_redis_py(pipeline.execute(raise_on_error=False))
    return [classify_reply(reply) for reply in replies]


def _build_command(call: Call, shas: dict[str, str]) -> _Command:
    name, keys, arguments = call
    sha = shas.get(name)
    return ("EVALSHA", sha, len(keys), *keys, *arguments) if sha else (name, *keys, *arguments)


def _hash_scripts(texts: dict[str, bytes]) -> dict[str, str]:
    return {
        name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in texts.items()
    }


_SHAS, _SHARDED_SHAS = _hash_scripts(SCRIPTS), _hash_scripts(_SHARDED)
