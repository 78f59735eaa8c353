"""``coe ledger``: balances, and whether they add up."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.cli import app
from coe.services.store.books import Books
from coe.services.store.local import LocalStore

ALICE = Payer("alice", "k1")
LIMITS = [
    Limit("day", "global", 86400, energy_uj=5_000_000, cost_uusd=20_000),
    Limit("hour", "tenant", 3600, tokens=100),
]


async def _spend(path: Path, at_ms: list[int]) -> None:
    """One request settled and one that holds, per moment."""
    now = [0]
    books = Books.open(path, LIMITS, 60_000, now_ms=lambda: now[0])
    store = LocalStore(books)
    for now[0] in at_ms:
        await store.reserve(f"a{now[0]}", ALICE, Amounts(2_000_000, 900, 10, 1))
        store.settle(f"a{now[0]}", Amounts(1_500_000, 700, 12, 1))
        await store.reserve(f"b{now[0]}", ALICE, Amounts(250_000, 0, 5, 1))
        store.release(f"b{now[0]}") if now[0] != at_ms[-1] else None
    books.keep()
    await books.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    asyncio.run(_spend(path, [0, 3_600_000, 9_000_000]))
    return path


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["ledger", *words])
    return done.exit_code, done.stdout


def test_show_says_what_is_spent_held_and_allowed(path: Path) -> None:
    code, text = run("show", "--ledger", str(path))
    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    assert ["day", "-", "1970-01-01", "00:00:00", "4.5", "0.25", "5", "J"] in lines
    assert ["hour", "alice", "1970-01-01", "02:00:00", "12", "5", "100", "tokens"] in lines
    assert lines[-1][-3:] == ["1", "request", "held"]
    assert not [line for line in lines if line[:4] == ["hour", "alice", "1970-01-01", "00:00:00"]]


def test_show_has_closed_windows_when_asked(path: Path) -> None:
    _, text = run("show", "--ledger", str(path), "--closed", "--json")
    document = json.loads(text)
    hours = [row for row in document["accounts"] if row["limit"] == "hour"]
    assert [(row["started_ms"], row["spent"]["tokens"]) for row in hours] == [
        (0, 12),
        (3_600_000, 12),
        (7_200_000, 12),
    ]
    assert hours[-1]["held"]["tokens"] == 5
    assert hours[-1]["overrun"]["tokens"] == 2
    assert hours[-1]["ceilings"]["tokens"] == 100


def test_check_says_that_all_adds_up(path: Path) -> None:
    code, text = run("check", "--ledger", str(path))
    assert (code, "adds up" in text, "1 request held" in text) == (0, True, True)
    code, text = run("check", "--ledger", str(path), "--json")
    document = json.loads(text)
    assert (code, document["adds_up"], document["faults"]) == (0, True, [])
    assert document["accounts_overrun"] > 0


def test_check_fails_where_something_does_not(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("DELETE FROM journal WHERE kind = 'settled' AND at_ms = 9000000")
    db.commit()
    db.close()
    code, text = run("check", "--ledger", str(path))
    assert code == 1
    assert "does not add up" in text
    code, text = run("check", "--ledger", str(path), "--json")
    assert code == 1
    assert json.loads(text)["faults"]
    shown = CliRunner().invoke(app, ["ledger", "show", "--ledger", str(path)])
    assert shown.exit_code == 0
    assert "does not add up: `coe ledger check` says where" in shown.stderr


def test_the_configured_ledger_is_the_default(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "coe.yaml"
    config.write_text(
        "store: {kind: sqlite, path: ledger.sqlite}\n"
        "devices:\n"
        "  here: {ttft_b_ms: 1, decode_tokens_per_s: 9, prefill_w: 1, decode_w: 1}\n"
        "experts:\n"
        "  - {id: a, kind: http, base_url: 'http://127.0.0.1:1/v1', device: here}\n"
    )
    assert run("check", "--config", str(config))[0] == 0


@pytest.mark.parametrize("verb", ["show", "check"])
def test_no_ledger_is_said(verb: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ledger", verb, "--ledger", str(tmp_path / "absent")])
    assert done.exit_code == 2
    assert "no ledger is there" in done.stderr
