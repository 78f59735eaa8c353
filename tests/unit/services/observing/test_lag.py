"""How late an event loop is."""

import asyncio
import time

from coe.services.observing.lag import watch_lag


async def test_what_holds_the_loop_is_seen():
    seen = []
    watching = asyncio.create_task(watch_lag(seen.append, every_s=0.01))
    await asyncio.sleep(0.005)
    held_until = time.perf_counter() + 0.1
    while time.perf_counter() < held_until:
        pass
    await asyncio.sleep(0.03)
    watching.cancel()
    assert 0.05 < max(seen) < 5.0
    assert all(late_s >= 0 for late_s in seen)


async def test_whoever_fails_to_be_told_is_told_again():
    seen, three = [], asyncio.Event()

    def observe(late_s):
        seen.append(late_s)
        if len(seen) == 3:
            three.set()
        raise ZeroDivisionError

    watching = asyncio.create_task(watch_lag(observe, every_s=0.0))
    async with asyncio.timeout(5.0):
        await three.wait()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
