"""Who is behind proxies: only what a trusted one has seen counts."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.access.proxies import Proxies

OURS = Proxies([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


@pytest.mark.parametrize(
    ("peer", "chains", "client"),
    [
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1, 10.0.0.7"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["198.51.100.1:1234"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("fd00::1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4, unknown"], "10.0.0.1"),
        ("10.0.0.1", [" , ,"], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, not an address, 10.0.0.5"], "10.0.0.5"),
        ("10.0.0.1", ["for=198.51.100.1;proto=https;by=10.0.0.1"], "198.51.100.1"),
        ("10.0.0.1", ['for="[2001:db8::1]:4711", For=10.0.0.2'], "2001:db8::1"),
        ("10.0.0.1", ['for="_hidden"'], "10.0.0.1"),
        ("a socket", ["198.51.100.1"], "a socket"),
        ("10.0.0.1", [", ".join(["10.0.0.1"] * 500)], "10.0.0.1"),
        ("10.0.0.1", [", ".join(["1.2.3.4"] * 499 + ["198.51.100.1"])], "198.51.100.1"),
        ("203.0.113.9", [", ".join(["10.0.0.1"] * 500)], "203.0.113.9"),
    ],
)
def test_the_last_that_no_proxy_of_ours_is(peer, chains, client):
    assert OURS.client(peer, chains) == client


@given(st.lists(st.text(max_size=60), max_size=5))
def test_whatever_stands_before_what_our_proxy_added_changes_nothing(chains):
    assert OURS.client("10.0.0.1", [*chains, "198.51.100.7"]) == "198.51.100.7"
    assert OURS.client("198.51.100.7", chains) == "198.51.100.7"
    assert Proxies().client("10.0.0.1", chains) == "10.0.0.1"
