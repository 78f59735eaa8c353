"""The table of a fleet, on terminals of any width."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from coe.replica import HostReport, NodeReading, Replica, Snapshot
from coe.services.cli.fleet_table import fleet_table

READING = NodeReading(5.0, 1, 0.1, "board", "ina3221", 11.6)
READY = HostReport("ready", "", "http://10.0.0.17:40123", 4, 1, 2, 512_000_000, 15.4, 1, READING)
PENDING = HostReport("starting", "waits for a node that has what it needs")


def snapshot(*reports: HostReport, node: str = "jetson-1") -> Snapshot:
    copies = [
        Replica(f"qwen2.5-coder-0.5b-{n:06x}", "qwen2.5-coder-0.5b", node, report, "secret")
        for n, report in enumerate(reports)
    ]
    return Snapshot("e", 1, {copy.replica_id: copy for copy in copies})


def printed(found: Snapshot, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(fleet_table(found))
    return console.file.getvalue().splitlines()


def test_a_usual_terminal_shows_a_copy_in_one_row_with_nothing_cut() -> None:
    heading, row = printed(snapshot(READY), 80)
    names = ["expert", "copy", "node", "state", "busy", "queue", "tok/s", "MB", "W"]
    assert heading.split() == names
    figures = ["1/4", "2", "15", "512", "12"]
    assert row.split() == ["qwen2.5-coder-0.5b", "000000", "jetson-1", "ready", *figures]


def test_watts_that_nobody_knows_are_blank() -> None:
    for reading in (None, replace(READING, power_w=None)):
        _, row = printed(snapshot(replace(READY, meter=reading)), 80)
        assert row.rstrip().endswith("512")


def test_why_a_copy_is_not_ready_is_a_sentence_below() -> None:
    lines = printed(snapshot(READY, PENDING), 80)
    assert lines[-1] == f"qwen2.5-coder-0.5b-000001: {PENDING.reason}"
    assert len(lines) == 4


@pytest.mark.parametrize("width", [60, 72, 80])
def test_long_names_go_on_in_the_next_line_and_figures_stay_whole(width: int) -> None:
    node = "jetson-in-the-kitchen-of-the-old-mill"
    lines = printed(snapshot(READY, node=node), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert lines[1].rstrip().endswith("12")
    start = lines[0].index("node")
    pieces = [line[start : lines[0].index("state")].strip() for line in lines[1:]]
    assert "".join(pieces) == node
