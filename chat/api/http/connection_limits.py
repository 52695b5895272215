"""Limit the open connections of a worker, from one address and in total, by CONNECTIONS_MAX.

At a limit, a new connection replaces the one that has waited longest for a request. So idle
connections keep nobody out, however many a client opens. If none waits, the new one is closed, but
a few beyond the total may ask for the health of the server.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chat.api.trust.hosts import is_health_check
from chat.api.trust.networks import find_network
from chat.api.trust.proxies import Network, parse_address
from config.system.sampled_log import SampledLog

RESERVE = 16
"""Connections beyond the total, which may send one health check each."""

logger = logging.getLogger("holdline.connections")


class ConnectionLimits:
    """The open connections of one worker. The limit per address does not apply to `trusted`."""

    def __init__(self, per_address: int, total: int, trusted: Sequence[Network]) -> None:
        self._per_address = per_address
        self._total = total
        self._trusted = trusted
        self._log = SampledLog(logger)
        self._main, self._reserve = _Group(), _Group()
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)

    def admit(self, peer: object, close: Callable[[], None]) -> "Place | None":
        """Return the place of a new connection; None if it must be closed.

        `peer` is the name of the socket's other end. `close` is called to make room for another.
        """
        network = self._find_network(peer)
        own = self._groups.get(network) if network else None
        if own and not self._make_room(own, self._per_address):
            self._log.warn(
                "rejected a connection: its address has as many as CONNECTIONS_MAX allows"
            )
            return None
        is_extra = not self._make_room(self._main, self._total)
        if is_extra and not self._make_room(self._reserve, RESERVE):
            self._log.warn("rejected a connection: as many as CONNECTIONS_MAX are open")
            return None
        place = Place(network, close, is_extra)
        for group in self._list_groups(place):
            group.count += 1
            group.waiting[place] = None
        return place

    def wait(self, place: "Place") -> None:
        """Note that a connection waits for a request again."""
        if place.is_open:
            for group in self._list_groups(place):
                group.waiting[place] = None

    def begin(self, place: "Place") -> None:
        """Note that the head of a request has arrived."""
        if place.is_open:
            for group in self._list_groups(place):
                group.waiting.pop(place, None)

    def allows_extra(self, path: str) -> bool:
        """Return whether a connection of the reserve may request a path; log a rejection."""
        if is_health_check(path):
            return True
        self._log.warn("rejected a connection: as many as CONNECTIONS_MAX are open")
        return False

    def leave(self, place: "Place") -> None:
        """Free the place of a connection. Idempotent."""
        if not place.is_open:
            return
        place.is_open = False
        for group in self._list_groups(place):
            group.count -= 1
            group.waiting.pop(place, None)
        if place.network and not self._groups[place.network].count:
            del self._groups[place.network]

    def _make_room(self, group: "_Group", maximum: int) -> bool:
        """Close waiting connections of a group at its maximum; return False if none waits."""
        while group.count >= maximum:
            if not group.waiting:
                return False
            place = next(iter(group.waiting))
            self._log.warn("closed a connection that waited for a request, by CONNECTIONS_MAX")
            self.leave(place)
            place.close()
        return True

    def _list_groups(self, place: "Place") -> "list[_Group]":
        groups = [self._reserve if place.is_extra else self._main]
        if place.network:
            groups.append(self._groups[place.network])
        return groups

    def _find_network(self, peer: object) -> str | None:
        """Return the network that counts as one address; None for a trusted or Unix peer."""
        address = parse_address(str(peer[0])) if isinstance(peer, tuple) else None
        if address is None or any(address in network for network in self._trusted):
            return None
        return find_network(address)


class _Group:
    """Connections that share a maximum."""

    def __init__(self) -> None:
        self.count = 0
        self.waiting: dict[Place, None] = {}
        """Those that wait for the head of a request, the longest first."""


@dataclass(slots=True, eq=False)
class Place:
    """The place of one connection in `ConnectionLimits`."""

    network: str | None
    close: Callable[[], None]
    is_extra: bool
    """Whether the connection is one of RESERVE."""
    is_open: bool = True
