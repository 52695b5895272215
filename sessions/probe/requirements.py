"""Try every command, key and channel that Holdline uses in Redis.

Redis checks its ACL before a command looks at its key. So most commands here get a key of another
type, or arguments that change nothing: three small writes remain, whose key is removed.
"""

import re
import secrets

from sessions import keys
from sessions.client.connection import Client, is_cluster
from sessions.client.errors import UNAVAILABLE_ERRORS, OutOfMemoryError, ResponseError
from sessions.client.scripts import Argument, Call, call, call_once
from sessions.keys import ConversationId, Owner, SessionDigest, TurnId

_TTL_S = 60

COMMANDS: tuple[tuple[str, tuple[Argument, ...]], ...] = (
    ("SET", ("", "EX", _TTL_S)),
    ("APPEND", ("",)),
    ("EXISTS", ()),
    ("EXPIRE", (_TTL_S,)),
    ("GET", ()),
    ("GETEX", ()),
    ("GETRANGE", (0, 0)),
    ("HDEL", ("",)),
    ("HEXISTS", ("",)),
    ("HGET", ("",)),
    ("HINCRBY", ("", 1)),
    ("HLEN", ()),
    ("HMGET", ("",)),
    ("HSET", ("", "")),
    ("HSETNX", ("", "")),
    ("INCRBY", (1,)),
    ("PTTL", ()),
    ("SADD", ("",)),
    ("SCARD", ()),
    ("SISMEMBER", ("",)),
    ("SPOP", (1,)),
    ("SREM", ("",)),
    ("STRLEN", ()),
    ("TTL", ()),
    ("TYPE", ()),
    ("XADD", ("*", "", "")),
    ("XLEN", ()),
    ("XRANGE", ("-", "+")),
    ("XREVRANGE", ("+", "-")),
    ("ZADD", (0, "")),
    ("ZCARD", ()),
    ("ZRANGE", (0, 0)),
    ("ZRANGEBYSCORE", (0, 0)),
    ("ZREM", ("",)),
    ("ZREVRANGE", (0, 0)),
    ("ZREVRANGEBYSCORE", (0, 0)),
    ("ZSCORE", ("",)),
)
"""The commands that scripts and stores use with one key, with their other arguments."""

REMOVALS: tuple[tuple[str, tuple[Argument, ...]], ...] = (("UNLINK", ()), ("DEL", ()))
"""The same, for those after which the embedded Redis rewrites its append-only file."""

_INTENDED = re.compile(r"WRONGTYPE|wrong kind of value|no such key|not an integer")
"""The errors of a command that Redis accepts, with such a key and such arguments."""


async def try_commands(redis: Client, *, with_removals: bool) -> None:
    """Run everything once, in two exchanges; raise the first error that rejects a command.

    It is one of UNAVAILABLE_ERRORS or a ResponseError.

    Repeated tries of the embedded Redis go without REMOVALS, and so cause no rewrites.

    A full memory is no such error: Redis still serves all but new questions. On a Cluster only the
    node of the index of running turns is tried, without which nothing works.
    """
    key = keys.probe(secrets.token_hex(8))
    commands = (*COMMANDS, *(REMOVALS if with_removals else ()), ("EXPIRE", (0,)))
    calls: list[Call] = [(name, [key], arguments) for name, arguments in commands]
    calls += [
        ("RENAME", [key, key], []),
        ("ZDIFF", [], [1, key]),
        ("PUBLISH", [keys.stops()], [""]),
    ]
    if is_cluster(redis):
        calls.append(("SPUBLISH", [key], [""]))
    else:
        calls += [
            ("TIME", [], []),
            ("SCRIPT", [], ["LOAD", "return 1"]),
            ("PUBLISH", [key], [""]),
            *(("EXISTS", [one], []) for one in _list_kinds_of_keys()),
        ]
    for reply in await call_once(redis, calls):
        if isinstance(reply, OutOfMemoryError) or _INTENDED.search(str(reply)):
            continue
        if isinstance(reply, (*UNAVAILABLE_ERRORS, ResponseError)):
            raise reply
    await call(redis, "expired", [keys.running()], [0])


def _list_kinds_of_keys() -> list[str]:
    """Return a key of each form, in case the ACL allows only some of them."""
    owner = Owner("probe")
    return [
        keys.conversation(owner, ConversationId("probe")),
        keys.first_turn(TurnId("probe")),
        keys.instance(),
        keys.legacy_running(),
        keys.rejected_prefill("probe"),
        keys.running(),
        keys.session(SessionDigest("probe")),
    ]
