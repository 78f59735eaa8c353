"""The command line: exit codes, JSON, messages."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from coe.services.cli import app

CODE = "Write a Python function that returns the sum of the even numbers in a list."


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_route_prints_one_json_document_with_the_promised_fields():
    result = run("route", CODE, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert set(document) >= {
        "decision_id",
        "category",
        "category_probability",
        "uncertain",
        "experts",
        "predicted",
        "alternatives",
        "binding",
        "why",
    }
    assert set(document["experts"][0]) == {"id", "weight"}
    assert set(document["predicted"]) >= {"quality", "latency_ms", "energy_j", "cost_usd"}
    assert sum(expert["weight"] for expert in document["experts"]) == 1


def test_route_for_people_shows_every_expert_and_the_reason():
    result = run("route", CODE)
    assert result.exit_code == 0
    assert "code prompt" in result.stdout
    assert "chosen" in result.stdout
    assert "smollm2-135m" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["route", CODE, "--budget", "lavish"], "no policy 'lavish'"),
        (["route", CODE, "--energy-j", "0.000001"], "no expert fits energy_j"),
        (["route", CODE, "--energy-j", "-1"], "energy_j must be a positive"),
        (["route", CODE, "--config", "nowhere.yaml"], "cannot be read"),
        (["train", "--outcomes", "nowhere.parquet", "--out", "x"], "not a readable Parquet"),
        (["collect", "--prompts", "nowhere.jsonl", "--out", "x"], "cannot be read"),
        (["weights", "fetch", "nothing"], "unknown weights"),
    ],
)
def test_what_the_user_can_correct_exits_with_2_and_one_error(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert f"error: {message}" in result.stderr or message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_doctor_reports_every_subject_and_its_exit_code_agrees():
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    subjects = {finding["subject"] for finding in report["findings"]}
    assert subjects >= {"python", "machine", "configuration", "budgets", "artefact", "port"}
    assert all(f["remedy"] for f in report["findings"] if f["status"] == "failed")


def test_doctor_says_what_is_wrong_with_a_configuration(tmp_path):
    (tmp_path / "coe.yaml").write_text("devices: {}\nexperts: []\n")
    result = run("doctor", "--config", str(tmp_path / "coe.yaml"))
    assert result.exit_code == 1
    assert "coe.yaml:2: experts:" in result.stdout


def test_weights_list_names_licence_and_place():
    rows = json.loads(run("weights", "list", "--json").stdout)
    assert {row["licence"] for row in rows} == {"Apache-2.0"}
    assert all(set(row) >= {"name", "sha256", "path"} for row in rows)


def test_version_and_help():
    assert run("--version").stdout.startswith("coe ")
    verbs = run("--help").stdout
    assert all(v in verbs for v in ("serve", "chat", "route", "collect", "train", "doctor"))


def test_a_taken_port_is_one_clear_line(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "coe", "serve", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr
