"""Framing: a message that can be read in two ways is rejected, as by nginx."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests import installed
from tests.processes import PATIENCE_S, Server, free_ports, private_folder
from tests.proxies.fronts import find_missing

NGINX = """
daemon off; master_process off; pid {home}/pid; error_log /dev/null; events {{ }}
http {{
  access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{backend}; proxy_set_header Host localhost; }}
  }}
  server {{ listen 127.0.0.1:{backend}; location / {{ return 200; }} }}
}}
"""

GET = b"GET /healthz HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
POST = (
    b"POST /api/conversations/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: raw\r\n"
    b"Content-Type: application/json\r\n"
)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

ACCEPTED: dict[str, bytes] = {
    "a request": GET + HOST + b"\r\n",
    "HTTP/1.0 without Host": b"GET /healthz HTTP/1.0\r\n\r\n",
    "Host with a port": GET + b"Host: [::1]:8000\r\n\r\n",
    "Host between spaces": GET + b"Host:  localhost \r\n\r\n",
    "a tab around Host": GET + b"Host:\tlocalhost\t\r\n\r\n",
    "a tab around a length": POST + b"Content-Length:\t2\t\r\n\r\n{}",
    "a target in UTF-8": "GET /healthz?名字 HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "a target with other bytes": b"GET /healthz?\x85\xa0\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "a value in UTF-8": GET + HOST + "X-Name: 名字\r\n\r\n".encode(),
    "a value that begins with a space of Unicode": GET + HOST + "X-Name:\u2003a\r\n\r\n".encode(),
    "a tab in a value": GET + HOST + b"X-Name: a\tb\r\n\r\n",
    "an empty value": GET + HOST + b"X-Name:\r\n\r\n",
    "a length": POST + b"Content-Length: 2\r\n\r\n{}",
    "a length with a space": POST + b"Content-Length: 2 \r\n\r\n{}",
    "a length with a zero": POST + b"Content-Length: 02\r\n\r\n{}",
    "one chunk": CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    "two chunks": CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    "a chunk with zeros": CHUNKED + b"0002\r\n{}\r\n000\r\n\r\n",
    "a chunk with an extension": CHUNKED + b'2;a="b"\r\n{}\r\n0\r\n\r\n',
    "a chunk size with a space": CHUNKED + b"2 \r\n{}\r\n0\r\n\r\n",
}

REJECTED: dict[str, bytes] = {
    "two Hosts": GET + HOST + HOST + b"\r\n",
    "two differing Hosts": GET + HOST + b"host: other\r\n\r\n",
    "no Host": GET + b"\r\n",
    "an empty Host": GET + b"Host:\r\n\r\n",
    "a Host with a space": GET + b"Host: a b\r\n\r\n",
    "a Host with a path": GET + b"Host: a/b\r\n\r\n",
    "a Host with two dots": GET + b"Host: a..b\r\n\r\n",
    "a bare CR in a value": GET + HOST + b"X: a\rY: b\r\n\r\n",
    "a bare CR before the line break": GET + HOST + b"X: a\r\r\n\r\n",
    "a bare CR in a name": GET + HOST + b"X\r: a\r\n\r\n",
    "NUL in a value": GET + HOST + b"X: a\0b\r\n\r\n",
    "NUL in a name": GET + HOST + b"X\0: a\r\n\r\n",
    "NUL in the target": b"GET /healthz\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in a value": GET + HOST + b"X: a\x1bb\r\n\r\n",
    "a line that ends with LF": GET + HOST + b"X: a\nContent-Length: 2\r\n\r\n",
    "a head that ends with LF": GET + b"Host: localhost\n\n\r\n\r\n",
    "a folded line": GET + HOST + b"X: a\r\n b\r\n\r\n",
    "a folded line with a colon": GET + HOST + b"X: a\r\n b: c\r\n\r\n",
    "a space before the first name": GET + b" Host: localhost\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before the colon": POST + b"Content-Length\t: 2\r\n\r\n{}",
    "a space before the colon of a coding": (
        POST + b"Transfer-Encoding : chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "a line without a colon": GET + HOST + b"X\r\n\r\n",
    "a line without a name": GET + HOST + b": a\r\n\r\n",
    "a method in lower case": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method with a control character": b"G\x01ET /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a space": b"GET /health z HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /healthz\r\n" + HOST + b"\r\n",
    "version 2.0": b"GET /healthz HTTP/2.0\r\n" + HOST + b"\r\n",
    "version 1.10": b"GET /healthz HTTP/1.10\r\n" + HOST + b"\r\n",
    "a coding in HTTP/1.0": (
        CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n"
    ),
    "a coding and a length": (
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    "a length and a coding": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    ),
    **{
        f"the coding {coding!r}": POST + b"Transfer-Encoding: %b\r\n\r\n0\r\n\r\n" % coding
        for coding in (
            b"identity", b"gzip", b"gzip, chunked", b"chunked, identity", b"chunked, chunked",
            b"xchunked", b"chunked\x0b", b"\x0bchunked", b'"chunked"', b"",
        )
    },
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    **{
        f"the length {length!r}": POST + b"Content-Length: %b\r\n\r\n{}" % length
        for length in (
            b"+2", b"-2", b"0x2", b"2 2", b"2, 2", b"2,3", b"2.0", b"2_0", b"", b"two",
            b"99999999999999999999", "２".encode(), "²".encode(), b"\x0b2",
        )
    },
    **{
        f"the space {space!r} before {name}": head + name.encode() + b":" + space.encode() + rest
        for space in ("\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u205f", "\u3000", " \xa0")
        for head, name, rest in (
            (GET, "Host", b"localhost\r\n\r\n"),
            (POST, "content-length", b"2\r\n\r\n{}"),
            (POST, "Transfer-Encoding", b"chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        )
    },
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two differing lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    **{
        f"the chunk {chunk!r}": CHUNKED + chunk + b"\r\n0\r\n\r\n"
        for chunk in (
            b"0x2\r\n{}", b"+2\r\n{}", b"-2\r\n{}", b"2_0\r\n{}", b" 2\r\n{}", b"\r\n{}",
            b"2\n{}", b"2\r{}", b"g\r\n{}", b"2\x0b\r\n{}", "２\r\n{}".encode(),
            b"2;a\n\r\n{}", b"2;a\0\r\n{}", b"1\r\n{}", b"2\r\n{}\n0\r\n\r\n", b"2\r\n{}xx",
            b"fffffffffffffffff\r\n{}",
        )
    },
    "a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nX: a\r\n\r\n",
    "a last chunk that LF ends": CHUNKED + b"2\r\n{}\r\n0\n\n\r\n",
}  # fmt: skip

LENIENT_NGINX = {
    "a bare CR before the line break",
    "a control character in a value",
    "a line that ends with LF",
    "a head that ends with LF",
    "a line without a colon",
    "version 1.10",
    "the chunk b'2\\n{}'",
    "the chunk b'2;a\\x00\\r\\n{}'",
    "the chunk b'2\\r\\n{}\\n0\\r\\n\\r\\n'",
    "a trailer",
    "a last chunk that LF ends",
    *(name for name in REJECTED if name.endswith(" before Host")),
}
"""Messages of REJECTED that nginx accepts; it passes them on in a form with one reading."""

STRICT_NGINX = {"a tab around Host", "a tab around a length"}
"""Messages of ACCEPTED that nginx rejects; RFC 9110 §5.6.3 allows the tab (SECURITY.md)."""


@pytest_asyncio.fixture(scope="module")
async def nginx() -> AsyncIterator[str]:
    """Yield the URL of an nginx, which forwards complete requests to a server that accepts all."""
    missing = find_missing("nginx")
    installed.require(missing or "", not missing)
    async with private_folder() as home:
        port, backend = free_ports(2)
        configuration = NGINX.format(home=home, port=port, backend=backend)
        (home / "nginx.conf").write_text(configuration)
        process = await asyncio.create_subprocess_exec(
            find_nginx(), "-c", str(home / "nginx.conf"), "-p", str(home),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await is_listening(port):
                    await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


def find_nginx() -> str:
    found = Path("/usr/sbin/nginx")
    return str(found) if found.exists() else "nginx"


async def is_listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def send(url: str, message: bytes) -> list[bytes]:
    """Send a message and then a second request; return the statuses of all responses."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(message + GET + HOST + b"Connection: close\r\n\r\n")
    received = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            while part := await reader.read(65536):
                received += part
    writer.close()
    statuses = received.split(b"HTTP/1.")[1:]
    return [status.split(b" ")[1] for status in statuses]


@pytest.mark.parametrize("message", ACCEPTED.values(), ids=ACCEPTED)
async def test_a_well_formed_message_is_accepted_and_the_next_request_is_served(
    server: Server, message: bytes
) -> None:
    first, *rest = await send(server.url, message)
    assert first in (b"200", b"201")
    assert rest == ([] if b"HTTP/1.0" in message else [b"200"])


@pytest.mark.parametrize("message", REJECTED.values(), ids=REJECTED)
async def test_an_ambiguous_message_is_rejected_and_the_connection_closed(
    server: Server, message: bytes
) -> None:
    before = len(server.read_log())
    statuses = await send(server.url, message)
    assert len(statuses) <= 1  # the rest is not read as a request
    assert set(statuses) <= {b"400"}
    assert "Traceback" not in server.read_log()[before:]


@pytest.mark.parametrize("name", [*ACCEPTED, *REJECTED])
async def test_nginx_rejects_no_message_that_is_accepted_but_those_that_are_listed(
    nginx: str, name: str
) -> None:
    message = ACCEPTED[name] if name in ACCEPTED else REJECTED[name]
    statuses = await send(nginx, message)
    is_accepted = bool(statuses) and statuses[0] in (b"200", b"201")
    assert is_accepted == (name in {*ACCEPTED, *LENIENT_NGINX} - STRICT_NGINX)
