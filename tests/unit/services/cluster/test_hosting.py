"""From the configuration of a fleet to its supervisor."""

import pytest

pytest.importorskip("ray")

from coe.actors import own_address
from coe.fleet import FleetSection
from coe.services.cluster.hosting import supervisor_opener


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.5"])
def test_the_supervisor_listens_where_the_configuration_says(cluster, host):
    served = supervisor_opener(FleetSection(host=host, port=9000), "token")(cluster)
    assert (served.host, served.port, served.token) == (host, 9000, "token")


def test_it_finds_the_heads_own_address_on_the_head(cluster):
    fleet = FleetSection(host="private", address="http://head:8090")
    assert supervisor_opener(fleet, "token")(cluster).host == own_address()
