"""What a gateway makes of the supervisor's snapshots."""

from coe.load import Presence
from coe.replica import HostReport, Replica, Snapshot
from coe.services.cluster.follower import FleetClient, Follower

READY = HostReport("ready", address="http://127.0.0.1:1", n_running=1)


def snapshot(**nodes):
    """Of a copy of each of these experts, ready on its node."""
    return Snapshot(
        "e", 1, {name: Replica(f"{name}-1", name, node, READY) for name, node in nodes.items()}
    )


def test_what_must_not_leave_its_node_is_absent_elsewhere():
    follower = Follower(FleetClient(None, "", ""), kept_on={"private": "home"})
    follower.notice(snapshot(private="rented", other="rented"))
    assert follower.ready("private") == []
    assert follower.presence("private") == Presence(0, 0)
    assert follower.state("private") == "absent"
    assert follower.state("other") == "ready"
    follower.notice(snapshot(private="home", other="home"))
    assert [copy.node for copy in follower.ready("private")] == ["home"]
    assert follower.presence("private") == Presence(1, 1)
