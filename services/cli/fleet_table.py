"""A fleet as people read it."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from coe.replica import Replica, Snapshot
from coe.services.cli.console import results

_UNBOUNDED = 1000
"""Columns of output that is no terminal's: another program reads whole rows."""


def print_fleet(found: Snapshot) -> None:
    """Print the table on standard output."""
    width = None if results.is_terminal else _UNBOUNDED
    results.print(fleet_table(found), width=width, soft_wrap=False)


def fleet_table(found: Snapshot) -> Group:
    """One row a copy, by expert; below, why those that are not ready are not.

    Watts are the whole node's, and the same for all its copies.

    Figures and states are never cut; on a narrow terminal long names go on in the next line.
    """
    copies = sorted(found.replicas.values(), key=lambda r: (r.expert_id, r.replica_id))
    return Group(_rows(copies), *map(Text, _reasons(copies)))


def _rows(copies: list[Replica]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("expert", overflow="fold")
    table.add_column("copy", no_wrap=True)
    table.add_column("node", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("busy", "queue", "tok/s", "MB", "W"):
        table.add_column(heading, justify="right", no_wrap=True)
    for replica in copies:
        report = replica.report
        table.add_row(
            replica.expert_id,
            replica.replica_id.removeprefix(f"{replica.expert_id}-"),
            replica.node,
            report.state,
            f"{report.n_running}/{report.slots}",
            str(report.n_waiting),
            _figure(report.tokens_per_s),
            _figure(report.memory_bytes / 1e6),
            _figure(report.meter.power_w if report.meter else None),
        )
    return table


def _figure(value: float | None) -> str:
    return f"{value:.0f}" if value else ""


def _reasons(copies: list[Replica]) -> list[str]:
    return [
        f"{replica.replica_id}: {replica.report.reason}"
        for replica in copies
        if replica.report.state != "ready" and replica.report.reason
    ]
