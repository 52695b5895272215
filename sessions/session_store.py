"""Sessions in Redis: the owner that belongs to a cookie; use extends a session."""

import json
import logging
import secrets
import time
from dataclasses import dataclass, field

import msgspec

from sessions import cookie, keys
from sessions.client.connection import Client
from sessions.client.scripts import call
from sessions.keys import Owner, SessionDigest

logger = logging.getLogger("holdline.session_store")


@dataclass(frozen=True, slots=True)
class Session:
    """One browser, and the owner whose data it may see."""

    digest: SessionDigest
    owner: Owner
    is_new: bool = field(default=False, compare=False)
    """Whether this request created the session, so that no other request can know it yet."""


class SessionStore:
    """Creates and finds sessions; both raise UNAVAILABLE_ERRORS."""

    def __init__(self, redis: Client, *, idle_s: int, ttl_s: int) -> None:
        self._redis = redis
        self._idle_s = idle_s
        self._ttl_s = ttl_s

    async def find(self, cookie_value: str | None) -> Session | None:
        """Return a cookie's session and extend it; None if it is unknown or expired."""
        digest = cookie.hash_id(cookie_value)
        if digest is None:
            return None
        record = await call(self._redis, "GETEX", [keys.session(digest)], ["EX", self._idle_s])
        if record is None:
            return None
        fields = _parse_record(record)
        if fields is None:
            logger.warning("the session %s… is unreadable; dropped", digest[:8])
        if fields is None or fields.created + self._ttl_s < time.time():
            await call(self._redis, "DEL", [keys.session(digest)], [])
            return None
        return Session(digest, Owner(fields.owner))

    async def create(self) -> tuple[str, Session]:
        """Create a session with a new owner; return the cookie's id, which is not stored, first."""
        session_id = cookie.new_id()
        digest = cookie.hash_id(session_id)
        assert digest is not None
        session = Session(digest, Owner(secrets.token_urlsafe(16)), is_new=True)
        record = json.dumps({"owner": session.owner, "created": int(time.time())})
        await call(self._redis, "SET", [keys.session(digest)], [record, "EX", self._idle_s])
        return session_id, session


class _Record(msgspec.Struct):
    owner: str
    created: int


def _parse_record(data: bytes) -> _Record | None:
    """Return a stored session; None for a malformed one."""
    try:
        record = msgspec.json.decode(data, type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return record if keys.is_owner(record.owner) else None
