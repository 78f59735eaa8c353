"""What a gateway makes of the supervisor's snapshots."""

import asyncio

from coe.errors.gateway import FleetError
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


class Telling:
    """A supervisor that has the next of these words for whoever asks."""

    def __init__(self, *words):
        self.words, self.said = list(words), asyncio.Event()

    async def snapshot(self, seen=None, wait_s=0.0):
        if not self.words:
            self.said.set()
            await asyncio.Event().wait()
        word = self.words.pop(0)
        if isinstance(word, Exception):
            raise word
        return word


async def test_a_follower_goes_on_after_what_nobody_foresaw(clock):
    seen, said = [], []

    def noticed(found):
        seen.append(found)
        if len(seen) == 1:
            raise ZeroDivisionError

    source = Telling(
        snapshot(a="home"), RuntimeError("a surprise"), FleetError("gone"), snapshot(b="home")
    )
    follower = Follower(source, said.append, noticed, sleep=clock.sleep)
    following = asyncio.create_task(follower.run())
    async with asyncio.timeout(5.0):
        await source.said.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert follower.state("b") == "ready"
    assert said == ["gone; its last word holds", "the fleet's supervisor answers again"]
    assert clock() == 3 * follower.again_s
