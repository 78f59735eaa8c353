"""An expert that is well and ill by turns: how long it is left out, and how often it is tried."""

import asyncio
import time
from itertools import pairwise
from typing import NamedTuple

from harness.gateway import LARGE, Threaded
from harness.load import background, plain
from harness.script import Script
from harness.stage import Stage, ends, stage

FLAPS_S = 0.5
# longer than it is ever well, which would count against earlier times
RULES = {"ejected_s": 0.7, "failures_in_a_row": 3, "retry_percent": 100}
JITTER = 0.2
LOOKS_EVERY_S = 0.002
UNDER_WAY_S = 0.2
"""By then whatever was sent before an ejection has arrived."""


class Ejection(NamedTuple):
    """From when it was seen, and until when it is to last."""

    at_s: float
    until_s: float


async def ejections(two: Stage, found: list[Ejection]) -> None:
    """Note every ejection of the larger expert, until cancelled."""
    assert isinstance(two.gateway, Threaded)
    group = two.gateway.runtime.engine.guards.groups[LARGE]
    circuit, n_seen = group.members[LARGE].circuit, 0
    while True:
        if circuit.n_ejections > n_seen:
            n_seen = circuit.n_ejections
            found.append(Ejection(time.monotonic(), circuit.until_s))
        await asyncio.sleep(LOOKS_EVERY_S)


async def test_f07_an_expert_that_flaps_is_left_out_for_longer_and_tried_once_each_time(tmp_path):
    """Half a second of errors, half a second without; an ejection lasts 0.7 s instead of 30 s."""
    found: list[Ejection] = []
    async with stage(tmp_path, resilience=RULES) as two:
        watching = asyncio.create_task(ejections(two, found))
        async with background(two.caller, 40.0, plain(Script(tokens=2))) as seen:
            for n in range(9):
                two.large.script = Script(status=200 if n % 2 else 500)
                await asyncio.sleep(FLAPS_S)
        watching.cancel()
        assert ends(seen).keys() <= {"done", "whole"}
        await two.checked()
    assert len(found) >= 3
    for n, one in enumerate(found, 1):
        usual_s = n * RULES["ejected_s"]
        assert (1 - JITTER) * usual_s - 0.1 <= one.until_s - one.at_s <= (1 + JITTER) * usual_s
        assert [e for e in two.large.log if one.at_s + UNDER_WAY_S < e.at_s < one.until_s] == []
    for one, other in pairwise(found):
        statuses = [e.status for e in two.large.log if one.until_s <= e.at_s <= other.at_s]
        # one request finds out whether it is well again, and nobody else does
        assert 200 in statuses or statuses == [500]
