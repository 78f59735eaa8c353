"""The store of a configuration: kept up while a gateway serves, and let go of afterwards."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.files import ConfigError
from coe.errors.gateway import LedgerError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.store import opening
from coe.services.store.books import Books
from coe.services.store.journal import Journal
from coe.services.store.local import LocalStore
from coe.services.store.opening import opened
from coe.services.store.shared import SharedStore
from coe.store import RedisStoreSection, SqliteStoreSection

HOUSE = Limit("house", "global", 10**9, tokens=100)
HALF = Amounts(tokens=50, requests=1)
ALICE = Payer("alice")


def sqlite(path: Path, **fields: Any) -> SqliteStoreSection:
    return SqliteStoreSection(kind="sqlite", path=path, **fields)


async def test_without_limits_there_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    async with opened(sqlite(path), ()) as store:
        assert store is None
    assert not path.exists()


async def test_what_was_spent_is_spent_when_it_is_opened_again(tmp_path: Path) -> None:
    section = sqlite(tmp_path / "state" / "ledger.sqlite")
    async with opened(section, [HOUSE]) as store:
        assert isinstance(store, LocalStore)
        await store.reserve("a", ALICE, HALF)
        store.settle("a", HALF)
    async with opened(section, [HOUSE]) as store:
        assert store is not None
        await store.reserve("b", ALICE, HALF)
        with pytest.raises(BudgetExhaustedError):
            await store.reserve("c", ALICE, HALF)


async def test_without_a_section_it_is_in_the_users_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with opened(None, [HOUSE]) as store:
        assert isinstance(store, LocalStore)
    assert (tmp_path / "coe" / "ledger.sqlite").exists()


async def test_one_file_has_one_gateway(tmp_path: Path) -> None:
    section = sqlite(tmp_path / "ledger.sqlite")
    async with opened(section, [HOUSE]):
        with pytest.raises(LedgerError):
            async with opened(section, [HOUSE]):
                pass
    async with opened(section, [HOUSE]) as store:
        assert store is not None


async def test_leases_are_renewed_while_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "TICK_S", 0.0)
    ms = 0
    async with opened(
        sqlite(tmp_path / "l.sqlite", lease_s=60), [HOUSE], now_ms=lambda: ms
    ) as store:
        assert isinstance(store, LocalStore)
        await store.reserve("a", ALICE, HALF)
        ms = 59_000
        for _ in range(10):
            await asyncio.sleep(0)
        entry = store.books.ledger.entries["a"]
        assert (entry.status, entry.until_ms) == ("held", 119_000)
        store.release("a")


async def test_an_error_of_the_gateway_lets_go_of_the_file(tmp_path: Path) -> None:
    section = sqlite(tmp_path / "ledger.sqlite")
    with pytest.raises(ZeroDivisionError):
        async with opened(section, [HOUSE]):
            raise ZeroDivisionError
    async with opened(section, [HOUSE]) as store:
        assert store is not None


async def test_redis_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COE_REDIS_URL", raising=False)
    section = RedisStoreSection(kind="redis", path=tmp_path / "ledger.sqlite")
    with pytest.raises(ConfigError, match="COE_REDIS_URL"):
        async with opened(section, [HOUSE]):
            pass


@pytest.mark.parametrize("url", ["nonsense", "redis://:secret@127.0.0.1:port/0"])
async def test_what_is_no_address_of_a_redis_is_refused_unshown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("COE_REDIS_URL", url)
    section = RedisStoreSection(kind="redis", path=tmp_path / "ledger.sqlite")
    for _ in range(2):
        with pytest.raises(ConfigError, match="COE_REDIS_URL holds no address") as refused:
            async with opened(section, [HOUSE]):
                pass
        assert url not in str(refused.value)


async def test_a_redis_that_is_not_there_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COE_REDIS_URL", "redis://127.0.0.1:1/0")
    section = RedisStoreSection(kind="redis", path=tmp_path / "ledger.sqlite", share=0.02)
    said, heard = [], asyncio.Event()

    def say(line: str) -> None:
        said.append(line)
        heard.set()

    async with asyncio.timeout(20), opened(section, [HOUSE], say):
        await heard.wait()
    (line,) = said
    assert line.startswith("ledger: the shared ledger cannot be asked: ")
    assert line.endswith(": until it can be, at most 2% of every limit is granted here")


async def test_redis_needs_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setitem(sys.modules, "coe.services.store.enforcer", None)
    section = RedisStoreSection(kind="redis", path=tmp_path / "ledger.sqlite")
    with pytest.raises(ConfigError, match=r"coe-router\[redis\]"):
        async with opened(section, [HOUSE]):
            pass


async def once_rebuilt(reserve: Callable[..., Awaitable[None]], name: str) -> None:
    """Reserve as soon as the first gateways have told an empty Redis what they know."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await reserve(name, ALICE, HALF)
            except LedgerUnavailableError:
                await asyncio.sleep(0.05)


async def test_two_gateways_of_one_redis_share_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_server: Any
) -> None:
    monkeypatch.setenv("COE_REDIS_URL", redis_server.url)
    first, second = (
        RedisStoreSection(kind="redis", path=tmp_path / name, timeout_s=5) for name in ("a", "b")
    )
    async with opened(first, [HOUSE]) as one, opened(second, [HOUSE]) as other:
        assert isinstance(one, SharedStore)
        assert isinstance(other, SharedStore)
        await once_rebuilt(one.reserve, "a")
        await once_rebuilt(other.reserve, "b")
        with pytest.raises(BudgetExhaustedError):
            await one.reserve("c", ALICE, HALF)
        one.release("a")
        other.settle("b", HALF)


async def test_ticks_go_on_after_one_that_nobody_foresaw_would_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "TICK_S", 0.0)
    ticking, n_ticks, ms = Books.tick, 0, 0

    def tick(books: Books) -> Sequence[str]:
        nonlocal n_ticks
        n_ticks += 1
        if n_ticks < 4:
            raise ZeroDivisionError
        return ticking(books)

    monkeypatch.setattr(Books, "tick", tick)
    section = sqlite(tmp_path / "l.sqlite", lease_s=60)
    async with opened(section, [HOUSE], now_ms=lambda: ms) as store:
        assert isinstance(store, LocalStore)
        await store.reserve("a", ALICE, HALF)
        ms = 59_000
        for _ in range(20):
            await asyncio.sleep(0)
        assert store.books.ledger.entries["a"].until_ms == 119_000
        store.release("a")
    async with opened(section, [HOUSE]) as store:
        assert store is not None, "the file was let go of"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_gateway_whose_ledger_cannot_be_written_any_more_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, given_up = sqlite(tmp_path / "l.sqlite"), list[LedgerError]()
    ended: list[int] = []
    monkeypatch.setattr(os, "kill", lambda process_id, number: ended.append(number))

    def give_up(error: LedgerError) -> None:
        given_up.append(error)
        opening.end_process(error)

    async def refused() -> None:
        async with opened(section, [HOUSE], give_up=give_up) as store:
            assert store is not None
            for name in ("a", "b"):
                with pytest.raises(LedgerUnavailableError):
                    await store.reserve(name, ALICE, HALF)

    with monkeypatch.context() as failing:
        failing.setattr(Journal, "append", None)
        with pytest.raises(LedgerError, match="not written any more"):
            await refused()
    assert (len(given_up), ended) == (1, [signal.SIGTERM])
    async with opened(section, [HOUSE]) as store:
        assert store is not None
