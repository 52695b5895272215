"""Create, sign, format and read the session cookie. Pure.

A value is `<id>.<HMAC>`. The id holds the time at which it was set, and 256 random bits. Redis
stores only its SHA-256, so the stored data opens no session. Version 0.1 set ids without a time and
a signature, which are valid as long as Redis has their session.
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass

from sessions.keys import Owner, SessionDigest

_ID = re.compile(r"[0-9a-f]{8}[A-Za-z0-9_-]{43}")
_LEGACY_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_BASE_NAME = "holdline"
"""The whole name in version 0.1, and the beginning of today's."""


@dataclass(frozen=True, slots=True)
class Instance:
    """The identity of the servers of one Redis: an id, and the secret that signs their cookies."""

    id: str
    secret: bytes


def create_id(now: float) -> str:
    """Return a new id that was set at `now`, in seconds since the epoch."""
    return f"{int(now):08x}{secrets.token_urlsafe(32)}"


def read_time(session_id: str) -> int:
    """Return the time at which an id was set, in seconds since the epoch."""
    return int(session_id[:8], 16)


def sign(session_id: str, instance: Instance) -> str:
    """Return the cookie's value for an id."""
    return f"{session_id}.{_encode(hmac.digest(instance.secret, session_id.encode(), 'sha256'))}"


def verify(value: str, instance: Instance) -> str | None:
    """Return the id in a cookie's value; None unless it carries our signature."""
    session_id = value.partition(".")[0]
    if not value.isascii() or not _ID.fullmatch(session_id):
        return None
    return session_id if hmac.compare_digest(value, sign(session_id, instance)) else None


def hash_id(session_id: str) -> SessionDigest:
    """Return the SHA-256 of an id."""
    return SessionDigest(hashlib.sha256(session_id.encode()).hexdigest())


def derive_owner(session_id: str) -> Owner:
    """Return the owner of an id: the same for parallel requests, before anything is stored."""
    return Owner(_encode(hashlib.sha256(b"owner " + session_id.encode()).digest())[:22])


def get_name(instance: Instance, *, secure: bool) -> str:
    """Return the cookie's name, which servers with another Redis do not share.

    With the prefix `__Host-`, browsers require Secure and this very host (RFC 6265bis §4.1.3).
    """
    return f"{_get_prefix(secure)}{_BASE_NAME}-{instance.id[:8]}"


def read_ids(fields: Iterable[str], instance: Instance, *, secure: bool) -> list[str]:
    """Return the signed ids in the `Cookie` fields of a request, in their order."""
    values = _read_values(fields, get_name(instance, secure=secure))
    return [session_id for value in values if (session_id := verify(value, instance))]


def read_legacy_ids(fields: Iterable[str], *, secure: bool) -> list[str]:
    """Return the ids of version 0.1 in the `Cookie` fields of a request, in their order."""
    values = _read_values(fields, _get_prefix(secure) + _BASE_NAME)
    return [value for value in values if _LEGACY_ID.fullmatch(value)]


def format_header(
    session_id: str, instance: Instance, *, secure: bool, max_age_s: int, is_cross_site: bool
) -> str:
    """Return the value of the `Set-Cookie` header.

    Browsers send a cross-site cookie with requests that pages of other sites make. It must be
    secure, and is partitioned: each such site has a separate cookie (CHIPS).
    """
    pair = f"{get_name(instance, secure=secure)}={sign(session_id, instance)}"
    flags = "; Secure" if secure else ""
    site = "None; Partitioned" if is_cross_site else "Lax"
    return f"{pair}; Path=/; Max-Age={max_age_s}; HttpOnly{flags}; SameSite={site}"


def _read_values(fields: Iterable[str], name: str) -> list[str]:
    """Return the values of a cookie; its name must match exactly.

    Sanic reads one field only, and also finds `__Host-` and `__Secure-` before the given name.
    """
    pairs = (pair.partition("=") for pair in ";".join(fields).split(";"))
    return [value.strip() for found, _, value in pairs if found.strip() == name]


def _get_prefix(secure: bool) -> str:
    return "__Host-" if secure else ""


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
