"""Find out what listens at REDIS_URL when redis-py sees only a lost or a silent connection."""

import asyncio
import contextlib
import re
import ssl

from sessions.client.errors import ResponseError
from sessions.client.faults import HAS_NO_TLS, NEEDS_TLS, NOT_REDIS, Fault, find_fault
from sessions.client.url import get_first_address

_MAX_WAIT_S = 1.0
_UNASKED_WAIT_S = 0.2
"""Redis sends its rejection of a connection at once; a command sent before may destroy it."""

_REJECTION = re.compile(rb"protected mode|max number of clients")
"""Reasons for which Redis closes a connection at once."""

_REDIS, _ALERT = b"+-:$*", b"\x15"
"""The first byte of a reply of Redis, and of an alert of TLS."""


async def diagnose(url: str) -> Fault | None:
    """Return the fault of a server that speaks TLS or no TLS against REDIS_URL, or rejects it.

    Return None if nothing is found, within about three seconds.
    """
    address = get_first_address(url)
    if not address:
        return None
    is_tls = url.startswith("rediss")
    received = await _greet(*address)
    if found := _REJECTION.search(received):
        return find_fault(ResponseError(found[0].decode()))
    if received and received[:1] not in _REDIS + _ALERT:
        return NOT_REDIS
    if is_tls and received and received[:1] in _REDIS:
        return HAS_NO_TLS
    try:
        await _shake_hands(*address)
    except ssl.SSLError as error:
        has_certificate = "ssl_certfile" in url  # which was not sent here
        return find_fault(error) if is_tls and not has_certificate else None
    except (OSError, UnicodeError):  # includes TimeoutError, and malformed host names
        return None
    return None if is_tls else NEEDS_TLS


async def _greet(host: str, port: int) -> bytes:
    """Return the bytes that a server sends to a client without TLS, unasked or after a PING."""
    with contextlib.suppress(OSError, UnicodeError):
        async with asyncio.timeout(_MAX_WAIT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_UNASKED_WAIT_S):
                        return await reader.read(512)
                writer.write(b"PING\r\n")
                return await reader.read(512)
            finally:
                writer.transport.abort()
    return b""


async def _shake_hands(host: str, port: int) -> None:
    """Connect with TLS and send a PING; the certificate of the server is not checked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(_MAX_WAIT_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            writer.write(b"PING\r\n")
            await reader.read(1)  # raises the alert of a server that requires a certificate
        finally:
            writer.transport.abort()
