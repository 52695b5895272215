"""Open the listening socket, which the workers share."""

import errno
import os
import socket

_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that this machine lacks, such as ::1 without IPv6."""

_UNUSABLE_PORT = (errno.EADDRINUSE, errno.EACCES)
"""Errors of a port that another program has, or that only root may use."""


class ListenError(Exception):
    """No client could connect; the message names the setting to change."""


def listen(host: str, port: int) -> socket.socket:
    """Return the listening socket; port 0 lets the system choose. Raises ListenError.

    `::` serves IPv4 too. A name stands for the first of its addresses that this machine has.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for number, (family, _, _, _, address) in enumerate(found, start=1):
            try:
                return _listen_on(family, address)
            except OSError as error:
                if error.errno not in _MISSING or number == len(found):
                    raise
        raise OSError(errno.EADDRNOTAVAIL, "")
    except socket.gaierror as error:
        reason, setting = error.strerror, "HOST"
    except UnicodeError:  # of getaddrinfo, for a name with an empty or a long label
        reason, setting = "not a name", "HOST"
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        setting = "PORT" if error.errno in _UNUSABLE_PORT else "HOST"
    raise ListenError(f"cannot listen on {host} port {port} ({reason}): set {setting}")


def format_url(listener: socket.socket) -> str:
    """Return the URL that a browser on this machine opens, without a path."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (a browser cannot open a wildcard address)
        host = "127.0.0.1" if _serves_ipv4(listener) else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen_on(family: int, address: tuple[object, ...]) -> socket.socket:
    is_wildcard = family == socket.AF_INET6 and address[0] == "::"
    return socket.create_server(
        address,
        family=family,
        backlog=4096,
        dualstack_ipv6=is_wildcard and socket.has_dualstack_ipv6(),
    )


def _serves_ipv4(listener: socket.socket) -> bool:
    if listener.family == socket.AF_INET:
        return True
    return not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
