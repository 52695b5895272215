"""Serve only the names that belong to this server, which prevents DNS rebinding.

A page of `evil.example` may change that name's address to this server's. The browser then takes the
server for the page's own origin, but still sends `evil.example` as `Host`.
"""

import html
import re
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any

from sanic import HTTPResponse, Request, Sanic

from chat.api.trust.proxies import is_from_trusted_proxy
from chat.errors import Misdirected

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(:\d{0,5})?")


def install(app: Sanic[Any, Any], allowed: Collection[str], *, is_local: bool) -> None:
    """Reject requests for other hosts than ALLOWED_HOSTS and this machine's loopback names.

    Without ALLOWED_HOSTS, a server that `is_local` also serves every address, because only names
    can be rebound. A server that is not local then serves every host.
    """
    names = frozenset(allowed)

    def is_allowed(value: str) -> bool:
        host = parse_host(value)
        return host is not None and (
            host in names or is_loopback(host) or (not names and _is_address(host))
        )

    async def check_host(request: Request) -> None:
        hosts = request.headers.getall("host", [])
        if names and is_from_trusted_proxy(request):  # a proxy may replace `Host`
            forwarded = ",".join(request.headers.getall("x-forwarded-host", []))
            hosts += [host.strip() for host in forwarded.split(",") if host.strip()]
        unknown = next((host for host in hosts if not is_allowed(host)), None)
        if unknown is not None and not is_health_check(request.path):
            raise Misdirected(_describe(parse_host(unknown), has_names=bool(names)))

    if names or is_local:
        app.register_middleware(check_host, "request")


def is_health_check(path: str) -> bool:
    """Return whether a path is a health check, which load balancers request by an address."""
    return path.rstrip("/") in ("/healthz", "/readyz")


def parse_host(value: str) -> str | None:
    """Return the name or address in `Host`, without port, brackets and final dot; None if invalid.

    Names are in lower case, and addresses in their shortest form.
    """
    found = _HOST.fullmatch(value.lower())
    if found is None:
        return None
    host = found[1].strip("[]")
    try:
        return str(ip_address(host))
    except ValueError:
        return None if found[1].startswith("[") else host.removesuffix(".") or None


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost`, or an address of the loopback network."""
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def create_page(error: Misdirected) -> HTTPResponse:
    """Return the error as a page, for a browser that opens the URL."""
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Unknown host</title>'
        f"<h1>Unknown host</h1><p>{html.escape(error.message)}</p></html>"
    )
    return HTTPResponse(body, error.status, content_type="text/html; charset=utf-8")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _describe(host: str | None, *, has_names: bool) -> str:
    """Return the message about a host that is not served; None if the host is invalid."""
    name = f"the host {host}" if host else "the host that the request names"
    remedy = f"set ALLOWED_HOSTS={host or '…'}"
    if has_names:
        remedy = f"add {host or 'it'} to ALLOWED_HOSTS"
    return (
        f"This server does not serve {name}. If its users open it by that name, {remedy} in the "
        "server's environment or .env file."
    )
