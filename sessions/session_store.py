"""Sessions in Redis: the owner that belongs to a cookie; use extends a session."""

import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from sessions import cookie, keys
from sessions.client.connection import Client
from sessions.client.scripts import Call, call, call_all, raise_errors
from sessions.cookie import Instance
from sessions.keys import Owner, SessionDigest, TurnId

logger = logging.getLogger("holdline.sessions")

_MAX_IDS = 2
"""A browser may hold a partitioned cookie and an older one of this name."""


@dataclass(frozen=True, slots=True)
class Session:
    """One browser, and the owner whose data it may see."""

    digest: SessionDigest
    owner: Owner
    is_new: bool = field(default=False, compare=False)
    """Whether this request created the session, so that no other request can know it yet."""
    created: int = field(default=0, compare=False)
    """Time of its creation, in seconds since the epoch."""
    is_stored: bool = field(default=True, compare=False)
    """Whether Redis has it; otherwise its first write stores it."""

    @property
    def is_ended(self) -> bool:
        """Return whether its user has signed out."""
        return not self.owner

    @property
    def is_recent(self) -> bool:
        """Return whether it may be one of several that a client without a cookie was given."""
        return abs(time.time() - self.created) <= keys.FIRST_TURN_TTL_S  # the clock may be set back


class SessionStore:
    """Creates, finds and stores sessions; every method raises UNAVAILABLE_ERRORS."""

    def __init__(self, redis: Client, *, idle_s: int, ttl_s: int) -> None:
        self._redis = redis
        self._idle_s = idle_s
        self._ttl_s = ttl_s
        self._instance: Instance | None = None

    async def get_instance(self) -> Instance:
        """Return the identity of the servers of this Redis; the first of all calls creates it."""
        if self._instance is None:
            new = [secrets.token_hex(8), secrets.token_hex(32)]
            name, secret, is_replaced = await call(self._redis, "identify", [keys.instance()], new)
            if is_replaced:
                logger.error(
                    "The key %s was unreadable and was replaced: its sessions have ended",
                    keys.instance(),
                )
            self._instance = Instance(name.decode(), bytes.fromhex(secret.decode()))
        return self._instance

    async def find(self, fields: Sequence[str], *, secure: bool) -> Session | None:
        """Return the session of the `Cookie` fields of a request, and extend it.

        None if no cookie is ours, or its session has expired. An id that is signed but unknown to
        Redis has a session that is not stored yet; one that is older than the idle time has
        expired.
        """
        if not fields:
            return None
        unstored = None
        signed = cookie.read_ids(fields, await self.get_instance(), secure=secure)
        for session_id in signed[:_MAX_IDS]:
            created = cookie.read_time(session_id)
            digest = cookie.hash_id(session_id)
            if created + self._ttl_s < time.time():
                continue
            if found := await self._read(digest):
                if found.is_ended:
                    continue
                return found
            if created + self._idle_s >= time.time():
                owner = cookie.derive_owner(session_id)
                unstored = unstored or Session(digest, owner, created=created, is_stored=False)
        if unstored:
            return unstored
        for session_id in cookie.read_legacy_ids(fields, secure=secure)[:_MAX_IDS]:
            found = await self._read(cookie.hash_id(session_id))
            if found and not found.is_ended:
                return found
        return None

    def create(self) -> tuple[str, Session]:
        """Return the id of a new cookie, and its session, which is not stored yet."""
        session_id = cookie.create_id(time.time())
        session = Session(
            cookie.hash_id(session_id),
            cookie.derive_owner(session_id),
            is_new=True,
            created=cookie.read_time(session_id),
            is_stored=False,
        )
        return session_id, session

    async def store(self, session: Session, turn: TurnId | None = None) -> None:
        """Store a session at its first write, unless another first write has stored it.

        So a slow write does not restore a session that its user has ended meanwhile. `turn` is the
        id that a client without a cookie chose for a turn: for keys.FIRST_TURN_TTL_S, a client may
        view the turn by this id alone.
        """
        if session.is_stored:
            return
        record = json.dumps({"owner": session.owner, "created": session.created})
        names = [keys.session(session.digest)]
        calls: list[Call] = [("SET", names, [record, "NX", "EX", self._idle_s])]
        if session.is_new and turn:
            value = f"{session.digest} {session.owner}"
            ttl_s = keys.FIRST_TURN_TTL_S
            calls.append(("SET", [keys.first_turn(turn)], [value, "NX", "EX", ttl_s]))
        raise_errors(await call_all(self._redis, calls))

    async def end(self, session: Session) -> None:
        """End a session: its cookie becomes invalid. One that is not stored is not changed."""
        if session.is_stored:
            record = json.dumps({"owner": "", "created": session.created})
            name = keys.session(session.digest)
            await call(self._redis, "end_session", [name], [record, self._idle_s])

    async def find_first_turn(self, turn: TurnId) -> Session | None:
        """Return the session of a client without a cookie that has just begun this turn."""
        try:
            value = await call(self._redis, "GET", [keys.first_turn(turn)], []) or b""
            digest, _, owner = value.decode().partition(" ")
        except UnicodeDecodeError:
            logger.warning("%s is malformed; ignored", keys.first_turn(turn))
            return None
        if not keys.is_id(digest) or not keys.is_owner(owner):
            return None
        return Session(SessionDigest(digest), Owner(owner))

    async def _read(self, digest: SessionDigest) -> Session | None:
        """Return a stored session and extend it; None if it is unknown, unreadable or too old."""
        record = await call(self._redis, "GETEX", [keys.session(digest)], ["EX", self._idle_s])
        if record is None:
            return None
        fields = _parse_record(record)
        if fields is None:
            logger.warning("the session %s… is unreadable; dropped", digest[:8])
        if fields is None or fields.created + self._ttl_s < time.time():
            await call(self._redis, "DEL", [keys.session(digest)], [])
            return None
        return Session(digest, Owner(fields.owner), created=fields.created)


class _Record(msgspec.Struct):
    owner: str
    created: int


def _parse_record(data: bytes) -> _Record | None:
    """Return a stored session; None for a malformed one."""
    try:
        record = msgspec.json.decode(data, type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    is_known = not record.owner or keys.is_owner(record.owner)  # without one, it has ended
    return record if is_known else None
