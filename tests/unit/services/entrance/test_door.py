"""Who is let in begins, whatever fails in one turn of the loop."""

import asyncio

import numpy as np
import pytest

from coe.crowd import Crowd, Line
from coe.services.entrance.door import Door


@pytest.fixture
def door():
    return Door(Crowd(100, 100, np.random.default_rng(0)), 60.0)


async def test_requests_begin_though_a_turn_fails_as_nobody_foresaw(door, monkeypatch):
    turning, n_failures = Line.next_turn, 2

    def next_turn(line):
        nonlocal n_failures
        n_failures -= 1
        return 1 / 0 if n_failures >= 0 else turning(line)

    async def enter():
        with door.inside("somebody") as inside:
            if inside.turn is not None:
                await inside.turn

    monkeypatch.setattr(Line, "next_turn", next_turn)
    async with asyncio.timeout(5.0):
        await asyncio.gather(*(enter() for _ in range(20)))
    assert door.crowd.n == 0
