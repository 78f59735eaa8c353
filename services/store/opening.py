"""The ledger of a configuration, opened for as long as a gateway serves."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from coe.environment import redis_url, state_home
from coe.errors.files import ConfigError
from coe.errors.gateway import LedgerError
from coe.ledger.limits import Limit
from coe.ledger.protocol import KeptStore
from coe.services.enduring import alongside, for_ever
from coe.services.store.books import TICK_S, Books, wall_ms
from coe.services.store.local import LocalStore
from coe.services.store.trouble import Say
from coe.store import RedisStoreSection, SqliteStoreSection

if TYPE_CHECKING:
    from coe.services.store.enforcer import Enforcer


def end_process(error: LedgerError) -> None:
    """End as a signal would; whoever starts another finds all that was written."""
    words = "the ledger cannot be written any more: the gateway ends"
    logging.getLogger(__name__).error(words, exc_info=error)
    os.kill(os.getpid(), signal.SIGTERM)


@asynccontextmanager
async def opened(
    section: SqliteStoreSection | RedisStoreSection | None,
    limits: Sequence[Limit],
    say: Say = lambda line: None,
    now_ms: Callable[[], int] = wall_ms,
    give_up: Callable[[LedgerError], None] = end_process,
) -> AsyncIterator[KeptStore | None]:
    """The store that a section asks for, kept up until the context ends; no limits, no store.

    Parameters
    ----------
    say : told when the ledger cannot be kept, and when it can again.
    give_up : called once where nothing can be written any more, and so nothing can be granted.

    Raises
    ------
    LedgerError
        As `Books.open`, `Books.close` and `SharedStore.start`.
    ConfigError
        The variable with the address of Redis is not set or holds none, or its client is not
        installed.
    """
    if not limits:
        yield None
        return
    section = section or SqliteStoreSection(kind="sqlite")
    url = redis_url(section.url_env) if isinstance(section, RedisStoreSection) else ""
    path = section.journal(state_home())
    books = Books.open(path, limits, section.lease_s * 1000, section.fsync, now_ms, say)
    books.give_up = give_up
    if isinstance(section, RedisStoreSection):
        async with _shared(books, section, url, say) as store:
            yield store
        return
    try:
        async with alongside(partial(_ticking, books), "ledger"):
            yield LocalStore(books)
    finally:
        await books.close()


@asynccontextmanager
async def _shared(
    books: Books, section: RedisStoreSection, url: str, say: Say
) -> AsyncIterator[KeptStore]:
    try:
        enforcer = enforcer_of(section, url, books.gateway)
    except ConfigError:
        await books.close()
        raise
    from coe.services.store.shared import SharedStore

    store = SharedStore(books, enforcer, section.share, say)
    try:
        await store.start()
        yield store
    finally:
        await store.close()


def enforcer_of(section: RedisStoreSection, url: str, gateway: str) -> Enforcer:
    """What speaks to the Redis of a section, for one gateway; nothing is connected yet.

    Raises
    ------
    ConfigError
        Its client is not installed, or ``url`` is no address of a Redis.
    """
    try:
        from coe.services.store.enforcer import Enforcer
    except ImportError as error:
        raise ConfigError(
            "store: the client of Redis is not installed: pip install 'coe-router[redis]'"
        ) from error
    try:
        return Enforcer(url, section.namespace, gateway, section.timeout_s)
    except ValueError as error:
        # not what stands there, which may be a password
        raise ConfigError(
            f"store: environment variable {section.url_env} holds no address of a Redis: export "
            "one such as redis://127.0.0.1:6379/0"
        ) from error


async def _ticking(books: Books) -> None:
    async def turn() -> None:
        await asyncio.sleep(TICK_S)
        books.tick()

    await for_ever("ticks of the ledger", turn, 0.0)
