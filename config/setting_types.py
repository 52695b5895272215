"""The types of settings that need a specific check; its ValueError states the accepted values."""

import os
import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

MAX_TTL_S = 100 * 365 * 86_400
"""The longest lifetime of a key, in seconds: a hundred years. Redis rejects a far longer one."""

_ENCODE_DOLLAR = ", and %24 for the character $"

_MEMORY_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 1 << 10, "m": 10**6, "mb": 1 << 20,
                 "g": 10**9, "gb": 1 << 30}  # fmt: skip


def _check_rate(value: str) -> str:
    if value != "off" and not re.fullmatch(r"[1-9]\d{0,5}/(second|minute|hour)", value):
        raise ValueError("must be off, or a limit such as 60/minute, 5/second or 900/hour")
    return value


def _check_connections_max(value: str) -> str:
    if value in ("auto", "off"):
        return value
    if not re.fullmatch(r"[1-9]\d{0,6},[1-9]\d{0,6}", value):
        raise ValueError("must be auto, off, or a maximum per address and in total, as 250,1000")
    return value


def parse_rate(rate: str) -> tuple[int, int]:
    """Return a rate as a number of turns and a window in seconds; 0 turns if it is off."""
    if rate == "off":
        return 0, 1
    count, _, unit = rate.partition("/")
    return int(count), {"second": 1, "minute": 60, "hour": 3600}[unit]


def _check_turns_max(value: str) -> str:
    if value != "off" and not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3}){2}", value):
        raise ValueError(
            "must be off, or three numbers from 1 to 9999 such as 4,40,400: "
            "per session, per address and in total"
        )
    return value


def _read_context_tokens(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    try:
        tokens = int(str(value))
    except ValueError:
        tokens = 0
    if not 256 <= tokens <= 10_000_000:
        raise ValueError("must be auto, or a number from 256 to 10000000")
    return tokens


def _check_no_variable(value: str, advice: str = "") -> None:
    """Raise ValueError for `$NAME`, which nothing replaces."""
    if re.search(r"\$(\{|[A-Za-z_])", value):
        raise ValueError(
            "must not contain $ before a name, because nothing replaces it: "
            f"write ${{NAME}} in .env for a variable{advice}"
        )


def _check_http_url(value: str) -> str:
    _check_no_variable(value, _ENCODE_DOLLAR)
    _check_port(value)
    if not re.match(r"https?://[^/]", value):
        raise ValueError("must begin with http:// or https:// and name a host")
    if re.search(r"[?#\s]", value):
        raise ValueError("must end with a path, such as /v1, and not contain ?, # or spaces")
    return value


def _check_port(url: str) -> None:
    """Raise ValueError unless the URL names a host, and a valid port if it names one."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("must name a host; a port, if given, must be between 1 and 65535")


def _check_key(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
        raise ValueError("must be printable ASCII characters without spaces or line breaks")
    return value


def _split_keys(value: object) -> object:
    """Return the keys of API_KEYS by their names."""
    if not isinstance(value, str):
        return value
    pairs = [pair.strip().partition(":") for pair in value.split(",") if pair.strip()]
    if value.strip() and not pairs:
        raise ValueError("must name at least one key, or be unset")
    keys = {name: key for name, _, key in pairs}
    is_valid = all(colon and re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name) for name, colon, _ in pairs)
    if not is_valid or len(keys) < len(pairs) or len(set(keys.values())) < len(pairs):
        raise ValueError(
            "must be name:key,name:key with different keys and different names, "
            "of at most 32 letters, digits, _ and -"
        )
    if any(len(key) < 16 for key in keys.values()):
        raise ValueError("must have keys of at least 16 characters")
    return keys


def _check_redis_url(value: str) -> str:
    _check_no_variable(value, _ENCODE_DOLLAR)
    if not re.match(r"(rediss?(\+cluster)?|unix)://", value):
        raise ValueError(
            "must begin with redis://, rediss:// or unix://; "
            "for a Cluster with redis+cluster:// or rediss+cluster://"
        )
    scheme, _, rest = value.partition("://")
    if scheme != "unix":
        for node in rest.split(",") if scheme.endswith("+cluster") else [rest]:
            _check_port(f"//{node}")
    return value


def _check_origin(value: str) -> str:
    """Return an origin as browsers send it: in lower case, without the scheme's own port."""
    origin = value.lower()
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", origin):
        raise ValueError(
            "must list exact origins such as https://app.example or http://localhost:3000, "
            "without a path or a final /; * is not accepted, because it excludes cookies"
        )
    _check_port(origin)
    scheme, _, host = origin.partition("://")
    return f"{scheme}://{host.removesuffix({'http': ':80', 'https': ':443'}.get(scheme, ' '))}"


def _check_base_path(value: str) -> str:
    path = value.rstrip("/")
    if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", path):
        raise ValueError("must begin with / and contain only letters, digits and . _ ~ - between /")
    if re.match(r"/(api|v1|docs)(/|$)", path):
        raise ValueError("must not begin with /api, /v1 or /docs, which are Holdline's own")
    return path


def _split_networks(value: object) -> object:
    """Return the networks of a comma-separated list, () for `none`; an address is a network."""
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none":
        return ()
    try:
        return tuple(ip_network(one.strip()) for one in value.split(",") if one.strip())
    except ValueError:
        raise ValueError(
            "must be none, or list addresses or networks such as 10.0.0.5 or 10.0.0.0/8, "
            "comma-separated; a network's bits after its prefix must be 0"
        ) from None


def _split_hosts(value: object) -> object:
    """Return names in lower case without a final dot, and addresses in their shortest form."""
    if not isinstance(value, str):
        return value
    names = [name.strip().lower().removesuffix(".") for name in value.split(",") if name.strip()]
    for i, name in enumerate(names):
        with suppress(ValueError):
            names[i] = str(ip_address(re.sub(r"^\[(.*)\]$", r"\1", name)))
            continue
        if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) or len(name) > 253:
            raise ValueError(
                "must list names such as chat.example.com, comma-separated, "
                "without a scheme, a port, a path or *"
            )
    return tuple(names)


def _check_memory_size(value: str) -> str:
    """Return a size as Redis reads it: `k` is 1,000 bytes and `kb` is 1,024."""
    found = re.fullmatch(r"([0-9]{1,18})([kmg]?b|[kmg]?)", value.lower())
    if value and not found:
        raise ValueError("must be a number of bytes, or have a unit: 512mb, 2gb")
    size = int(found[1]) * _MEMORY_UNITS[found[2]] if found else 0
    if size and not 10**6 <= size <= 10**15:
        raise ValueError("must be 0 for no limit, or between 1mb and 1000000gb")
    return value.lower()


def _check_host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]+", value):
        raise ValueError(
            "must be a name or an address of this machine, without brackets or a port; "
            "0.0.0.0 or :: for all interfaces"
        )
    return value


def _expand_path(value: Path) -> Path:
    """Return a path with the user's home instead of `~`."""
    path = Path(os.path.expanduser(value))  # noqa: PTH111 (Path's raises for ~unknown)
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise ValueError("begins with ~ and the name of a user that does not exist")
    _check_no_variable(str(path))
    if "\0" in str(path):
        raise ValueError("must not contain a NUL character")
    return path


ConnectionsMax = Annotated[str, AfterValidator(_check_connections_max)]
HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
RateLimit = Annotated[str, AfterValidator(_check_rate)]
TurnsMax = Annotated[str, AfterValidator(_check_turns_max)]
ContextTokens = Annotated[int | Literal["auto"], BeforeValidator(_read_context_tokens)]
Key = Annotated[SecretStr, AfterValidator(_check_key)]
RedisUrl = Annotated[str, AfterValidator(_check_redis_url)]
Origin = Annotated[str, AfterValidator(_check_origin)]
BasePath = Annotated[str, AfterValidator(_check_base_path)]
Host = Annotated[str, AfterValidator(_check_host)]
Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_hosts)]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_split_networks)
]
ExpandedPath = Annotated[Path, AfterValidator(_expand_path)]
MemorySize = Annotated[str, AfterValidator(_check_memory_size)]
ApiKeys = Annotated[dict[str, Key], NoDecode, BeforeValidator(_split_keys)]


class UpstreamSettings(BaseModel, extra="forbid", frozen=True):
    """One entry of UPSTREAMS."""

    base_url: HttpUrl
    api_key: Key | None = None
    model: str = Field(min_length=1)
    name: str = Field("", max_length=64, pattern=r"^[^\x00-\x1f]*$")
    concurrency: int | None = Field(None, ge=1, le=10_000)
