"""Where the gateway connects to, and where it never does."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.addresses import Reach, kind_of, reach_of

KINDS = [
    ("8.8.8.8", "public"),
    ("2606:4700::1111", "public"),
    ("10.0.0.5", "private"),
    ("172.31.255.255", "private"),
    ("172.32.0.0", "public"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "private"),
    ("100.100.100.200", "never"),
    ("168.63.129.16", "never"),
    ("fd00::1", "private"),
    ("fd00:ec2::254", "never"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.255", "loopback"),
    ("::1", "loopback"),
    ("0.0.0.0", "never"),
    ("::", "never"),
    ("169.254.169.254", "never"),
    ("192.0.0.1", "never"),
    ("192.0.2.1", "never"),
    ("198.18.0.1", "never"),
    ("198.51.100.1", "never"),
    ("203.0.113.1", "never"),
    ("224.0.0.1", "never"),
    ("255.255.255.255", "never"),
    ("fe80::1", "never"),
    ("fe80::1%eth0", "never"),
    ("ff02::1", "never"),
    ("100::1", "never"),
    ("2001:db8::1", "never"),
    ("::ffff:169.254.169.254", "never"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:8.8.8.8", "public"),
    ("64:ff9b::a00:5", "private"),
    ("64:ff9b::a9fe:a9fe", "never"),
    ("2002:a9fe:a9fe::1", "never"),
    ("2002:7f00:1::1", "loopback"),
    ("2002:808:808::1", "public"),
    ("::7f00:1", "loopback"),
]


@pytest.mark.parametrize(("address", "kind"), KINDS)
def test_an_address_is_what_its_range_is_for(address, kind):
    assert kind_of(address) == kind


@given(st.ip_addresses(v=4))
def test_an_address_in_another_is_what_it_is_by_itself(address):
    for prefix, n_bits in [("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)]:
        holding = IPv6Address(int(IPv6Address(prefix)) + (int(address) << n_bits))
        assert kind_of(str(holding)) == kind_of(str(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254",
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]",
        "http://[::ffff:127.0.0.1]",
        "http://[fe80::1]",
        "http://[fe80::1%25eth0]",
        "http://0x7f.1",
        "http://0x7f000001",
        "http://017700000001",
        "http://2130706433",
        "http://127.1",
        "http://localhost.",
        "http://metadata.google.internal",
        "http://METADATA.google.internal",
        "http://metadata",
        "http://metadata.azure.com",
        "http://instance-data",
        "http://instance-data.ec2.internal",
        "http://0.0.0.0:8000",
        "http://user:key@example.com",
        "http://example.com@169.254.169.254",
        "http://example.com:22",
        "http://10.0.0.1:25",
        "http://example.com:0",
        "http://example.com:99999",
        "http://example.com/v1?x=1",
        "http://example.com/v1#x",
        "http://exa mple.com",
        "http://bücher.example",
        "http://",
        "ftp://example.com",
        "file:///etc/passwd",
    ],
)
def test_nobody_may_connect_there_whatever_is_allowed(url):
    with pytest.raises(ValueError, match=r"."):
        reach_of(url, loopback=True, private=True)


@pytest.mark.parametrize(
    ("url", "allowed", "reach"),
    [
        ("https://api.example.com/v1", {}, Reach()),
        ("http://example.com:8080/v1", {}, Reach()),
        ("http://vllm:8000/v1", {}, Reach()),
        ("http://vllm:8000/v1", {"private": True}, Reach(private=True)),
        ("http://127.0.0.1:9/v1", {}, Reach(loopback=True)),
        ("http://[::1]:8000/v1", {}, Reach(loopback=True)),
        ("http://localhost:8000/v1", {}, Reach(loopback=True)),
        ("http://10.0.0.5:8000/v1", {}, Reach(private=True)),
        ("http://[fd12::5]:8000/v1", {}, Reach(private=True)),
        ("http://nano.local:8000/v1", {}, Reach(private=True)),
        ("http://8.8.8.8/v1", {"loopback": True}, Reach(loopback=True)),
    ],
)
def test_an_address_says_what_it_may_be_reached_by(url, allowed, reach):
    assert reach_of(url, **allowed) == reach


@pytest.mark.parametrize(
    ("url", "forbidden"),
    [
        ("http://127.0.0.1:8000", {"loopback": False}),
        ("http://localhost:8000", {"loopback": False}),
        ("http://10.0.0.5", {"private": False}),
        ("http://nano.local", {"private": False}),
    ],
)
def test_what_is_forbidden_is_refused_though_the_address_is_written_out(url, forbidden):
    with pytest.raises(ValueError, match=f"set allow_{next(iter(forbidden))}"):
        reach_of(url, **forbidden)


def test_what_a_name_leads_to_is_looked_at():
    reach = Reach()
    assert reach.refusal("8.8.8.8") is None
    assert "allow_loopback" in reach.refusal("127.0.0.1")
    assert "allow_private" in reach.refusal("10.0.0.1")
    everywhere = Reach(loopback=True, private=True)
    assert everywhere.refusal("127.0.0.1") is everywhere.refusal("10.0.0.1") is None
    for address in ("169.254.169.254", "fe80::1%3", "nonsense", "0x7f.1", ""):
        assert everywhere.refusal(address) is not None
