"""Limit new turns: by their rate and by the number that run, per session, address and server."""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import Argument, Call, call, call_in_order
from sessions.keys import AddressDigest, TurnId
from sessions.limits import NO_RATE, Rate
from sessions.turns.turn_record import TurnRef

Scope = Literal["session", "address", "server"]

_KEY_BYTES = 32
_MAX_KEY_BYTES = 64
"""The longest key that BLAKE2b accepts."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """The values of the limits of new turns. A maximum of 0 is no limit."""

    session_rate: Rate = NO_RATE
    address_rate: Rate = NO_RATE
    session_turns: int = 0
    """Maximum number of turns of a session that run at the same time."""
    address_turns: int = 0
    server_turns: int = 0


class Rejection(NamedTuple):
    """The limit that a new turn exceeds, and the time until the window ends if it has one.

    `kind` is "rate" for the number of new turns in a window, "bytes" for the bytes that they store
    in it, and "turns" for the number of running turns.
    """

    kind: Literal["rate", "bytes", "turns"]
    scope: Scope
    retry_after_s: int = 0


class TurnLimiter:
    """Admits new turns; every method raises UNAVAILABLE_ERRORS."""

    def __init__(self, redis: Client, limits: TurnLimits, *, lease_s: float) -> None:
        self._redis = redis
        self.limits = limits
        self._lease_ms = int(lease_s * 1000)
        self._address_key: bytes | None = None

    async def admit(
        self,
        ref: TurnRef,
        replaced: TurnId | None = None,
        *,
        size: int = 0,
        is_counted: bool = False,
    ) -> Rejection | None:
        """Count a new turn and register it as running; return the limit that it exceeds, or None.

        The turn must begin within its lease, or be admitted again: a registered turn keeps its
        place. The running turn `replaced`, in the same conversation, does not count. The question
        stores `size` bytes. A turn that `is_counted` is exempt from the rates and from this size.
        """
        limits = self.limits
        names = [
            keys.running(),
            keys.session_rate(ref.owner),
            keys.session_turns(ref.owner),
        ]
        if ref.address:
            names += (
                keys.address_rate(ref.address),
                keys.address_turns(ref.address),
                keys.address_bytes(ref.address),
            )
        other = TurnRef(ref.owner, ref.conversation, replaced).member if replaced else ""
        arguments: list[Argument] = [
            ref.member, other, self._lease_ms, keys.LIMITED_TURNS_TTL_S, int(is_counted),
            limits.server_turns, *limits.session_rate, limits.session_turns, *limits.address_rate,
            limits.address_turns, size, limits.address_rate.max_bytes,
        ]  # fmt: skip
        kind, *details = await call(self._redis, "admit", names, arguments)
        if kind == b"admitted":
            return None
        scope = details[0].decode()
        if kind == b"turns":
            return Rejection("turns", scope)
        return Rejection(kind.decode(), scope, max(1, details[1]))

    async def hash_address(self, network: str) -> AddressDigest:
        """Return the keyed hash of a client's network, which is all that Redis stores of it."""
        if self._address_key is None:
            key = [keys.address_key()]
            read: Call = ("GET", key, [])
            found = await call(self._redis, *read)
            if found is None:  # written only then: a full memory rejects every write
                chosen: Call = ("SET", key, [secrets.token_bytes(_KEY_BYTES), "NX"])
                _, found = await call_in_order(self._redis, [chosen, read])
            self._address_key = found[:_MAX_KEY_BYTES]
        digest = hashlib.blake2b(network.encode(), digest_size=16, key=self._address_key)
        return AddressDigest(digest.hexdigest())
