"""The listening socket: the families that it serves, the URL that is printed, unusable names."""

import errno
import os
import socket
import urllib.parse
from typing import Any

import pytest

from config.listener import ListenError, format_url, listen


@pytest.mark.parametrize(
    ("host", "families"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("0.0.0.0", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("::", ["127.0.0.1", "::1"]),
        ("0:0:0:0:0:0:0:0", ["127.0.0.1", "::1"]),
        ("localhost", []),
    ],
)
def test_the_printed_url_and_every_family_of_the_host_can_be_connected_to(
    host: str, families: list[str]
) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen(host, 0) as listener:
        url = urllib.parse.urlsplit(format_url(listener))
        assert url.scheme == "http"
        assert url.port
        for address in [url.hostname, *families]:
            socket.create_connection((address, url.port)).close()
            listener.accept()[0].close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""
    found = [
        (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0))
        for one in addresses
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)


def test_a_name_gets_the_first_of_its_addresses_that_this_machine_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve_to(monkeypatch, "2001:db8::1", "192.0.2.1", "127.0.0.1", "127.0.0.2")
    with listen("name", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_system_without_dual_stack_serves_ipv6_and_prints_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    with listen("::", 0) as listener:
        assert format_url(listener).startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address"),
        ("::ffff:127.0.0.1", ""),
        ("fe80::1", ""),
        ("no-such-name.invalid", ""),
        ("a..b", "not a name"),
        ("a" * 70, "not a name"),
    ],
)
def test_a_host_that_this_machine_lacks_is_named_in_one_line(host: str, reason: str) -> None:
    with pytest.raises(ListenError) as caught:
        listen(host, 23664)
    message = str(caught.value)
    assert message.startswith(f"cannot listen on {host} port 23664 ({reason}")
    assert message.endswith("): set HOST")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("number", "setting"),
    [
        (errno.EADDRINUSE, "PORT"),
        (errno.EACCES, "PORT"),
        *((number, "HOST") for number in (errno.EINVAL, errno.ENODEV, errno.EADDRNOTAVAIL)),
    ],
)
def test_the_setting_is_the_port_only_if_the_port_is_taken_or_forbidden(
    monkeypatch: pytest.MonkeyPatch, number: int, setting: str
) -> None:
    def fail(*arguments: object, **options: object) -> socket.socket:
        raise OSError(number, "")

    monkeypatch.setattr(socket, "create_server", fail)
    with pytest.raises(ListenError, match=rf"\({os.strerror(number)}\): set {setting}$"):
        listen("127.0.0.1", 80)


def test_a_port_in_use_is_named_and_no_other_address_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found: list[Any] = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.1", "127.0.0.2")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
        with pytest.raises(ListenError, match=rf"port {port} \(Address already in use\): set PORT"):
            listen("name", port)
