"""Copies of one expert, of which one fails at once or is slow: who gets its share."""

import asyncio
from random import Random

from harness.copies import copied
from harness.gateway import LARGE
from harness.load import plain, poisson
from harness.script import Script
from harness.stage import Stage, ends


def shares(stand: Stage, since_s: float) -> list[float]:
    """Of every copy, of what was asked after a moment."""
    copies = (stand.small, stand.large, *stand.others)
    counts = [sum(entry.at_s >= since_s for entry in copy.log) for copy in copies]
    return [count / sum(counts) for count in counts]


async def test_f02_a_copy_that_fails_fast_attracts_nobody(tmp_path):
    async with copied(tmp_path) as (stand, _):
        stand.small.script = Script(status=500)
        draw = plain(Script(tokens=4, ttft_s=0.03), 1.0)
        seen = await poisson(stand.caller, 20.0, 2.0, Random(1), draw, model=LARGE)
        since_s = asyncio.get_running_loop().time()
        seen += await poisson(stand.caller, 40.0, 4.0, Random(2), draw, "c", model=LARGE)
        assert ends(seen) == {"done": len(seen)}
        assert shares(stand, since_s)[0] <= 0.05
        await stand.checked(copies=True)


async def test_f05_a_copy_that_is_slow_gets_little(tmp_path):
    async with copied(tmp_path) as (stand, _):
        stand.small.script = Script(tokens=10, ttft_s=0.5, pace_s=0.02)
        quick = Script(tokens=10, ttft_s=0.025, pace_s=0.001)
        for copy in (stand.large, *stand.others):
            copy.script = quick
        # a prompt that says nothing leaves each copy to its own pace
        same = plain(Script(), 1.0)
        seen = await poisson(stand.caller, 30.0, 3.0, Random(3), same, model=LARGE)
        since_s = asyncio.get_running_loop().time()
        seen += await poisson(stand.caller, 30.0, 4.0, Random(4), same, "c", model=LARGE)
        assert ends(seen) == {"done": len(seen)}
        assert shares(stand, since_s)[0] <= 0.10
        await stand.checked(copies=True)
