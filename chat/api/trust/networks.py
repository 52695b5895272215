"""Find the network of a client, which counts as its address in the limits per address."""

from ipaddress import ip_network

from sanic import Request

from chat.api.trust.proxies import Address, client_address
from sessions.keys import AddressDigest
from sessions.turns.turn_limits import TurnLimiter

_PREFIXES = {4: 32, 6: 64}
"""Length of the prefix that counts as one address: an IPv6 host usually has all of a /64."""


def find_network(address: Address) -> str:
    """Return the network of an address, such as `192.0.2.1/32` or `2001:db8::/64`."""
    return str(ip_network((address, _PREFIXES[address.version]), strict=False))


async def hash_network(request: Request, limiter: TurnLimiter) -> AddressDigest | None:
    """Return the keyed hash of the client's network; None if its address is unknown.

    Raises UNAVAILABLE_ERRORS.
    """
    address = client_address(request)
    return await limiter.hash_address(find_network(address)) if address else None
