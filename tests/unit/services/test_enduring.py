"""Work that goes on whatever fails in it: told once of each kind, counted, and never swallowed."""

import asyncio
import logging

import pytest

from coe.services.enduring import UNFORESEEN, Enduring, for_ever


@pytest.fixture
def counted():
    """How often some work has failed so far."""
    return lambda work: UNFORESEEN.labels(work)._value.get()


def fail(kind):
    raise kind("a surprise")


def test_an_error_ends_its_piece_and_is_told_once_with_its_traceback(caplog, counted):
    work, done, before = Enduring("some work"), [], counted("some work")
    for n in range(5):
        with work:
            done.append(n)
            fail(KeyError)
    with work:
        fail(OSError)
    with work:
        raise KeyError("elsewhere")
    assert done == [0, 1, 2, 3, 4]
    assert (counted("some work") - before, work.latest) == (7, "KeyError")
    assert [record.exc_info[0] for record in caplog.records] == [KeyError, OSError, KeyError]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert {record.getMessage() for record in caplog.records} == {"some work: failed, and goes on"}


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_what_ends_a_task_or_a_process_passes(kind, caplog):
    work = Enduring("some work")
    with pytest.raises(kind), work:
        fail(kind)
    assert (caplog.records, work.latest) == ([], "")


async def test_a_turn_that_fails_is_followed_by_a_pause_and_the_next(caplog):
    log, three = [], asyncio.Event()

    async def turn():
        log.append("turn")
        if log.count("turn") == 3:
            three.set()
            await asyncio.Event().wait()
        fail(ValueError)

    async def sleep(seconds):
        log.append(seconds)
        await asyncio.sleep(0)

    going = asyncio.create_task(for_ever("some work", turn, 7.0, sleep))
    await three.wait()
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert log == ["turn", 7.0, "turn", 7.0, "turn"]
    assert len(caplog.records) == 1


async def test_a_turn_that_goes_well_is_followed_by_the_next():
    log, three = [], asyncio.Event()

    async def turn():
        log.append("turn")
        if log.count("turn") == 3:
            three.set()
        await asyncio.sleep(0)

    going = asyncio.create_task(for_ever("some work", turn, 7.0, log.append))
    await three.wait()
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert log == ["turn", "turn", "turn"]
