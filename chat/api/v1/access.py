"""Authorise requests for /v1: by a key, or without API_KEYS only programs on this machine."""

import hashlib
import hmac
from collections.abc import Mapping

from sanic import Request

from chat.api import guard
from chat.api.state import get_state
from chat.api.trust.hosts import is_loopback, parse_host
from chat.errors import Unauthorised
from sessions.keys import Owner

_LOCAL_OWNER = Owner("local")

_PROXY_HEADERS = ("forwarded", "via", "x-real-ip")
"""Headers that indicate a proxy; so do all whose names begin with `x-forwarded-`."""


def identify(request: Request) -> Owner:
    """Return the owner of a request; raises Unauthorised and Forbidden.

    With API_KEYS the key decides. Without them the request must come from a program on this machine
    to this machine's own name: otherwise a web page could send it (DNS rebinding), or a proxy could
    forward it for anyone.
    """
    state = get_state(request)
    if state.api_keys:
        return _find_key_owner(request, state.api_keys)
    reason = _find_remote_reason(request, state.is_local)
    if reason:
        raise Unauthorised(f"{reason} Set API_KEYS on the server and send one as a Bearer token.")
    guard.check_source(request)
    guard.reject_navigation(request)
    return _LOCAL_OWNER


def _find_key_owner(request: Request, api_keys: Mapping[str, str]) -> Owner:
    """Return the owner of the key; the time that this takes reveals nothing about the keys."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given:
        raise Unauthorised("An API key is required: `Authorization: Bearer <key>`.")
    digest = _hash(given.strip())
    found = [name for name, key in api_keys.items() if hmac.compare_digest(_hash(key), digest)]
    if not found:
        raise Unauthorised("The API key is not one of API_KEYS.")
    return Owner(f"key:{found[0]}")


def _find_remote_reason(request: Request, is_local: bool) -> str:
    """Return why a request may come from another machine; "" if it does not."""
    headers = request.headers
    proxy = [name for name in headers if name in _PROXY_HEADERS or name.startswith("x-forwarded-")]
    if not is_local:
        return "This server listens on an address that other machines can reach."
    if not is_loopback(request.ip):
        return "The request comes from another machine."
    if proxy:
        return f"The request came through a proxy ({proxy[0]})."
    if request.version == "1.0":  # nginx with its defaults names no client, but sends HTTP/1.0
        return "The request came through a proxy (HTTP/1.0)."
    host = parse_host(headers.get("host", ""))
    if host is None or not is_loopback(host):
        return "`Host` is not a name of this machine, such as localhost."
    return ""


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
