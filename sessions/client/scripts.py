"""Scripts and commands called by their names, many in one write, without what redis-py does for each."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hiredis

from sessions.client.connection import Client, is_cluster
from sessions.client.errors import NoScriptError, ReplyTimeout, classify_reply

SCRIPTS = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parents[1] / "lua").glob("*.lua"))
}
_SHARDED = {name: text.replace(b"'PUBLISH'", b"'SPUBLISH'") for name, text in SCRIPTS.items()}
"""On a Cluster a notification stays on the node of its log, rather than to go to all."""

Argument = str | bytes | int | float
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""A script's name or a command's, its keys, its arguments. Commands come as Redis names them, in capitals."""


async def call(redis: Client, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run one script or command by its name; raises what redis-py raises.

    Of a command it is the raw reply, had for half of what redis-py's own methods cost.
    """
    (reply,) = await call_all(redis, [(name, keys, arguments)])
    if isinstance(reply, Exception):
        raise reply
    return reply


async def call_in_order(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run calls one after the other, in one write where one Redis holds all; raises what redis-py raises."""
    if is_cluster(redis):  # its nodes keep no order between them
        return [await call(redis, *one) for one in calls]
    replies = await call_all(redis, calls)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def call_all(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run many calls in one pipeline; a reply that is an error is returned in its place."""
    replies = await _send(redis, calls)
    missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if missing:
        await load(redis)
        for i, reply in zip(missing, await _send(redis, [calls[i] for i in missing]), strict=True):
            replies[i] = reply
    return replies


async def execute(pipeline: Any) -> list[Any]:
    """Run a pipeline of plain commands; raises what redis-py raises."""
    async with ReplyTimeout():
        replies: list[Any] = await pipeline.execute()
    return replies


async def load(redis: Client) -> None:
    """Make every script known to Redis, which forgets them when it restarts."""
    for text in _texts(redis).values():
        await redis.script_load(text)


async def _send(redis: Client, calls: Sequence[Call]) -> list[Any]:
    if not is_cluster(redis):
        packed = b"".join([hiredis.pack_command(_command(one, _SHAS)) for one in calls])  # type: ignore[arg-type]
        found: list[Any] = await redis.pipelines.exchange(packed, len(calls))
        return found
    pipeline = redis.pipeline(transaction=False)
    for one in calls:
        pipeline.execute_command(*_command(one, _SHARDED_SHAS))
    async with ReplyTimeout():
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return [classify_reply(reply) for reply in replies]


def _command(call: Call, shas: dict[str, str]) -> tuple[Argument, ...]:
    name, keys, arguments = call
    sha = shas.get(name)
    return ("EVALSHA", sha, len(keys), *keys, *arguments) if sha else (name, *keys, *arguments)


def _texts(redis: Client) -> dict[str, bytes]:
    return _SHARDED if is_cluster(redis) else SCRIPTS


def _shas(texts: dict[str, bytes]) -> dict[str, str]:
    return {
        name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in texts.items()
    }


_SHAS, _SHARDED_SHAS = _shas(SCRIPTS), _shas(_SHARDED)
