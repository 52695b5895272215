"""`X-Forwarded-*`: which peers' headers count, and which of their values."""

from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from sanic import Request, Sanic
from sanic.compat import Header

from chat.api.trust import proxies

TRUSTED = [ip_network("127.0.0.0/8"), ip_network("::1"), ip_network("10.0.0.0/8")]


def request_from(peer: str | None, *headers: tuple[str, str]) -> Request:
    """Return a request of a peer; None is a peer at a Unix socket."""
    app: Sanic[Any, Any] = Sanic(f"proxies_{id(headers)}", configure_logging=False)
    Sanic.unregister_app(app)
    proxies.install(app, TRUSTED)
    transport: Any = None
    request: Request = Request(b"/", Header(headers), "1.1", "GET", transport, app)
    sockname = "/run/holdline.sock" if peer is None else ("127.0.0.1", 8000)
    connection: Any = SimpleNamespace(client_ip=peer or "", sockname=sockname)
    request.conn_info = connection
    return request


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("2001:db8::1%eth0", [], "2001:db8::1"),
        ("::ffff:203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", [], None),
        ("127.0.0.1", [""], None),
        ("127.0.0.1", [" , "], None),
        ("127.0.0.1", ["unknown"], None),
        ("127.0.0.1", ["198.51.100.1, unknown"], None),
        ("127.0.0.1", ["198.51.100.1, _hidden, 10.1.2.3"], None),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),  # a client forged the first
        ("127.0.0.1", ["192.0.2.66, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["192.0.2.66", "198.51.100.1"], "198.51.100.1"),  # HAProxy adds a field
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("127.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("127.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("127.0.0.1", ["127.0.0.1"], "127.0.0.1"),  # a client on the proxy's machine
        ("127.0.0.1", ["10.0.0.9, 10.1.2.3"], "10.0.0.9"),
        (None, ["198.51.100.1"], "198.51.100.1"),
        (None, [], None),
        ("", ["198.51.100.1"], None),  # the connection is lost
    ],
)
def test_the_client_is_the_peer_or_the_last_address_that_is_not_a_trusted_proxy(
    peer: str | None, values: list[str], expected: str | None
) -> None:
    request = request_from(peer, *(("X-Forwarded-For", value) for value in values))
    assert proxies.client_address(request) == (expected and ip_address(expected))


@pytest.mark.parametrize(
    ("peer", "values", "expected"),
    [
        ("203.0.113.9", ["https"], "http"),
        ("127.0.0.1", [], "http"),
        ("127.0.0.1", ["https"], "https"),
        ("127.0.0.1", ["HTTPS"], "https"),
        ("127.0.0.1", ["https, http"], "https"),
        ("127.0.0.1", ["http, https"], "http"),
        ("127.0.0.1", ["https", "http"], "https"),
        ("127.0.0.1", ["gopher"], "http"),
        ("10.9.8.7", ["https"], "https"),
        (None, ["https"], "https"),
    ],
)
def test_the_scheme_is_the_first_value_of_a_trusted_proxy(
    peer: str | None, values: list[str], expected: str
) -> None:
    request = request_from(peer, *(("X-Forwarded-Proto", value) for value in values))
    assert proxies.get_scheme(request) == expected
