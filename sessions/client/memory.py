"""Watch how full the memory of Redis is, in order to reject new questions before it is full.

The rest above MAX_SHARE is for the answers that run by then. They may also exceed `maxmemory`; see
`lua/shared/full_memory.lua`.
"""

import asyncio
import logging

from sessions.client.connection import Client, find_node
from sessions.client.errors import UNAVAILABLE_ERRORS, ResponseError
from sessions.client.faults import find_fault
from sessions.client.info import list_nodes, read_info

logger = logging.getLogger("holdline.memory")

MAX_SHARE = 0.9
"""Share of `maxmemory` from which new questions are rejected."""

_INTERVAL_S = 1.0


class MemoryWatch:
    """Knows, from a sample of the last second, which nodes of Redis are nearly full."""

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._full: set[str] = set()

    def is_nearly_full(self, key: str) -> bool:
        """Return whether the node that holds a key had used MAX_SHARE of its memory."""
        return bool(self._full) and find_node(self._redis, key) in self._full

    async def run(self) -> None:
        """Sample every node once a second, until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(_INTERVAL_S)

    async def sample(self) -> None:
        """Read the memory that every node uses; the state of one that does not reply stays."""
        for node in list_nodes(self._redis):
            try:
                memory = await read_info(self._redis, node, "memory")
                limit = int(memory.get("maxmemory", 0))
                # Redis does not compare these buffers with the limit.
                buffers = int(memory.get("mem_not_counted_for_evict", 0))
                used = int(memory.get("used_memory", 0)) - buffers
            except (*UNAVAILABLE_ERRORS, ResponseError, ValueError) as error:
                # A hosted Redis may forbid INFO, and a proxy before Redis may change the reply.
                logger.debug("the memory of Redis is unknown (%s)", find_fault(error))
            else:
                self._note(str(node.name) if node else "", used, limit)

    def _note(self, node: str, used: int, limit: int) -> None:
        was_full = node in self._full
        if not limit or used < limit * MAX_SHARE:
            self._full.discard(node)
            if was_full:
                logger.info("Redis has memory again: new questions are accepted")
            return
        self._full.add(node)
        if not was_full:
            logger.warning(
                "Redis uses %d of %d bytes of its maxmemory: new questions are rejected with 507",
                used,
                limit,
            )
