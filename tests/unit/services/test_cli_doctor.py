"""What `coe doctor` says of the gateway: its ledger, keys, certificate and second router."""

import json

import pytest
from typer.testing import CliRunner

from coe.config import DATA
from coe.services.cli import app

SMALL = "budgets: budgets.yaml\nexperts: [{id: again, kind: copy}]\n"
LIMITS = "policies: {default: {}}\nlimits: {day: {scope: global, window_s: 86400, requests: 9}}\n"


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Findings of a small configuration with more sections, by subject."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COE_REDIS_URL", raising=False)

    def of(more, budgets=LIMITS):
        (tmp_path / "coe.yaml").write_text(f"{SMALL}{more}\n")
        (tmp_path / "budgets.yaml").write_text(budgets)
        done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(tmp_path / "coe.yaml")])
        return {each["subject"]: each for each in json.loads(done.stdout)["findings"]}

    return of


@pytest.mark.parametrize(
    ("more", "subject", "status", "said"),
    [
        ("", "ledger", "ok", "ledger.sqlite is made at the first start"),
        ("store: {kind: sqlite, path: coe.yaml}", "ledger", "failed", "file is not a database"),
        ("store: {kind: redis}", "redis", "failed", "COE_REDIS_URL is not set"),
        ("access: {}", "keys", "warning", "nobody but the operator is let in"),
        (
            "gateway: {tls: {certificate: c.pem, key: k.pem}}",
            "tls",
            "failed",
            "c.pem: No such file",
        ),
        ("shadow: {artefact: absent}", "shadow", "failed", "absent: not a readable"),
        (
            f"shadow: {{artefact: {DATA / 'artefact'}, share: 0.5}}",
            "shadow",
            "ok",
            "50% of requests",
        ),
        ("retrieval: {index: absent}", "retrieval", "failed", "absent: not a readable"),
    ],
)
def test_what_would_stop_a_start_is_found_before(findings, more, subject, status, said):
    found = findings(more)[subject]
    assert (found["status"], said in found["detail"]) == (status, True)
    assert bool(found["remedy"]) == (status != "ok")


def test_a_redis_that_is_not_there_is_a_warning(findings, monkeypatch):
    monkeypatch.setenv("COE_REDIS_URL", "redis://127.0.0.1:1/0")
    found = findings("store: {kind: redis, share: 0.05}")["redis"]
    assert (found["status"], "grants 5% of every limit" in found["remedy"]) == ("warning", True)


def test_without_limits_nobody_looks_for_a_ledger(findings):
    said = findings("store: {kind: redis}", "policies: {default: {}}\n")
    assert not {"ledger", "redis"} & said.keys()
