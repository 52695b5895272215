"""The reason that is reported for an error of the network, of a socket or of TLS."""

import errno
import os
import socket
import ssl
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from sessions.client.connection import connect
from sessions.client.faults import find_fault
from sessions.client.scripts import call
from tests.processes import free_ports

REFUSED = "Redis refuses connections"
UNREACHABLE = "the host of REDIS_URL cannot be reached"
LOST = "the connection to Redis was lost"


def fail(number: int, host: str = "192.0.2.1") -> OSError:
    """Return the error of asyncio for one address."""
    return OSError(number, f"Connect call failed {(host, 6379)}")


def combine(*numbers: int) -> OSError:
    """Return the error of asyncio for a host with several addresses."""
    return OSError(f"Multiple exceptions: {', '.join(str(fail(number)) for number in numbers)}")


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (fail(errno.ECONNREFUSED), REFUSED),
        (combine(errno.ECONNREFUSED, errno.ECONNREFUSED), REFUSED),
        (combine(errno.ENETUNREACH, errno.ECONNREFUSED), REFUSED),
        (combine(errno.EADDRNOTAVAIL, errno.ECONNREFUSED), REFUSED),
        (OSError("Connect call failed"), REFUSED),
        *(
            (make(number), UNREACHABLE)
            for make in (fail, combine)
            for number in (errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETUNREACH)
        ),
        (combine(errno.EHOSTUNREACH, errno.ENETUNREACH), UNREACHABLE),
        (FileNotFoundError(errno.ENOENT, "No such file"), "the socket of Redis does not exist"),
        (NotADirectoryError(errno.ENOTDIR, "Not"), "the socket of Redis does not exist"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), LOST),
        (ssl.SSLZeroReturnError("TLS/SSL connection has been closed (EOF)"), LOST),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), LOST),
        (ssl.SSLError("no shared cipher"), "TLS with Redis fails (no shared cipher)"),
        (ssl.SSLError(), "TLS with Redis fails (SSLError)"),
    ],
)
def test_an_error_of_the_network_is_named(error: OSError, reason: str, is_wrapped: bool) -> None:
    if is_wrapped or reason == LOST:  # as redis-py does
        wrapped = RedisConnectionError(f"Error connecting to 192.0.2.1:6379. {error}.")
        wrapped.__context__ = error
        assert find_fault(wrapped).reason == reason
    else:
        assert find_fault(error).reason == reason


async def find_reason(url: str) -> str:
    """Return the reason why a command fails."""
    redis = connect(url)
    try:
        await call(redis, "GET", ["key"], [])
    except RedisConnectionError as error:
        return find_fault(error).reason
    finally:
        await redis.aclose()
    return ""


async def test_a_host_whose_addresses_all_refuse_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `localhost` does, which is 127.0.0.1 and ::1."""
    (port,) = free_ports(1)
    real = socket.getaddrinfo

    def look_up(*_: object, **__: object) -> list[object]:
        addresses = ("127.0.0.1", "127.0.0.2")
        return [one for each in addresses for one in real(each, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert await find_reason(f"redis://two-addresses:{port}") == REFUSED


async def test_a_socket_without_a_server_refuses(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
    assert await find_reason(f"unix://{path}") == REFUSED
    assert await find_reason(f"unix://{path}/x") == "the socket of Redis does not exist"
