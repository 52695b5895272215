"""The limits of an owner: what it may store, and how often it may use its conversations."""

from typing import Literal

from sessions import keys
from sessions.client.connection import Client
from sessions.client.memory import MemoryWatch
from sessions.client.scripts import Argument, call
from sessions.keys import Owner

MAX_CONVERSATIONS = 10_000
"""Maximum number of conversations of an owner."""

MAX_MESSAGES = 10_000
"""Maximum number of messages of a conversation; one with many branches may have more."""

_REQUESTS_PER_TURN = 10
"""Requests that use conversations, for each turn that RATE_LIMIT allows."""

Limit = Literal["memory", "bytes", "conversations", "messages"]
"""The memory of Redis, or what the owner has: bytes, conversations, messages of this one."""


class StorageLimitReached(Exception):
    """A limit does not allow what would be stored; nothing has been written."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"the limit of {limit} is reached")
        self.limit = limit


class StorageLimits:
    """The limits that scripts check before they write; `memory_watch` must run."""

    def __init__(self, redis: Client, owner_max_bytes: int = 1 << 50) -> None:
        self._owner_max_bytes = owner_max_bytes
        self.memory_watch = MemoryWatch(redis)

    def build_arguments(self, owner: Owner) -> list[Argument]:
        """Return the arguments that `read_limits` of `lua/shared/usage.lua` reads."""
        is_full = self.memory_watch.is_nearly_full(keys.usage(owner))
        return [
            self._owner_max_bytes, MAX_CONVERSATIONS, MAX_MESSAGES, int(is_full),
            keys.conversation_prefix(owner), keys.messages_prefix(owner),
        ]  # fmt: skip


class ConversationRate:
    """Limits the requests that create, change, list and export conversations.

    `turn_rate` is RATE_LIMIT: a number of turns, 0 for no limit, and a window in seconds.
    """

    def __init__(self, redis: Client, turn_rate: tuple[int, int]) -> None:
        self._redis = redis
        turns, window_s = turn_rate
        self._rate = (_REQUESTS_PER_TURN * turns, window_s)

    async def count(self, owner: Owner, *, creates: bool = False) -> int:
        """Count a request; return the seconds until it is allowed, 0 for now.

        An owner without conversations has nothing to list, so that only a request that `creates`
        one counts, and writes. Raises UNAVAILABLE_ERRORS.
        """
        if not self._rate[0]:
            return 0
        names = [keys.conversation_rate(owner), keys.conversations(owner)]
        found: int = await call(self._redis, "count", names, [*self._rate, int(creates)])
        return found
