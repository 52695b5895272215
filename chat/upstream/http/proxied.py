"""Send requests through the proxy that the environment names, over aiohttp."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx2

from chat.upstream.http.parser import InvalidResponseError
from chat.upstream.http.pool import MAX_IDLE_S, create_socket

_MAX_HEADER_BYTES = 64 << 10


class ProxiedTransport(httpx2.AsyncBaseTransport):
    """Sends requests through a proxy; `proxies` has its address by the scheme of a request."""

    def __init__(self, proxies: dict[str, str]) -> None:
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return when the response's headers are received. Raises httpx2.TransportError."""
        timeout = request.extensions.get("timeout", {})
        proxy = self._proxies.get(request.url.scheme) or self._proxies.get("all")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        with _convert_errors():
            response = await self._open_session().request(
                request.method,
                str(request.url),
                headers=request.headers,
                data=await request.aread() or None,
                proxy=proxy,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    connect=timeout.get("connect"), sock_read=timeout.get("read")
                ),
            )
        return httpx2.Response(
            response.status, headers=list(response.raw_headers), stream=_ProxiedBody(response)
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """Return the session, which needs a running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=MAX_IDLE_S,
                socket_factory=create_socket,
                ssl=httpx2.create_ssl_context(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                max_line_size=_MAX_HEADER_BYTES,
                max_field_size=_MAX_HEADER_BYTES,
            )
        return self._session


class _ProxiedBody(httpx2.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _convert_errors():
            async for part in self._response.content.iter_any():
                yield part

    async def aclose(self) -> None:
        """Close the connection, unless the body is complete."""
        self._response.close()


@contextmanager
def _convert_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError) as error:
        raise httpx2.ProxyError(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError(str(error)) from error
    except aiohttp.ConnectionTimeoutError:
        raise httpx2.ConnectTimeout("no connection in time") from None
    except TimeoutError:
        raise httpx2.ReadTimeout("the server sent nothing") from None
    except aiohttp.ClientResponseError as error:
        raise InvalidResponseError("the response is not HTTP/1.1") from error
    except (aiohttp.InvalidURL, ValueError) as error:  # an unsupported proxy, such as SOCKS
        raise httpx2.ProxyError(str(error)) from error
    except aiohttp.ClientError as error:
        raise httpx2.ReadError(str(error) or "the server closed the connection") from error
