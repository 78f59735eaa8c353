"""What a worker holds: settled by itself, or booked whole when it is gone."""

import asyncio

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, stated
from coe.services.workers.desk import Desk

LIMIT = Limit("house", "global", 3600, requests=3)
HOLD = [5, 0, 0, 1]


@pytest.fixture
def store(memory_store):
    return memory_store(LIMIT)


@pytest.fixture
async def desk(store):
    async def office(limits):
        assert limits == (LIMIT,)
        return store

    found = Desk(office)
    with pytest.raises(LedgerUnavailableError):
        await found.reserve("early", ["", ""], HOLD)
    assert await found.under(stated([LIMIT]))
    return found


async def test_limits_hold_and_what_is_settled_or_released_is_no_more_held(desk, store):
    for name in ("a", "b", "c"):
        await desk.reserve(name, ["", ""], HOLD)
    with pytest.raises(BudgetExhaustedError):
        await desk.reserve("d", ["", ""], HOLD)
    desk.settle("a", [3, 0, 0, 1], False)
    desk.release("b")
    assert desk.close() == 1
    assert store.spent == Amounts(8, 0, 0, 2)
    assert store.estimated == {"c"}


async def test_what_is_given_up_while_it_is_reserved_is_released(desk, store):
    reserving = asyncio.create_task(desk.reserve("a", ["", ""], HOLD))
    await asyncio.sleep(0)
    desk.release("a")
    await reserving
    assert store.spent == Amounts()
    assert desk.close() == 0


async def test_what_is_granted_to_a_worker_that_is_gone_was_asked_of_nobody(desk, store):
    reserving = asyncio.create_task(desk.reserve("a", ["", ""], HOLD))
    await asyncio.sleep(0)
    assert desk.close() == 0
    await reserving
    assert store.spent == Amounts()


async def test_what_is_said_twice_or_of_nothing_changes_nothing(desk, store):
    await desk.reserve("a", ["", ""], HOLD)
    desk.settle("a", HOLD, False)
    desk.release("a")
    desk.release("never")
    assert store.spent == Amounts(*HOLD)


async def test_what_is_given_up_and_then_refused_is_not_remembered(desk):
    for name in ("a", "b", "c"):
        await desk.reserve(name, ["", ""], HOLD)
    reserving = asyncio.create_task(desk.reserve("d", ["", ""], HOLD))
    await asyncio.sleep(0)
    desk.release("d")
    with pytest.raises(BudgetExhaustedError):
        await reserving
    assert desk._given_up == set()
