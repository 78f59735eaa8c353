"""``coe keys``: made, listed, taken back; a secret is shown once."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console
from typer.testing import CliRunner

from coe.access.keys import digest_of
from coe.config import DATA, load_config
from coe.services.access.keyfile import KeyRecord
from coe.services.access.porter import porter_of
from coe.services.cli import app, keys_table
from coe.services.cli.keys_table import document

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"


@pytest.fixture
def coe(tmp_path, monkeypatch):
    """The command line over a configuration that asks for keys."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("COE_KEY_PEPPER", raising=False)
    path = tmp_path / "coe.yaml"
    path.write_text((DATA / "coe.yaml").read_text() + "\naccess: {}\n")
    monkeypatch.setenv("COE_CONFIG", str(path))

    def run(*words):
        return CliRunner().invoke(app, ["keys", *words])

    return run


def made(coe, *words):
    done = coe("create", "--json", *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_a_key_is_shown_once_and_kept_as_a_digest(coe, tmp_path):
    done = coe("create", "--name", "jobs")
    key = done.stdout.strip()
    kept = (tmp_path / "state" / "coe" / "keys.json").read_text()
    assert key.startswith("coe-")
    assert key.split("-", 2)[2] not in kept + coe("list").output + coe("list", "--json").output
    pepper = (tmp_path / "state" / "coe" / "keys.pepper").read_bytes()
    assert digest_of(pepper, key).hex() in kept
    porter = porter_of(load_config(tmp_path / "coe.yaml"))
    assert porter.keyring.ring.caller(key, time.time()).key_id == key.split("-")[1]


def test_what_was_wished_is_what_is_listed(coe):
    key = made(
        coe,
        *("--name", "jobs", "--tenant", "acme", "--role", "viewer", "--models", SMALL),
        *("--no-overrides", "--expires", "90d", "--requests-per-minute", "60"),
        *("--tokens-per-minute", "1000", "--joules-per-minute", "0.5"),
    )
    (row,) = json.loads(coe("list", "--json").stdout)["keys"]
    shown = key.pop("key")
    assert row == key
    assert shown.startswith(f"coe-{row['id']}-")
    assert (row["name"], row["tenant"], row["role"]) == ("jobs", "acme", "viewer")
    assert (row["models"], row["overrides"], row["state"]) == ([SMALL], False, "valid")
    assert row["per_minute"] == {"requests": 60, "tokens": 1000, "joules": 0.5}
    left = datetime.fromisoformat(row["expires"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < left <= timedelta(days=90)
    table = coe("list").stdout
    assert all(word in table for word in (row["id"], "jobs", "acme", "viewer", "valid"))


def test_a_key_is_taken_back_for_good(coe):
    key_id = made(coe)["id"]
    assert coe("revoke", key_id).stdout == f"{key_id}: revoked\n"
    again = json.loads(coe("revoke", key_id, "--json").stdout)
    assert (again["id"], again["state"]) == (key_id, "revoked")


@pytest.mark.parametrize("expires", ["2020-01-01", "2020-01-01T00:00Z", "0m"])
def test_a_key_that_would_be_void_from_the_start_is_not_made(coe, expires):
    done = coe("create", "--expires", expires)
    assert done.exit_code == 2
    assert "would be void from the start" in done.stderr
    assert json.loads(coe("list", "--json").stdout)["keys"] == []


@pytest.mark.parametrize(
    ("expires_s", "revoked_s", "state"),
    [
        (None, None, "valid"),
        (101.0, None, "valid"),
        (100.0, None, "expired"),
        (50.0, 60.0, "revoked"),
    ],
)
def test_a_key_holds_until_its_time_or_its_end(expires_s, revoked_s, state):
    times = {"created_s": 1.0, "expires_s": expires_s, "revoked_s": revoked_s}
    record = KeyRecord(id="0" * 12, digest="0" * 64, **times)
    assert document(record, 100.0)["state"] == state


def test_where_there_are_none_it_says_how_to_make_one(coe):
    done = coe("list")
    assert (done.stdout, "keys.json holds none: make one" in done.stderr) == ("", True)


def test_the_list_of_keys_fits_a_narrow_terminal(coe, monkeypatch):
    monkeypatch.setattr(keys_table, "results", Console(width=80))
    made(coe, "--name", "night jobs", "--models", f"{SMALL},{LARGE}", "--expires", "90d")
    made(coe, "--expires", "90m", "--tokens-per-minute", "100", "--joules-per-minute", "50")
    told = coe("list").stdout.splitlines()
    assert max(map(len, told)) <= 80
    words = [line.split() for line in told]
    assert any(line[-2:] == ["50", "joules"] for line in words)
    for until in (row["expires"] for row in json.loads(coe("list", "--json").stdout)["keys"]):
        assert any(until[:10] in line for line in words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "--expires", "soon"], "neither a span"),
        (["create", "--expires", "9999999d"], "neither a span"),
        (["create", "--models", "nobody"], "there is no expert nobody"),
        (["create", "--tenant", "a b"], "--tenant"),
        (["create", "--role", "king"], "--role"),
        (["create", "--requests-per-minute", "0"], "requests-per-minute"),
        (["create", "--tokens-per-minute", "nan"], "tokens-per-minute"),
        (["revoke", "000000000000"], "there is no key"),
    ],
)
def test_what_is_wrong_is_said(coe, words, said):
    done = coe(*words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert json.loads(coe("list", "--json").stdout)["keys"] == []


def test_without_access_there_are_no_keys(coe, monkeypatch):
    monkeypatch.setenv("COE_CONFIG", str(DATA / "coe.yaml"))
    done = coe("create")
    assert done.exit_code == 2
    assert "add `access: {}` to coe.yaml" in done.output
