"""The limits of an owner: what it may store, and how often it may use its conversations."""

from typing import Literal, NamedTuple

from sessions import keys
from sessions.client.connection import Client
from sessions.client.memory import MemoryWatch
from sessions.client.scripts import Argument, call
from sessions.keys import AddressDigest, Owner

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


class Rate(NamedTuple):
    """A maximum number of new turns in a window; 0 for no limit."""

    turns: int
    window_s: int


NO_RATE = Rate(0, 1)


class ConversationRate:
    """Limits the requests that create, change, list and export conversations.

    The rates are RATE_LIMIT and RATE_LIMIT_ADDRESS. Every method returns the seconds until the
    request is allowed, 0 for now, and raises UNAVAILABLE_ERRORS.
    """

    def __init__(self, redis: Client, session_rate: Rate, address_rate: Rate = NO_RATE) -> None:
        self._redis = redis
        self._session_rate = session_rate
        self._address_rate = address_rate

    async def count_use(self, owner: Owner) -> int:
        """Count a request, unless the owner has no conversations: then it is not worth a write."""
        names = [keys.conversation_rate(owner), keys.conversations(owner)]
        return await self._count(names, self._session_rate)

    async def count_creation(self, owner: Owner, address: AddressDigest | None) -> int:
        """Count a request that creates a conversation, also for its address if that is known."""
        if address:
            names = [keys.address_conversation_rate(address)]
            if wait_s := await self._count(names, self._address_rate):
                return wait_s
        return await self._count([keys.conversation_rate(owner)], self._session_rate)

    async def _count(self, names: list[str], rate: Rate) -> int:
        if not rate.turns:
            return 0
        arguments = [_REQUESTS_PER_TURN * rate.turns, rate.window_s]
        found: int = await call(self._redis, "count", names, arguments)
        return found
