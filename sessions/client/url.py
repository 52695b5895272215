"""Check REDIS_URL: redis-py ignores some mistakes, and fails with others at the first command."""

import contextlib
import os
import re
import stat
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from sessions.client.tls_files import FILES, FOLDER, check_tls_files

_COMMON = {
    "client_name",
    "health_check_interval",
    "max_connections",
    "password",
    "socket_connect_timeout",
    "socket_timeout",
    "username",
}
_SINGLE_TLS = {FOLDER, "ssl_password"}
"""Parameters that redis-py has for a single Redis only."""

_TLS = {*FILES, "ssl_cert_reqs", "ssl_check_hostname"} | _SINGLE_TLS
_NUMBERS = {
    "db": r"[0-9]{1,6}",
    "health_check_interval": r"[0-9]{1,6}",
    "max_connections": r"0*[1-9][0-9]{0,5}",
    "socket_connect_timeout": r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?",
    "socket_timeout": r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?",
}
_CERT_REQS = ("required", "optional", "none")
_TLS_FLAGS = {"ssl", "tls", "use_ssl", "use_tls", "usessl"}
"""Parameters with which other clients of Redis turn on TLS."""

_NAME = re.compile(r"\w+")

_MAX_SOCKET_BYTES = 107
_MAX_HOST_BYTES = 253
"""From unix(7), and RFC 1035."""


def check_url(url: str) -> None:
    """Raise ValueError for a part of REDIS_URL that redis-py would ignore or not accept.

    The message has nothing that could belong to a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # its text has the user and the password
        raise ValueError("its host is invalid") from None
    is_unix, is_tls = parts.scheme == "unix", parts.scheme.startswith("rediss")
    if parts.fragment or "@" in parts.query or (not is_unix and "@" in parts.path):
        raise ValueError("percent-encode the characters / ? # @ : % of its user and password")
    is_cluster = parts.scheme.endswith("+cluster")
    if is_cluster and parts.path not in ("", "/", "/0"):
        raise ValueError("a Redis Cluster has no numbered databases: remove the number")
    if is_unix:
        _check_socket(parts)
    else:
        _check_hosts(parts, is_cluster=is_cluster)
        if not re.fullmatch(r"/?[0-9]{0,6}", parts.path, re.ASCII):
            raise ValueError("its path must be the number of a database, such as /0")
    known = _COMMON | (_TLS if is_tls else set())
    known -= _SINGLE_TLS if is_cluster else set()
    known |= set() if is_cluster else {"db"}
    known |= set() if is_unix else {"socket_keepalive"}
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            _reject_parameter(name, known)
        if name in parameters:
            raise ValueError(f"it has the parameter {name} twice")
        _check_value(name, value)
        parameters[name] = value
    number = "" if is_unix else parts.path.strip("/")
    if number and int(parameters.get("db", number)) != int(number):
        raise ValueError(f"it names two databases: remove /{number}, or the parameter db")
    check_tls_files(parameters)


def _check_value(name: str, value: str) -> None:
    if name in _NUMBERS and not re.fullmatch(_NUMBERS[name], value, re.ASCII):
        is_whole = name in ("db", "health_check_interval")
        raise ValueError(
            f"{name} must be {'a whole number' if is_whole else 'above 0'}, and below 1,000,000"
        )
    if name == "ssl_cert_reqs" and value not in _CERT_REQS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")


def _check_socket(parts: SplitResult) -> None:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2]:
        raise ValueError("begin the path of its socket with a third slash: unix:///path/redis.sock")
    if path in ("", "/"):
        raise ValueError("name a socket: unix:///path/redis.sock")
    if "\0" in path or len(os.fsencode(path)) > _MAX_SOCKET_BYTES:
        raise ValueError(f"the path of its socket has over {_MAX_SOCKET_BYTES} bytes, or a NUL")
    with contextlib.suppress(OSError):  # Redis may create it later
        if not stat.S_ISSOCK(mode := Path(path).stat().st_mode):
            kind = "folder" if stat.S_ISDIR(mode) else "file"
            raise ValueError(f"its path is a {kind}: name the socket of Redis (unixsocket)")


def _check_hosts(parts: SplitResult, *, is_cluster: bool) -> None:
    hosts = parts.netloc.rpartition("@")[2]
    nodes = hosts.split(",") if is_cluster else [hosts]
    if is_cluster and not all(node.partition(":")[0] for node in nodes):
        raise ValueError("its list of nodes has an address without a host")
    for node in nodes:
        try:
            name = _split_address(node)[0].encode("idna")
        except UnicodeError:
            raise ValueError("its host name has an empty part, or one that is too long") from None
        except ValueError:
            raise ValueError("its host or port is invalid") from None
        if len(name) > _MAX_HOST_BYTES or re.search(rb"[\0- \x7f]", name):
            raise ValueError("its host name is too long, or has a space or a control character")


def _reject_parameter(name: str, known: set[str]) -> None:
    if name.lower() in _TLS_FLAGS:
        raise ValueError(f"remove the parameter {name}, and begin the URL with rediss://")
    if name in _SINGLE_TLS:
        raise ValueError(f"the parameter {name} is only for a single Redis, with rediss://")
    if name in _TLS:
        raise ValueError(f"the parameter {name} requires a URL that begins with rediss://")
    named = f" {name}" if _NAME.fullmatch(name) else ""
    raise ValueError(f"it has an unknown parameter{named}; known are {', '.join(sorted(known))}")


def split_cluster_url(url: str) -> tuple[str, list[tuple[str, int]]]:
    """Return redis-py's URL for the first node of a Cluster, and the addresses of the others."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    scheme = parts.scheme.removesuffix("+cluster")
    url = parts._replace(scheme=scheme, netloc=f"{user}{at}{first}").geturl()
    return url, [_split_address(node) for node in others]


def get_first_address(url: str) -> tuple[str, int] | None:
    """Return the host and port of the first node; None for a Unix socket."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return None
    return _split_address(parts.netloc.rpartition("@")[2].partition(",")[0])


def _split_address(node: str) -> tuple[str, int]:
    parts = urlsplit(f"//{node}")
    return unquote(parts.hostname or "localhost"), parts.port or 6379
