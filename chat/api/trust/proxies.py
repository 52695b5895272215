"""Read the client's address and scheme from `X-Forwarded-*`, if the peer is a trusted proxy.

Any client can send these headers. They count only from TRUSTED_PROXIES.
"""

import logging
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from sanic import Request, Sanic

logger = logging.getLogger("holdline.api")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+")
"""An address with a port, or an IPv6 address in brackets, as some proxies write them."""


def install(app: Sanic[Any, Any], trusted: Sequence[Network]) -> None:
    """Set the networks of TRUSTED_PROXIES; log once if another peer sends `X-Forwarded-Proto`."""
    app.ctx.trusted_proxies = tuple(trusted)
    app.ctx.has_warned_of_proxy = False

    async def warn(request: Request) -> None:
        if app.ctx.has_warned_of_proxy or "x-forwarded-proto" not in request.headers:
            return
        if not is_from_trusted_proxy(request):
            app.ctx.has_warned_of_proxy = True
            logger.warning(
                "A peer that is not in TRUSTED_PROXIES sent X-Forwarded-Proto, which is ignored. "
                "If it is your proxy, add its address: otherwise the cookie has no `Secure` flag."
            )

    app.register_middleware(warn, "request")


def client_address(request: Request) -> Address | None:
    """Return the client's address; None if a trusted proxy does not state a valid one.

    Each proxy appends its peer's address to `X-Forwarded-For`. So the last address that is not in
    TRUSTED_PROXIES was appended by a trusted proxy; the client can forge all before it.
    """
    peer = parse_address(request.ip)
    if not is_from_trusted_proxy(request):
        return peer
    address = None
    for entry in reversed(_split(request, "x-forwarded-for")):
        address = parse_address(entry)
        if address is None or not _is_trusted(request, address):
            break
    return address


def get_scheme(request: Request) -> str:
    """Return the scheme that the client uses: the first value of `X-Forwarded-Proto`, or `http`.

    The proxy to which the client connects writes the first value.
    """
    values = _split(request, "x-forwarded-proto")
    is_https = bool(values) and values[0].lower() == "https"
    return "https" if is_https and is_from_trusted_proxy(request) else "http"


def is_from_trusted_proxy(request: Request) -> bool:
    """Return whether the peer is one of TRUSTED_PROXIES, or connected through a Unix socket."""
    if request.conn_info and isinstance(request.conn_info.sockname, str):
        return True
    peer = parse_address(request.ip)
    return peer is not None and _is_trusted(request, peer)


def parse_address(text: str) -> Address | None:
    """Return an address without port and zone, or None; IPv4 for an IPv4-mapped IPv6 address."""
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_trusted(request: Request, address: Address) -> bool:
    return any(address in network for network in request.app.ctx.trusted_proxies)


def _split(request: Request, name: str) -> list[str]:
    """Return the values of all header fields of a name, which may be lists (RFC 9110 §5.3)."""
    fields: list[str] = request.headers.getall(name, [])
    return [value.strip() for value in ",".join(fields).split(",") if value.strip()]
