"""Use all file descriptors that the system allows, and derive CONNECTIONS_MAX from the system."""

import logging
import resource
import sys
from contextlib import suppress

from config.system.memory import read_memory_limit

logger = logging.getLogger("holdline.descriptors")

_MIN_CONNECTIONS = 1_000
"""A small memory never lowers the number of connections below this one: an ordinary connection,
such as an event channel, has no body, and takes about 10 kB."""

_MAX_CONNECTIONS = 10_000
"""Maximum number of connections that is derived."""

_MAX_BODY_BYTES = 1 << 20
"""Memory that any client can take with one connection, for the body of a request."""

_MEMORY_SHARE = 4
"""The bodies of all connections of a worker may take this fraction of the memory: 1/4."""

_ADDRESS_SHARE = 4
"""An address may have this fraction of all connections: 1/4."""


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; log and return the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has another limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = get_limit()
    logger.info("each process may open %d files (RLIMIT_NOFILE)", soft)
    return soft


def get_limit() -> int:
    """Return the number of files that this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def choose_connection_limits(
    setting: str, descriptors: int | None = None, memory: int | None = None
) -> tuple[int, int]:
    """Return how many connections a worker may have from one address, and in total.

    With `auto`, clients have half of the descriptors, because each answer needs one for its
    upstream, too; and bodies of requests fit into their share of the memory, in bytes. Both are
    those of this process if not given.
    """
    descriptors = descriptors or get_limit()
    if setting == "off":
        return sys.maxsize, sys.maxsize
    if setting == "auto":
        bodies = (memory or read_memory_limit()) // _MEMORY_SHARE // _MAX_BODY_BYTES
        total = min(descriptors // 2, max(bodies, _MIN_CONNECTIONS), _MAX_CONNECTIONS)
        return max(1, total // _ADDRESS_SHARE), max(1, total)
    per_address, total = map(int, setting.split(","))
    if total > descriptors:
        logger.warning(
            "CONNECTIONS_MAX allows %d connections, but a process may open %d files only: "
            "raise the limit of open files (ulimit -n, LimitNOFILE)",
            total,
            descriptors,
        )
    return per_address, total
