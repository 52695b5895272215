"""The cookie that names a session: made, read and hashed. Pure.

The id is 256 random bits; Redis knows only its SHA-256, so that a look into the store opens no session.
"""

import hashlib
import re
import secrets

from sessions.keys import SessionDigest

_ID = re.compile(r"[A-Za-z0-9_-]{43}")


def new_id() -> str:
    """A new opaque id: 256 bits as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def digest(cookie: str | None) -> SessionDigest | None:
    """What Redis knows of a cookie's id; None for one that we cannot have made."""
    if cookie is None or not _ID.fullmatch(cookie):
        return None
    return SessionDigest(hashlib.sha256(cookie.encode("ascii")).hexdigest())


def name(secure: bool) -> str:
    """The cookie's name; its prefix makes browsers insist on Secure and this host (RFC 6265bis §4.1.3)."""
    return "__Host-holdline" if secure else "holdline"


def header(session_id: str, secure: bool, max_age_s: int) -> str:
    """The value of the `Set-Cookie` header."""
    flags = "; Secure" if secure else ""
    return (
        f"{name(secure)}={session_id}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{flags}"
    )
