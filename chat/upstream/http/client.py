"""Create the HTTP client under the `openai` package: headers, encodings and bodies of errors."""

import asyncio
from contextlib import aclosing
from urllib.request import getproxies, proxy_bypass

import httpx2

from chat.upstream.http.decoding import ACCEPT_ENCODING, DecodedBody, find_coding
from chat.upstream.http.parser import InvalidResponseError
from chat.upstream.http.transport import Transport

NO_KEY = "none"
"""Placeholder for a missing API key, because the package insists on one. It is never sent."""

USER_AGENT = "Holdline/0.1.0"
"""A test compares the version with that of pyproject.toml."""

MAX_ERROR_BYTES = 64 << 10
"""Bytes of an error's body that are read; the words of the upstream are at its beginning."""

_ERROR_TIMEOUT_S = 5.0


def create_http_client(host: str, scheme: str) -> httpx2.AsyncClient:
    """Return a client with Holdline's transport, or with aiohttp's behind a proxy (HTTP_PROXY)."""
    proxies = getproxies()
    # A proxy cannot reach a server on this machine.
    here = host in ("localhost", "::1") or host.startswith("127.")
    if here or proxy_bypass(host) or not (proxies.get(scheme) or proxies.get("all")):
        transport: httpx2.AsyncBaseTransport = Transport()
    else:
        from chat.upstream.http.proxied import ProxiedTransport  # importing aiohttp takes 0.2 s

        transport = ProxiedTransport(proxies)
    return httpx2.AsyncClient(transport=ApiTransport(transport), trust_env=False)


class ApiTransport(httpx2.AsyncBaseTransport):
    """Sends plain requests over another transport, decompresses bodies and bounds errors.

    The package's headers (`x-stainless-*`) are not sent. A redirect is an error: the request
    contains the key and the conversation, and one that is followed can be billed each time.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the response, or an error with at most 64 KiB of its body.

        Raises httpx2.TransportError, and InvalidResponseError if the response has an encoding that
        the request did not offer.
        """
        await request.aread()
        response = await self._transport.handle_async_request(_copy_request(request))
        # httpx2 would keep each cookie for ever, and reads the address of a redirect.
        for name in ("Set-Cookie", "Location"):
            response.headers.pop(name, None)
        if not 200 <= response.status_code < 300:
            return await _read_error(response)
        try:
            return _decompress(response)
        except InvalidResponseError:
            await response.aclose()
            raise

    async def aclose(self) -> None:
        """Close every idle connection."""
        await self._transport.aclose()


def _copy_request(request: httpx2.Request) -> httpx2.Request:
    """Return the request without the headers that strict servers reject."""
    headers = httpx2.Headers(
        [
            (name, value)
            for name, value in request.headers.raw
            if name.lower() != b"host" and not name.lower().startswith(b"x-stainless-")
        ]
    )
    headers["User-Agent"] = USER_AGENT
    headers["Accept-Encoding"] = ACCEPT_ENCODING
    if headers.get("Authorization") == f"Bearer {NO_KEY}":
        del headers["Authorization"]
    return httpx2.Request(
        request.method,
        request.url,
        headers=headers,
        content=request.content,
        extensions=request.extensions,
    )


def _decompress(response: httpx2.Response) -> httpx2.Response:
    """Return the response with a plain body. Raises InvalidResponseError."""
    stream = response.stream
    if not find_coding(response.headers) or not isinstance(stream, httpx2.AsyncByteStream):
        return response
    return httpx2.Response(
        response.status_code, headers=_drop_labels(response.headers), stream=DecodedBody(stream)
    )


async def _read_error(response: httpx2.Response) -> httpx2.Response:
    """Return an error with the beginning of its body, as far as that arrives in time."""
    body = bytearray()
    try:
        plain = _decompress(response)
        async with asyncio.timeout(_ERROR_TIMEOUT_S), aclosing(plain.aiter_bytes()) as parts:
            async for part in parts:
                body += part
                if len(body) >= MAX_ERROR_BYTES:
                    break
    except (TimeoutError, httpx2.RequestError):
        pass  # the beginning of the body may state the cause
    finally:
        await response.aclose()
    return httpx2.Response(
        response.status_code,
        headers=_drop_labels(response.headers),
        content=bytes(body[:MAX_ERROR_BYTES]),
    )


def _drop_labels(headers: httpx2.Headers) -> httpx2.Headers:
    """Return the headers without those that describe the body as it was sent.

    The label of a character set is one of them: it may be the name of any codec.
    """
    plain = headers.copy()
    for name in ("Content-Encoding", "Content-Length", "Content-Type", "Transfer-Encoding"):
        plain.pop(name, None)
    return plain
