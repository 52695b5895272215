"""Check REDIS_URL: redis-py ignores some mistakes, and fails with others at the first command."""

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

_COMMON = {
    "client_name",
    "health_check_interval",
    "max_connections",
    "password",
    "socket_connect_timeout",
    "socket_timeout",
    "username",
}
_FILES = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}
_TLS = _FILES | {"ssl_cert_reqs", "ssl_check_hostname", "ssl_password"}
_NUMBERS = {
    "health_check_interval": r"[0-9]{1,6}",
    "max_connections": r"0*[1-9][0-9]{0,5}",
    "socket_connect_timeout": r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?",
    "socket_timeout": r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,6})?",
}
_CERT_REQS = ("required", "optional", "none")
_TLS_FLAGS = {"ssl", "tls", "use_ssl", "use_tls", "usessl"}
"""Parameters with which other clients of Redis turn on TLS."""

_NAME = re.compile(r"\w+")


def check_url(url: str) -> None:
    """Raise ValueError for a part of REDIS_URL that redis-py would ignore or not accept.

    The message has nothing that could belong to a password.
    """
    parts = urlsplit(url)
    is_unix, is_tls = parts.scheme == "unix", parts.scheme.startswith("rediss")
    if parts.fragment or "@" in parts.query or (not is_unix and "@" in parts.path):
        raise ValueError("percent-encode the characters / ? # @ : % of its user and password")
    is_cluster = parts.scheme.endswith("+cluster")
    if is_cluster and parts.path not in ("", "/", "/0"):
        raise ValueError("a Redis Cluster has no numbered databases: remove the number")
    if not is_unix and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("its path must be the number of a database, such as /0")
    known = _COMMON | (_TLS if is_tls else set())
    known |= set() if is_cluster else {"db"}
    known |= set() if is_unix else {"socket_keepalive"}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            _reject_parameter(name, known)
        if name in _FILES and not _is_readable(Path(value)):
            raise ValueError(f"the file of {name} cannot be read")
        if name in _NUMBERS and not re.fullmatch(_NUMBERS[name], value, re.ASCII):
            minimum = "a whole number" if name == "health_check_interval" else "above 0"
            raise ValueError(f"{name} must be {minimum}, and below 1,000,000")
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            raise ValueError(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")


def _reject_parameter(name: str, known: set[str]) -> None:
    if name.lower() in _TLS_FLAGS:
        raise ValueError(f"remove the parameter {name}, and begin the URL with rediss://")
    if name in _TLS:
        raise ValueError(f"the parameter {name} requires a URL that begins with rediss://")
    named = f" {name}" if _NAME.fullmatch(name) else ""
    raise ValueError(f"it has an unknown parameter{named}; known are {', '.join(sorted(known))}")


def _is_readable(path: Path) -> bool:
    try:
        if not path.is_dir():
            path.open("rb").close()
    except OSError:
        return False
    return True


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
    return parts.hostname or "localhost", parts.port or 6379
