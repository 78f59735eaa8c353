"""Balances of a ledger on the command line, and whether they add up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coe.environment import state_home
from coe.errors.files import ConfigError
from coe.ledger.amounts import RESOURCES, Amounts
from coe.ledger.events import Balance
from coe.ledger.limits import Account, Limit
from coe.services.cli.console import configuration, print_json, say, tell
from coe.services.store.journal import Contents, Journal
from coe.store import SqliteStoreSection

_UNITS = {
    "energy_uj": ("J", 1_000_000),
    "cost_uusd": ("USD", 1_000_000),
    "tokens": ("tokens", 1),
    "requests": ("requests", 1),
}
_N_COLUMNS = (3, 4, 5)


def show(config: Path | None, ledger: Path | None, closed: bool, as_json: bool) -> None:
    """Print what every account holds and has spent.

    Raises
    ------
    ConfigError, LedgerError
        As `_read`.
    """
    path, contents = _read(config, ledger)
    balances = dict(contents.ledger.accounts)
    if closed:
        balances = dict(contents.totals) | balances
    limits = {limit.name: limit for limit in contents.ledger.limits}
    rows = sorted(
        balances.items(), key=lambda row: (row[0].limit, row[0].started_ms, row[0].holder)
    )
    if as_json:
        accounts = [_document(account, balance, limits) for account, balance in rows]
        held = len(contents.ledger.held)
        print_json({"ledger": str(path), "requests_held": held, "accounts": accounts})
        return
    _table(dict(rows), limits)
    tell(f"{path}: {_counted(len(contents.ledger.held), 'requests')} held")
    if contents.faults:
        say(f"{path} does not add up: `coe ledger check` says where")


def check(config: Path | None, ledger: Path | None, as_json: bool) -> bool:
    """Whether all adds up; prints what does not.

    Raises
    ------
    ConfigError, LedgerError
        As `_read`.
    """
    path, contents = _read(config, ledger)
    figures = {
        "rows": contents.n_rows,
        "accounts": len(contents.ledger.accounts),
        "requests_held": len(contents.ledger.held),
        "accounts_overrun": sum(any(b.overrun) for b in contents.ledger.accounts.values()),
    }
    faults = list(contents.faults)
    if as_json:
        print_json({"ledger": str(path), "adds_up": not faults, "faults": faults} | figures)
        return not faults
    for fault in faults:
        tell(fault)
    verdict = "does not add up" if faults else "adds up"
    counted = ", ".join(_counted(n, *name.split("_")) for name, n in figures.items())
    tell(f"{path} {verdict}: {counted}")
    return not faults


def _counted(n: int, things: str, *more: str) -> str:
    """So many of them, in words."""
    return " ".join((str(n), things.removesuffix("s") if n == 1 else things, *more))


def _read(config: Path | None, ledger: Path | None) -> tuple[Path, Contents]:
    """The ledger to look at, and what it says.

    Raises
    ------
    ConfigError
        The configuration is wrong, or there is no ledger yet.
    LedgerError
        The file is no ledger.
    """
    if ledger is None:
        section = configuration(config, quiet=True).store or SqliteStoreSection(kind="sqlite")
        ledger = section.journal(state_home())
    if not ledger.exists():
        raise ConfigError(
            f"{ledger}: no ledger is there: `coe serve` makes one where it has limits"
        )
    journal = Journal.read(ledger)
    try:
        return ledger, journal.contents()
    finally:
        journal.close()


def _table(balances: Mapping[Account, Balance], limits: Mapping[str, Limit]) -> None:
    """Print a line for every ceiling of every account."""
    lines: list[tuple[str, ...]] = [
        ("limit", "of", "window from (UTC)", "spent", "held", "allowed", "")
    ]
    for account, balance in balances.items():
        window = datetime.fromtimestamp(account.started_ms / 1000, UTC).strftime("%F %T")
        whose = (account.limit, account.holder or "-", window)
        limit = limits.get(account.limit)
        ceilings = (None,) * len(RESOURCES) if limit is None else limit.ceilings()
        figures = zip(RESOURCES, balance.spent, balance.held, ceilings, strict=True)
        for resource, spent, held, ceiling in figures:
            unit, scale = _UNITS[resource]
            if ceiling is not None:
                sums = (f"{n / scale:g}" for n in (spent, held, ceiling))
                lines.append((*whose, *sums, unit))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.rjust(width) if k in _N_COLUMNS else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        tell("  ".join(cells).rstrip())


def _document(account: Account, balance: Balance, limits: Mapping[str, Limit]) -> dict[str, Any]:
    limit = limits.get(account.limit)
    ceilings = None if limit is None else dict(zip(RESOURCES, limit.ceilings(), strict=True))
    sums: dict[str, Amounts] = balance._asdict()
    return {
        "limit": account.limit,
        "holder": account.holder,
        "started_ms": account.started_ms,
        "ends_ms": account.ends_ms,
        "ceilings": ceilings,
    } | {name: amounts._asdict() for name, amounts in sums.items()}
