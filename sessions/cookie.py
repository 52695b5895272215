"""Create, format and hash the session cookie. Pure.

The id has 256 random bits. Redis stores only its SHA-256, so the stored data opens no session.
"""

import hashlib
import re
import secrets

from sessions.keys import SessionDigest

_ID = re.compile(r"[A-Za-z0-9_-]{43}")


def new_id() -> str:
    """Return a new random id: 256 bits as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def hash_id(cookie: str | None) -> SessionDigest | None:
    """Return the SHA-256 of the id in a cookie; None if it cannot be an id."""
    if cookie is None or not _ID.fullmatch(cookie):
        return None
    return SessionDigest(hashlib.sha256(cookie.encode("ascii")).hexdigest())


def get_name(secure: bool) -> str:
    """Return the cookie's name.

    With the prefix `__Host-`, browsers require Secure and this very host (RFC 6265bis §4.1.3).
    """
    return "__Host-holdline" if secure else "holdline"


def format_header(session_id: str, secure: bool, max_age_s: int, is_cross_site: bool) -> str:
    """Return the value of the `Set-Cookie` header.

    Browsers send a cross-site cookie with requests that pages of other sites make. It must be
    secure, and is partitioned: each such site has a separate cookie (CHIPS).
    """
    pair = f"{get_name(secure)}={session_id}"
    flags = "; Secure" if secure else ""
    site = "None; Partitioned" if is_cross_site else "Lax"
    return f"{pair}; Path=/; Max-Age={max_age_s}; HttpOnly{flags}; SameSite={site}"
