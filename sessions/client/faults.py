"""Find in an error why Redis is unavailable, and what the operator must change, if anything.

The texts are those of redis-py 8, of OpenSSL 3, and of Redis 6.2 to 8 and Valkey.
"""

import errno
import re
import ssl
from typing import NamedTuple

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessions.client.errors import NoPermissionError, Rejected


class Fault(NamedTuple):
    """Why Redis is unavailable."""

    reason: str
    """A sentence for the log and for `/readyz`: it has no address, key or secret."""
    remedy: str = ""
    """The change that the operator must make; "" if Redis may become available by itself."""

    def __str__(self) -> str:
        return f"{self.reason}: {self.remedy}" if self.remedy else self.reason


LOST = Fault("the connection to Redis was lost")
SILENT = Fault("Redis does not reply")
NEEDS_TLS = Fault(
    "Redis requires TLS", "begin REDIS_URL with rediss:// (a Cluster: rediss+cluster://)"
)
HAS_NO_TLS = Fault(
    "Redis does not use TLS", "begin REDIS_URL with redis:// (a Cluster: redis+cluster://)"
)
NOT_REDIS = Fault("the server at REDIS_URL is not a Redis", "correct the host and port")

_UNCOVERED = Fault("the Redis Cluster has no node for some keys")

_REFUSED = re.escape(f"[Errno {errno.ECONNREFUSED}]")
_UNREACHABLE = "|".join(
    re.escape(f"[Errno {number}]")
    for number in (
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    )
)
"""asyncio combines the errors of all addresses of a host in one text."""

_ACL = "allow the user of REDIS_URL {} in Redis's ACL (docs/operations.md)"
_VERSION = "use Redis 6.2 or later (a Cluster: 7.0) or Valkey, and no rename-command"

_TEXTS: tuple[tuple[str, str, str], ...] = (
    (
        r"invalid username-password|invalid password|user is disabled",
        "Redis rejects the user or the password of REDIS_URL",
        "correct them, with special characters percent-encoded",
    ),
    (
        r"Authentication required|NOAUTH",
        "Redis requires a password",
        "add it to REDIS_URL: redis://<user>:<password>@<host>",
    ),
    (
        r"without any password configured|no password is set",
        "REDIS_URL has a password, but Redis has none",
        "remove it from REDIS_URL, or set it in Redis (requirepass)",
    ),
    (
        r"permissions to run the '([^']+)'",
        "Redis's ACL rejects the command {}",
        _ACL.format("+{}"),
    ),
    (
        r"can't run this command",
        "Redis's ACL rejects a command of a script",
        _ACL.format("all commands that scripts use"),
    ),
    (
        r"permissions to access (one of the keys|a key|the '.*' key)|can't access at least one of",
        "Redis's ACL rejects a key",
        _ACL.format("~holdline:*"),
    ),
    (
        r"permissions to access (one of the channels|a channel|the '.*' channel)|can't publish to",
        "Redis's ACL rejects a channel",
        _ACL.format("&holdline:*"),
    ),
    (r"unknown (?:sub)?command [`']([^`']+)", "Redis has no command {}", _VERSION),
    (r"(\w+) command doesn't exist", "Redis has no command {}", _VERSION),
    (r"Unknown Redis command called", "Redis has no command that a script uses", _VERSION),
    (
        r"DB index is out of range",
        "Redis has no database of this number",
        "end REDIS_URL with a lower number, or raise `databases` in Redis",
    ),
    (
        r"SELECT is not allowed|'db' must be 0|'?db`* querystring option can only be 0",
        "a Redis Cluster has no numbered databases",
        "remove the number from the end of REDIS_URL",
    ),
    (
        r"^(MovedError|ClusterCrossSlotError): ",
        "Redis is a node of a Redis Cluster",
        "begin REDIS_URL with redis+cluster:// or rediss+cluster://",
    ),
    (
        r"cluster support disabled",
        "Redis is not a node of a Redis Cluster",
        "begin REDIS_URL with redis:// or rediss://",
    ),
    (
        r"protected mode",
        "Redis is in protected mode",
        "set a password in Redis (requirepass), or let it listen on a private address only (bind)",
    ),
    (
        r"certificate verify failed: (?:Hostname|IP address) mismatch",
        "the certificate of Redis is for another host",
        "use a name of the certificate in REDIS_URL",
    ),
    (
        r"certificate verify failed: certificate has expired",
        "the certificate of Redis has expired",
        "renew it",
    ),
    (
        r"certificate verify failed: ([^(]+?)\.? *(?:\(|$)",
        "the certificate of Redis is not trusted ({})",
        "name the file of its CA in REDIS_URL: rediss://<host>?ssl_ca_certs=/path/ca.pem",
    ),
    (
        r"CERTIFICATE_REQUIRED|peer did not return a certificate",
        "Redis requires a client certificate",
        "name its files in REDIS_URL: ?ssl_certfile=/path/cert.pem&ssl_keyfile=/path/key.pem",
    ),
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", *HAS_NO_TLS),
    (r'^InvalidResponse: .*got "\\x15"', *NEEDS_TLS),
    (r"^InvalidResponse: ", *NOT_REDIS),
    (
        r"^PermissionError: ",
        "the socket of Redis is not accessible",
        "allow the server's user to write to it (unixsocketperm)",
    ),
    (r"closed \(IndexError\)", *_UNCOVERED),  # redis-py's error for a Cluster without slots
    (r"^(AskError|TryAgainError): ", "the Redis Cluster is moving keys", ""),
    (r"max number of clients", "Redis has its maximum of connections (maxclients)", ""),
    (rf"^ConnectionRefusedError: |{_REFUSED}", "Redis refuses connections", ""),
    (_UNREACHABLE, "the host of REDIS_URL cannot be reached", ""),
    (r"Connect call failed", "Redis refuses connections", ""),
    (r"^(FileNotFoundError|NotADirectoryError): ", "the socket of Redis does not exist", ""),
    (r"^gaierror: ", "the host of REDIS_URL has no known address", ""),
    (r"\bNOREPLICAS\b", "Redis has too few replicas to accept writes", ""),
    (r"\bMISCONF\b", "Redis cannot write to its disk, and accepts no writes", ""),
    (r"\bBUSY\b", "Redis is busy with a script", ""),
    (r"MASTERDOWN|MasterDownError", "Redis has lost its master", ""),
    (r"\bREADONLY\b", "Redis is a replica, which accepts no writes", ""),
    (r"\bLOADING\b", "Redis is loading its data", ""),
)
"""Patterns of an error's type and text, each with a reason and a remedy, in order of precedence."""

_PATTERNS = [(re.compile(pattern), Fault(reason, remedy)) for pattern, reason, remedy in _TEXTS]

_TYPES: tuple[tuple[type[Exception], Fault], ...] = (
    (BusyLoadingError, Fault("Redis is loading its data")),
    (ReadOnlyError, Fault("Redis is a replica, which accepts no writes")),
    (OutOfMemoryError, Fault("the memory of Redis is full")),
    (RedisTimeoutError, SILENT),
    (TimeoutError, SILENT),
    (ssl.SSLEOFError, LOST),
    (ssl.SSLZeroReturnError, LOST),
    (RedisConnectionError, LOST),
    (ClusterError, _UNCOVERED),
    (RedisClusterException, _UNCOVERED),
)
"""Faults of errors whose text says less than their type, in order of precedence."""

_REJECTIONS = (AuthenticationError, NoPermissionError, Rejected, ResponseError)
"""Exact types of an error with which Redis, or a proxy before it, rejects a command."""

_NO_SETTING = re.compile(
    r"^(BUSY|CLUSTERDOWN|EXECABORT|INPROG|IOERR|LOADING|MASTERDOWN|MISCONF|NOGOODSLAVE|NOREPLICAS"
    r"|OOM|READONLY|TRYAGAIN|UNBLOCKED|UNKILLABLE|WRONGTYPE)\b"
    r"|user_script|running script"
    r"|time(d )?-?out|try again|retry|too many|limit|exceeded|unavailable|unreachable|overload"
    r"|no upstream|upstream failure|no backend|connection (refused|reset|closed|lost)|server closed"
    r"|failover|temporar|internal error",
    re.IGNORECASE,
)
"""Texts of rejections that may pass, among them those of proxies, or that no setting causes."""

_CLOSED_TLS = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
_MAX_TEXT = 200


def find_fault(error: BaseException) -> Fault:
    """Return the fault behind an error of redis-py, or behind an error of Redis."""
    chain = _list_causes(error)
    texts = [f"{type(one).__name__}: {one}" for one in chain]
    for pattern, fault in _PATTERNS:
        for text in texts:
            if found := pattern.search(text):
                name = (found.groups() or ("",))[0] or ""
                return Fault(*(part.replace("{}", name) for part in fault))
    for one in chain:
        if isinstance(one, ssl.SSLError) and not isinstance(one, _CLOSED_TLS):
            words = (getattr(one, "reason", None), one.strerror, *map(str, one.args))
            text = next(filter(None, words), type(one).__name__)[:_MAX_TEXT]
            return Fault(f"TLS with Redis fails ({text})", "check the ssl_… of REDIS_URL")
    for one in chain:
        if type(one) in _REJECTIONS:
            return _describe_rejection(str(one))
    for kind, fault in _TYPES:
        if any(isinstance(one, kind) for one in chain):
            return fault
    if isinstance(error, ResponseError):
        return Fault(f"Redis rejects a command ({str(error)[:_MAX_TEXT]})")
    return Fault(f"Redis is unavailable ({type(error).__name__})")


def _describe_rejection(text: str) -> Fault:
    """Return the fault of a rejection without a pattern: it lasts, unless its text says more."""
    remedy = "" if _NO_SETTING.search(text) else "correct REDIS_URL, or this setting of Redis"
    return Fault(f"Redis rejects a command ({text[:_MAX_TEXT]})", remedy)


def _list_causes(error: BaseException) -> list[BaseException]:
    """Return an error and its causes; redis-py wraps those of a Cluster several times."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found
