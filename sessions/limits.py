"""The limits of an owner: the data that it stores, and its requests for conversations."""

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
"""Number of requests for conversations that are allowed for each turn of RATE_LIMIT."""

LimitedResource = Literal["memory", "bytes", "conversations", "messages"]
"""A resource with a limit: the memory of Redis, the bytes or the conversations of an owner, or the
messages of a conversation."""


class StorageLimitReached(Exception):
    """A write would exceed a limit; nothing has been written."""

    def __init__(self, resource: LimitedResource) -> None:
        super().__init__(f"the limit of {resource} is reached")
        self.resource = resource


class StorageLimits:
    """The limits that scripts check before they write.

    The task of `memory_watch` must run: it reports whether the memory of Redis is full.
    """

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


_MIN_ADDRESS_BYTES = 1_000_000
_BYTES_PER_TURN = 8_000
"""Bytes that an address may store in a window: a minimum, and more for each turn of its rate. This
allows as many short questions in new conversations as turns."""

_MESSAGE_BYTES = 600
_CONVERSATION_BYTES = 6_000
"""Estimated bytes that Redis needs to store a message besides its text, and to store the first
conversation of a session."""


class Rate(NamedTuple):
    """A maximum number of new turns in a window; 0 for no limit."""

    turns: int
    window_s: int

    @property
    def max_bytes(self) -> int:
        """Maximum number of bytes that an address with this rate stores in the window."""
        return _MIN_ADDRESS_BYTES + _BYTES_PER_TURN * self.turns if self.turns else 0


def estimate_bytes(text: str, *, creates: bool) -> int:
    """Return the bytes that Redis needs for a text, with a new conversation if it `creates` one."""
    return len(text.encode()) + (_CONVERSATION_BYTES if creates else _MESSAGE_BYTES)


NO_RATE = Rate(0, 1)


class ConversationLimiter:
    """Limits the requests that create, change, list and export conversations.

    `session_rate` is RATE_LIMIT, and `address_rate` is RATE_LIMIT_ADDRESS. Every method returns the
    seconds until the request is allowed, 0 if it is allowed now. Raises UNAVAILABLE_ERRORS.
    """

    def __init__(self, redis: Client, session_rate: Rate, address_rate: Rate = NO_RATE) -> None:
        self._redis = redis
        self._session_rate = session_rate
        self._address_rate = address_rate

    async def count_read(self, owner: Owner) -> int:
        """Count a request that reads; if the owner has no conversations, write nothing."""
        return await self._count_request(owner, [keys.conversations(owner)])

    async def count_write(self, owner: Owner, address: AddressDigest | None, size: int) -> int:
        """Count a request that stores `size` bytes, which count for the address, if any."""
        rate = self._address_rate
        if address and rate.turns:
            arguments = [rate.max_bytes, rate.window_s, size]
            if wait_s := await self._count([keys.address_bytes(address)], arguments):
                return wait_s
        return await self._count_request(owner, [])

    async def _count_request(self, owner: Owner, names: list[str]) -> int:
        turns, window_s = self._session_rate
        if not turns:
            return 0
        arguments = [_REQUESTS_PER_TURN * turns, window_s, 1]
        return await self._count([keys.conversation_rate(owner), *names], arguments)

    async def _count(self, names: list[str], arguments: list[int]) -> int:
        found: int = await call(self._redis, "count", names, arguments)
        return found
