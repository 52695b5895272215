"""The index of running turns: the turns whose workers must renew their leases.

A turn is entered before it is created, so that none can be lost with its worker. An entry whose
turn was never created, or has ended, is removed once its lease has expired.
"""

import logging
from collections.abc import Sequence

from sessions import keys
from sessions.client.connection import Client
from sessions.client.scripts import Argument, Call, call, call_all, call_in_order, raise_errors
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turns.turn_record import TurnRef

logger = logging.getLogger("holdline.turn_store")

MAX_EXPIRED = 100
"""Maximum number of entries that one script call returns."""


def build_registrations(refs: Sequence[TurnRef], lease_ms: int) -> list[Call]:
    """Return the calls that enter turns, or renew their leases."""
    members: dict[str, list[Argument]] = {}
    limit_keys: dict[str, dict[str, None]] = {}
    for ref in refs:
        index = _get_index(ref)
        members.setdefault(index, [lease_ms, keys.LIMITED_TURNS_TTL_S]).append(ref.member)
        limit_keys.setdefault(index, {}).update(dict.fromkeys(ref.limit_keys))
    return [
        ("register", [index, *limit_keys[index]], arguments) for index, arguments in members.items()
    ]


def build_unregistration(ref: TurnRef) -> Call:
    """Return the call that removes a turn."""
    return ("unregister", [_get_index(ref), *ref.limit_keys], [ref.member])


async def sweep(redis: Client) -> list[TurnRef]:
    """Return running turns whose lease has expired; raises UNAVAILABLE_ERRORS.

    All other entries whose lease has expired are removed, MAX_EXPIRED of them in three exchanges:
    clients can cause many.
    """
    indexes = [keys.running(), keys.legacy_running()]
    calls: list[Call] = [("expired", [index], [MAX_EXPIRED]) for index in indexes]
    while True:
        pages = await call_in_order(redis, calls)
        refs = [
            {member: _decode_ref(member, index) for member in members}
            for index, members in zip(indexes, pages, strict=True)
        ]
        running = await _select_running(redis, [ref for page in refs for ref in page.values()])
        has_more = False
        for index, page in zip(indexes, refs, strict=True):
            dead = [member for member, ref in page.items() if ref not in running]
            if dead:
                await call(redis, "unregister", [index], dead)
            has_more = has_more or (bool(dead) and len(page) == MAX_EXPIRED)
        if not has_more:
            return list(running)


async def _select_running(redis: Client, refs: Sequence[TurnRef | None]) -> dict[TurnRef, None]:
    """Return those of the turns that are running."""
    found = [ref for ref in refs if ref]
    if not found:
        return {}
    calls: list[Call] = [("HGET", [ref.turn_key], ["state"]) for ref in found]
    states = raise_errors(await call_all(redis, calls))
    return {ref: None for ref, state in zip(found, states, strict=True) if state == b"running"}


def _get_index(ref: TurnRef) -> str:
    return keys.legacy_running() if ref.is_legacy else keys.running()


def _decode_ref(member: bytes, index: str) -> TurnRef | None:
    """Return the turn that a member names; None, and a warning, for a malformed one."""
    parts = member.decode("ascii", "replace").split(" ")
    if len(parts) != 3 or not keys.is_owner(parts[0]) or not all(map(keys.is_id, parts[1:])):
        logger.warning("removed a malformed member of %s: %r", index, member[:200])
        return None
    owner, conversation, turn = parts
    is_legacy = index == keys.legacy_running()
    return TurnRef(Owner(owner), ConversationId(conversation), TurnId(turn), is_legacy)
