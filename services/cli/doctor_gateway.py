"""What ``coe doctor`` looks at of the gateway: its ledger, who comes in, where it listens."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from coe.access.section import TlsSection
from coe.budgets import load_budgets
from coe.config import Config
from coe.environment import admin_token, redis_url, state_home
from coe.errors import CoeError
from coe.errors.files import ConfigError
from coe.errors.gateway import LedgerError, LedgerUnavailableError
from coe.services.access.porter import key_file
from coe.services.access.tls import private
from coe.services.cli.finding import Finding, attempt
from coe.services.cli.serve import address, listen
from coe.services.store.journal import Journal
from coe.services.store.opening import enforcer_of
from coe.store import RedisStoreSection, SqliteStoreSection


def gateway_findings(config: Config) -> Iterator[Finding]:
    """The findings, in the order in which a start would come upon them."""
    if _has_limits(config):
        yield from _ledger(config.store or SqliteStoreSection(kind="sqlite"))
    if config.access is not None:
        yield _keys(config)
    variable = "set it to a secret that a header of HTTP can hold"
    yield attempt("switches", lambda: _switches(config), variable)
    if (tls := config.gateway.tls) is not None:
        yield attempt("tls", lambda: _tls(tls), "correct section `gateway.tls` of coe.yaml")
    yield _port(config)


def _has_limits(config: Config) -> bool:
    try:
        return bool(load_budgets(config.budgets, config.specs).limits)
    except CoeError:
        return False


def _ledger(section: SqliteStoreSection | RedisStoreSection) -> Iterator[Finding]:
    """Whether the journal adds up and can be written, and whether Redis answers."""
    path = section.journal(state_home())
    yield attempt(
        "ledger", lambda: _journal(path), "correct `store.path` of coe.yaml, or its folder"
    )
    if not isinstance(section, RedisStoreSection):
        return
    try:
        asyncio.run(_asked(section))
    except LedgerUnavailableError as error:
        alone = f"until it answers, each gateway grants {section.share:.0%} of every limit"
        yield Finding("redis", "warning", str(error), f"start it, or correct its address: {alone}")
    except CoeError as error:
        yield Finding("redis", "failed", str(error), "see docs/ledger.md")
    else:
        yield Finding("redis", "ok", f"answers at the address in ${section.url_env}")


def _journal(path: Path) -> str:
    if not path.exists():
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise LedgerError(f"{path}: nothing can be written in {folder}")
        return f"{path} is made at the first start"
    journal = Journal.read(path)
    try:
        faults = journal.contents().faults
    finally:
        journal.close()
    if faults:
        raise LedgerError(f"{path} does not add up: {faults[0]}")
    if not os.access(path, os.W_OK):
        raise LedgerError(f"{path} cannot be written")
    return f"{path} adds up"


async def _asked(section: RedisStoreSection) -> None:
    enforcer = enforcer_of(section, redis_url(section.url_env), "doctor")
    try:
        await enforcer.check()
    finally:
        await enforcer.close()


def _keys(config: Config) -> Finding:
    try:
        file, now_s = key_file(config), time.time()
        keys = [record.key() for record in file.records()]
    except ConfigError as error:
        return Finding("keys", "failed", str(error), "see docs/access.md")
    n_valid = sum(not key.revoked and now_s < (key.expires_s or math.inf) for key in keys)
    if n_valid:
        return Finding("keys", "ok", f"{n_valid} of {len(keys)} in {file.path} hold")
    detail = f"none in {file.path} holds, so nobody but the operator is let in"
    return Finding("keys", "warning", detail, "make one with `coe keys create`")


def _switches(config: Config) -> str:
    variable = config.gateway.admin_token_env
    if admin_token(variable) is None:
        return f"shut, while ${variable} is not set where the gateway starts"
    return f"open to whoever shows ${variable}"


def _tls(section: TlsSection) -> str:
    private(section)
    return f"{section.certificate} goes with its key"


def _port(config: Config) -> Finding:
    where = address(config.gateway.host, config.gateway.port)
    try:
        listen(config.gateway.host, config.gateway.port).close()
    except CoeError as error:
        remedy = "a gateway may be running already; if not, choose another"
        return Finding("port", "warning", str(error), remedy)
    return Finding("port", "ok", f"{where} is free")
