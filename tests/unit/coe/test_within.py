"""A bound on time ends what takes longer, and takes no cancellation of others for its own."""

import asyncio

import pytest

from coe.within import Within


async def test_what_ends_in_time_is_let_be() -> None:
    with Within(5.0) as limit:
        await asyncio.sleep(0)
    assert not limit.expired


async def test_what_takes_longer_times_out() -> None:
    with pytest.raises(TimeoutError), Within(0.01):
        await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_its_own_is_told_though_the_time_is_over() -> None:
    async def failing() -> None:
        with Within(0.01):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                raise KeyError("mine") from None

    with pytest.raises(KeyError):
        await failing()
    await asyncio.sleep(0)


async def test_a_time_can_be_ended_early_and_only_once() -> None:
    limit = Within(5.0)
    loop = asyncio.get_running_loop()
    loop.call_later(0.01, limit.expire)
    loop.call_later(0.01, limit.expire)
    with pytest.raises(TimeoutError), limit:
        await asyncio.sleep(5)
    assert limit.expired


async def test_a_cancellation_of_somebody_else_stays_one() -> None:
    async def work() -> None:
        with Within(5.0):
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_inner_of_two_ends_first() -> None:
    with Within(5.0) as outer:
        with pytest.raises(TimeoutError), Within(0.01):
            await asyncio.sleep(5)
        await asyncio.sleep(0)
    assert not outer.expired
