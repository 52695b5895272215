"""Create the HTTP client under the `openai` package: headers, redirects and bodies of errors."""

import asyncio
from contextlib import aclosing
from urllib.request import getproxies, proxy_bypass

import httpx2

from chat.upstream.http.parser import InvalidResponseError
from chat.upstream.http.transport import BODY, Transport

NO_KEY = "none"
"""Placeholder for a missing API key, because the package insists on one. It is never sent."""

USER_AGENT = "Holdline/0.1.0"
"""A test compares the version with that of pyproject.toml."""

MAX_ERROR_BYTES = 64 << 10
"""Bytes of an error's body that are read; the words of the upstream are at its beginning."""

_ERROR_TIMEOUT_S = 5.0

_MAX_REDIRECTS = 3


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
    """Sends plain requests over another transport, follows redirects and bounds errors.

    The package's headers (`x-stainless-*`) are not sent. A redirect to another host is not
    followed, because the request contains the key and the conversation.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the response, or an error with at most 64 KiB of its body.

        Raises httpx2.TransportError, and InvalidResponseError if the response has an encoding that
        the request did not offer.
        """
        await request.aread()
        plain = _copy_request(request, request.url)
        for _ in range(_MAX_REDIRECTS):
            response = await self._transport.handle_async_request(plain)
            if (location := _find_location(plain, response)) is None:
                break
            await response.aclose()
            plain = _copy_request(plain, location)
        else:
            response = await self._transport.handle_async_request(plain)
        if not 200 <= response.status_code < 300:
            return await _read_error(response)
        if not _is_encoding_offered(plain, response):
            await response.aclose()
            raise InvalidResponseError("the response has an encoding that was not offered")
        return response

    async def aclose(self) -> None:
        """Close every idle connection."""
        await self._transport.aclose()


def _copy_request(request: httpx2.Request, url: httpx2.URL) -> httpx2.Request:
    """Return a request to `url` without the headers that strict servers reject."""
    headers = httpx2.Headers(
        [
            (name, value)
            for name, value in request.headers.raw
            if name.lower() != b"host" and not name.lower().startswith(b"x-stainless-")
        ]
    )
    headers["User-Agent"] = USER_AGENT
    if headers.get("Authorization") == f"Bearer {NO_KEY}":
        del headers["Authorization"]
    return httpx2.Request(
        request.method,
        url,
        headers=headers,
        content=request.content,
        extensions=request.extensions,
    )


def _find_location(request: httpx2.Request, response: httpx2.Response) -> httpx2.URL | None:
    """Return the address of a redirect within the origin, or from http to https on its host.

    The method stays POST, also after 301 and 302: a GET would not be a question.
    """
    location = response.headers.get("location")
    if not location or response.status_code not in (301, 302, 307, 308):
        return None
    old = request.url
    try:
        new = old.join(location)
    except httpx2.InvalidURL:
        return None
    is_secured = old.scheme == "http" and new.scheme == "https"
    is_same = (old.scheme, old.port) == (new.scheme, new.port)
    return new if old.host == new.host and (is_secured or is_same) else None


async def _read_error(response: httpx2.Response) -> httpx2.Response:
    """Return an error with the beginning of its body, as far as that arrives in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(_ERROR_TIMEOUT_S), aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                body += part
                if len(body) >= MAX_ERROR_BYTES:
                    break
    except (TimeoutError, httpx2.RequestError):
        pass  # the beginning of the body may state the cause
    finally:
        await response.aclose()
    headers = response.headers
    # Nor a label of a character set, which may be the name of any codec.
    for name in ("Content-Encoding", "Content-Length", "Content-Type", "Transfer-Encoding"):
        headers.pop(name, None)
    extensions = {name: value for name, value in response.extensions.items() if name != BODY}
    return httpx2.Response(
        response.status_code,
        headers=headers,
        content=bytes(body[:MAX_ERROR_BYTES]),
        extensions=extensions,
    )


def _is_encoding_offered(request: httpx2.Request, response: httpx2.Response) -> bool:
    """Return whether httpx2, which names its decoders in the request, can decode the body."""
    offered = request.headers.get("accept-encoding", "").replace(" ", "").split(",")
    used = response.headers.get("content-encoding", "").lower().replace(" ", "").split(",")
    return set(used) <= {"", "identity", *offered}
