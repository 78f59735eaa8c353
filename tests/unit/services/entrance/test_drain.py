"""A gateway that is to end does, whatever fails on the way."""

from types import SimpleNamespace

import numpy as np
import pytest

from coe.crowd import Crowd
from coe.services.entrance.door import Door
from coe.services.entrance.drain import Drain


async def test_what_fails_on_the_way_ends_the_server_at_once():
    def say(line):
        raise OSError("no room for remarks")

    door = Door(Crowd(4, 4, np.random.default_rng(0)), 60.0)
    server = SimpleNamespace(should_exit=False, force_exit=False)
    with door.inside("somebody"):
        drain = Drain(door, server, 60.0, 60.0, say)
        drain.begin()
        with pytest.raises(OSError, match="no room"):
            await drain.over()
        assert (server.should_exit, server.force_exit, door.phase) == (True, True, "cut")
