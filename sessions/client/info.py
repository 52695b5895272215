"""Read what Redis reports about itself."""

import re
from typing import Any

from sessions.client.connection import Client, is_cluster
from sessions.client.errors import ReplyTimeout, call_redis_py
from sessions.client.scripts import call


def list_nodes(redis: Client) -> list[Any]:
    """Return the masters of a Cluster; for a single Redis one None."""
    return list(redis.get_primaries()) if is_cluster(redis) else [None]


async def read_info(redis: Client, node: Any, section: str) -> dict[str, Any]:
    """Return the fields of a section of INFO, from one of `list_nodes`.

    Raises UNAVAILABLE_ERRORS and ResponseError. A proxy before Redis may change the fields.
    """
    if node is None:
        return _parse(await call(redis, "INFO", [], [section]))
    async with ReplyTimeout():
        found: dict[str, Any] = await call_redis_py(redis.info(section, target_nodes=node))
    return found


def _parse(reply: bytes) -> dict[str, Any]:
    return dict(re.findall(r"^(\w+):([^\r\n]*)", reply.decode(errors="replace"), re.MULTILINE))
