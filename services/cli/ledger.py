"""The verbs of ``coe ledger`` and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coe.services.cli.console import ConfigOption, JsonOption, errors_explained

ledger_app = typer.Typer(help="What requests hold and have spent under hard limits.")

LedgerOption = Annotated[
    Path | None, typer.Option("--ledger", help="The file; by default the configured one.")
]


@ledger_app.command()
def show(
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    closed: Annotated[
        bool, typer.Option("--closed", help="Also the totals of windows that are over.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Balances by limit, holder and window, as this gateway's journal has them."""
    from coe.services.cli.ledger_table import show as show_balances

    with errors_explained():
        show_balances(config, ledger, closed, as_json)


@ledger_app.command()
def check(
    config: ConfigOption = None, ledger: LedgerOption = None, as_json: JsonOption = False
) -> None:
    """Replay the journal: whether all adds up. Exit code 1 if it does not."""
    from coe.services.cli.ledger_table import check as check_balances

    with errors_explained():
        if not check_balances(config, ledger, as_json):
            raise typer.Exit(1)
