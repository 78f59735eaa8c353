"""Where a fleet's supervisor may listen and be found."""

import pytest
from pydantic import ValidationError

from coe.fleet import FleetSection

PRIVATE = ["127.0.0.1", "10.0.0.5", "192.168.1.9", "100.101.2.3", "::1", "fd00::7"]
PUBLIC = [
    "8.8.8.8",
    "0.0.0.0",
    "::",
    "2606:4700::1111",
    "100.63.255.255",
    "::ffff:8.8.8.8",
    "::ffff:0.0.0.0",
]


def url_host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@pytest.mark.parametrize("host", PRIVATE)
def test_gateways_find_the_supervisor_where_it_listens(host: str) -> None:
    assert FleetSection(host=host, port=9000).url == f"http://{url_host(host)}:9000"


@pytest.mark.parametrize("host", [*PUBLIC, "head", ""])
def test_it_listens_on_no_public_address_and_on_no_name(host: str) -> None:
    with pytest.raises(ValidationError):
        FleetSection(host=host)


@pytest.mark.parametrize("address", ["http://head-svc:8090", "https://10.1.2.3/fleet"])
def test_an_address_of_its_own_wins(address: str) -> None:
    assert FleetSection(host="10.0.0.5", address=f"{address}/").url == address
    assert FleetSection(host="private", address=address).url == address


@pytest.mark.parametrize("host", PUBLIC)
def test_it_is_not_looked_for_at_a_public_address(host: str) -> None:
    with pytest.raises(ValidationError, match="not for the internet"):
        FleetSection(address=f"http://{url_host(host)}:8090")


def test_an_address_that_only_the_head_knows_needs_another_for_gateways() -> None:
    with pytest.raises(ValidationError, match="say under address"):
        FleetSection(host="private")
