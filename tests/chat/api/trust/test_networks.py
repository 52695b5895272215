"""Which addresses count as one client."""

from ipaddress import ip_address

import pytest

from chat.api.trust.networks import find_network


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.2", "192.0.2.2/32"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:ffff:ffff:ffff", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one_address(address: str, network: str) -> None:
    assert find_network(ip_address(address)) == network
