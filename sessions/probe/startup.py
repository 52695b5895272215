"""Try REDIS_URL before the server starts: a setting that Redis rejects now stays wrong.

A Redis that is down is no reason not to start: answers wait until it is back.
"""

import asyncio
import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection

from sessions import keys
from sessions.client import scripts
from sessions.client.connection import Client, connect, is_cluster
from sessions.client.errors import UNAVAILABLE_ERRORS, ResponseError
from sessions.client.faults import LOST, SILENT, Fault, find_fault
from sessions.client.greeting import diagnose
from sessions.client.info import list_nodes, read_info
from sessions.client.notifications import try_subscription
from sessions.probe.requirements import try_commands
from sessions.probe.settings import find_server_fault

logger = logging.getLogger("holdline.redis")

_TIME_LIMIT_S = 3.0
_TIME_LIMIT_WITH_LOOKUPS_S = 7.0
"""The lookup of a host name cannot be cancelled, and may take minutes: its process is killed."""

_fork = multiprocessing.get_context("fork")


class UrlRejected(Exception):
    """Redis rejects REDIS_URL; the message names the reason and the remedy."""


def try_redis(url: str) -> None:
    """Try all that Holdline uses in Redis; raise UrlRejected if Redis would never serve it.

    If Redis is down, this is logged within `_TIME_LIMIT_WITH_LOOKUPS_S`. A child process tries
    Redis: the caller forks workers later, and must have neither threads nor connections.
    """
    receiver, sender = _fork.Pipe(duplex=False)
    process = _fork.Process(target=_run, args=(url, sender), daemon=True)
    process.start()
    sender.close()
    try:
        fault = receiver.recv() if receiver.poll(_TIME_LIMIT_WITH_LOOKUPS_S) else SILENT
    except EOFError:  # the process has been killed
        fault = SILENT
    finally:
        process.kill()
        process.join()
        receiver.close()
    if fault and fault.remedy:
        raise UrlRejected(f"cannot use REDIS_URL: {fault}")
    if fault:
        logger.warning("%s: the server starts, and answers wait until Redis serves", fault.reason)


def _run(url: str, sender: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it
    try:
        fault = asyncio.run(find_startup_fault(url))
    except Exception as error:  # the parent process reports it
        logger.debug("the try of Redis failed", exc_info=True)
        fault = find_fault(error)
    sender.send(fault)


async def find_startup_fault(url: str) -> Fault | None:
    """Return why Redis does not serve Holdline; None if it does."""
    try:
        redis = connect(url)
    except ValueError as error:
        return Fault("it is invalid", str(error))
    try:
        async with asyncio.timeout(_TIME_LIMIT_S):
            fault = await _find_server_fault(redis)
            if fault is None:
                await scripts.load(redis)
                await try_commands(redis, with_removals=True)
                await try_subscription(redis, keys.stops(), keys.probe("channel"))
    except (*UNAVAILABLE_ERRORS, ResponseError, TimeoutError) as error:
        fault = find_fault(error)
    finally:
        await redis.aclose()
    if fault in (LOST, SILENT):
        fault = await diagnose(url) or fault
    return fault


async def _find_server_fault(redis: Client) -> Fault | None:
    """Return the fault of a node that is too old, or no Redis server; None if INFO is rejected."""
    try:
        if is_cluster(redis):
            await scripts.call(redis, "EXISTS", [keys.instance()], [])  # it finds its nodes
        found = [await read_info(redis, node, "server") for node in list_nodes(redis)]
    except (*UNAVAILABLE_ERRORS, ResponseError):  # the next command raises what concerns them all
        return None
    faults = [find_server_fault(info, in_cluster=is_cluster(redis)) for info in found]
    return next((fault for fault in faults if fault), None)
