"""Warn of settings of Redis that Holdline works with, but that can lose conversations."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from sessions import keys
from sessions.client.connection import Client, is_cluster
from sessions.client.errors import UNAVAILABLE_ERRORS, ResponseError
from sessions.client.faults import Fault, find_fault
from sessions.client.info import list_nodes, read_info
from sessions.client.scripts import call

logger = logging.getLogger("holdline.redis")

_POLL_INTERVAL_S = 1.0
_REPEAT_S = 60
"""Minimum time between the warnings of two workers of one server, which replace each other."""

MIN_VERSION, MIN_CLUSTER_VERSION = (6, 2), (7, 0)
"""The first with ZDIFF and GETEX; the first with sharded pub/sub. Valkey reports 7.2 or later."""


def find_server_fault(info: Mapping[str, Any], *, in_cluster: bool) -> Fault | None:
    """Return the fault of a Sentinel, or of a Redis that is too old.

    `info` is the section `server` of INFO.
    """
    if info.get("redis_mode") == "sentinel":
        return Fault("the server at REDIS_URL is a Redis Sentinel", "name the master in REDIS_URL")
    text = str(info.get("redis_version", ""))
    numbers = [int(part) for part in text.split(".")[:2] if part.isascii() and part.isdigit()]
    needed = MIN_CLUSTER_VERSION if in_cluster else MIN_VERSION
    if len(numbers) < 2 or tuple(numbers) >= needed:
        return None
    return Fault(
        f"Redis {text} is too old",
        f"use Redis {'.'.join(map(str, needed))} or later, or Valkey",
    )


def list_warnings(
    memory: Mapping[str, Any], persistence: Mapping[str, Any], save: str | None
) -> list[str]:
    """Return what can be lost: with sections of INFO, and the setting `save` (None: unknown)."""
    found = []
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        found.append(
            f"with maxmemory-policy {policy}, Redis deletes conversations and sessions when its "
            "memory is full: set it to noeviction"
        )
    if str(persistence.get("aof_enabled", "1")) == "0":
        lost = {
            "": "all conversations, because it stores nothing on disk",
            None: "all conversations since its last snapshot, if it makes any",
        }.get(save, "all conversations since its last snapshot")
        found.append(f"a restart of Redis loses {lost}: set appendonly yes")
    return found


async def find_warnings(redis: Client) -> list[str]:
    """Read the settings of every node; return warnings, or that they are unknown."""
    found: dict[str, None] = {}
    for node in list_nodes(redis):
        try:
            memory = await read_info(redis, node, "memory")
            persistence = await read_info(redis, node, "persistence")
        except (*UNAVAILABLE_ERRORS, ResponseError) as error:
            unknown = f"cannot see whether Redis persists and keeps its data ({find_fault(error)})"
            found[unknown] = None
        else:
            found |= dict.fromkeys(list_warnings(memory, persistence, await _read_save(redis)))
    return list(found)


async def log_warnings(redis: Client) -> None:
    """Log the warnings as soon as Redis serves: the first of a server's workers logs them."""
    key = keys.probe(f"{socket.gethostname()} {os.getppid()}")
    while True:
        try:
            is_first = await call(redis, "SET", [key], ["", "NX", "EX", _REPEAT_S])
        except (*UNAVAILABLE_ERRORS, ResponseError):  # other parts of the worker report it
            await asyncio.sleep(_POLL_INTERVAL_S)
        else:
            break
    if not is_first:
        return
    try:
        for warning in await find_warnings(redis):
            logger.warning("%s", warning)
    except Exception:  # an unknown form of a reply must not end the worker
        logger.warning("cannot see whether Redis persists and keeps its data", exc_info=True)


async def _read_save(redis: Client) -> str | None:
    """Return the setting `save`; None if it is unknown: hosted Redis has no command CONFIG."""
    if is_cluster(redis):
        return None
    try:
        found = await call(redis, "CONFIG", [], ["GET", "save"])
    except (*UNAVAILABLE_ERRORS, ResponseError):
        return None
    return found[1].decode() if found else None
