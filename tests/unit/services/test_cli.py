"""The command line: exit codes, JSON, messages."""

import json
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from coe.config import DATA
from coe.services.cli import app, console

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


@pytest.mark.parametrize("kind", ["vote", "rank", "cascade", "fuse"])
def test_route_asks_for_a_kind_of_mode_out_of_the_box(kind):
    decided = json.loads(run("route", CODE, "--mode", kind, "--json").stdout)
    assert decided["mode"] == kind
    assert len(decided["experts"]) == 2
    alone = json.loads(run("route", CODE, "--mode", kind, "-k", "1", "--json").stdout)
    assert alone["mode"] == "single"


def test_rows_of_route_stay_short_whatever_modes_are_called():
    lines = run("route", CODE).stdout.splitlines()
    assert any(", else " in line for line in lines)
    assert all(len(line) <= 80 for line in lines[1:])
    assert "  chosen" in [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["route", CODE, "--mode", "choir"], "'choir' is not one of"),
        (["route", CODE, "-k", "9"], "less than or equal to 8"),
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
    assert subjects >= {
        "python",
        "machine",
        "configuration",
        "budgets",
        "artefact",
        "port",
        "energy",
    }
    assert all(f["remedy"] for f in report["findings"] if f["status"] == "failed")


def test_doctor_says_what_is_wrong_with_a_configuration(tmp_path):
    (tmp_path / "coe.yaml").write_text("devices: {}\nexperts: []\n")
    result = run("doctor", "--config", str(tmp_path / "coe.yaml"))
    assert result.exit_code == 1
    assert "coe.yaml:2: experts:" in result.stdout


POLICIES = """
policies:
  default: {}
  alone: {combine: never, experts: {ban: [faq]}}
  streams: {combine: always, experts: {force: [faq]}}
  near: {local_only: true}
  nobody: {experts: {ban: [faq, nobody, large]}}
  both: {most_experts: 2, experts: {force: [faq, nobody, large]}}
"""
LARGE = """
  - {id: large, kind: http, base_url: "http://llm.example.com/v1", device: here}
devices:
  here: {ttft_b_ms: 1, ttft_c_ms: 1, decode_tokens_per_s: 9, prefill_w: 1, decode_w: 1}
budgets: budgets.yaml
"""


def test_doctor_says_what_policies_say_of_experts_and_which_leave_nobody(tmp_path, monkeypatch):
    (tmp_path / "coe.yaml").write_text(FREE.rstrip() + LARGE)
    (tmp_path / "budgets.yaml").write_text(POLICIES)
    monkeypatch.delenv("COE_ADMIN_TOKEN", raising=False)
    result = run("doctor", "--json", "--config", str(tmp_path / "coe.yaml"))
    found = {f["subject"]: f for f in json.loads(result.stdout)["findings"]}
    said = found["budgets"]["detail"]
    assert "default, alone (without faq; one expert an answer)" in said
    assert "streams (always with faq; several for streams too), near (local only)" in said
    assert "policy near" not in found, "those who compute nothing are local"
    assert "every expert is excluded" in found["policy nobody"]["detail"]
    assert "forces 3 experts, and 2 at most" in found["policy both"]["detail"]
    assert found["switches"]["detail"].startswith("shut, while $COE_ADMIN_TOKEN")
    monkeypatch.setenv("COE_ADMIN_TOKEN", "s" * 32)
    result = run("doctor", "--json", "--config", str(tmp_path / "coe.yaml"))
    assert "open to whoever shows $COE_ADMIN_TOKEN" in result.stdout


FREE = f"""
artefact: {DATA / "artefact"}
experts:
  - {{id: faq, kind: constant, answers: [{{text: Nine to five., patterns: [hours]}}]}}
  - {{id: nobody, kind: null}}
"""


def test_experts_that_compute_nothing_need_nothing(tmp_path):
    (tmp_path / "coe.yaml").write_text(FREE)
    result = run("doctor", "--json", "--config", str(tmp_path / "coe.yaml"))
    found = {f["subject"]: f for f in json.loads(result.stdout)["findings"]}
    assert found["expert faq"]["detail"] == "constant, computes nothing"
    assert found["expert nobody"]["status"] == "ok"
    assert "only by name" not in found["artefact"]["detail"]
    assert "experts" not in found


@pytest.mark.parametrize(
    ("prompt", "expert"), [("Opening hours?", "nobody"), ("The hours?", "faq"), ("Why?", "nobody")]
)
def test_route_asks_them_too(tmp_path, prompt, expert):
    (tmp_path / "coe.yaml").write_text(FREE.replace("[hours]", "['The hours']"))
    result = run("route", prompt, "--json", "--config", str(tmp_path / "coe.yaml"))
    assert json.loads(result.stdout)["experts"][0]["id"] == expert


WRITERS = """
devices: {d: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 10, decode_w: 10}}
experts:
  - {id: a, kind: embedded, weights: no-such, device: d, context_tokens: 512, vocabulary: v}
  - {id: b, kind: embedded, weights: no-such, device: d, context_tokens: 512, vocabulary: v}
  - {id: c, kind: embedded, weights: no-such, device: d, context_tokens: 512, vocabulary: w}
"""


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", {"v": "a, b can write an answer together", "w": "only c states it"}),
        ("on_demand: {memory_gb: 1}", {"v": "are not mixed: a, b", "w": "are not mixed: c"}),
        ("fleet: {}", {"v": "are not mixed: a, b", "w": "are not mixed: c"}),
    ],
)
def test_doctor_says_who_can_write_together(tmp_path, monkeypatch, more, said):
    monkeypatch.setenv("COE_FLEET_TOKEN", "s" * 32)
    experts = WRITERS.replace("vocabulary", "memory_gb: 0.5, vocabulary")
    (tmp_path / "coe.yaml").write_text(f"{more}\n{experts}")
    result = run("doctor", "--json", "--config", str(tmp_path / "coe.yaml"))
    found = {f["subject"]: f for f in json.loads(result.stdout)["findings"]}
    for name, detail in said.items():
        finding = found[f"vocabulary {name}"]
        assert detail in finding["detail"]
        assert (finding["status"] == "ok") == ("together" in detail)
        assert bool(finding["remedy"]) == (finding["status"] == "warning")


def test_doctor_looks_for_the_fleet_and_not_for_its_experts(tmp_path, monkeypatch):
    monkeypatch.setenv("COE_FLEET_TOKEN", "s" * 32)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "coe.yaml").write_text(
        f"fleet: {{port: {port}}}\n"
        "devices: {d: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 10, decode_w: 10}}\n"
        "experts: [{id: e, kind: embedded, weights: no-such, device: d, context_tokens: 512}]\n"
    )
    result = run("doctor", "--json", "--config", str(tmp_path / "coe.yaml"))
    found = {f["subject"]: f for f in json.loads(result.stdout)["findings"]}
    assert found["expert e"]["detail"] == "embedded, on the fleet"
    assert found["fleet"]["status"] == "warning"
    assert "does not answer" in found["fleet"]["detail"]


@pytest.mark.parametrize(
    ("meter", "says"),
    [("auto", ""), ("modelled", "modelled by the device profiles"), ("ina3221", "ina3221")],
)
def test_doctor_says_what_measures_the_joules_and_why_nothing_else_does(tmp_path, meter, says):
    config = (DATA / "coe.yaml").read_text() + f"\nmetering: {{meter: {meter}}}\n"
    for name in ("artefact", "budgets.yaml"):
        config = config.replace(f": {name}\n", f": {DATA / name}\n")
    (tmp_path / "coe.yaml").write_text(config)
    result = run("doctor", "--json", "--config", str(tmp_path / "coe.yaml"))
    findings = json.loads(result.stdout)["findings"]
    (finding,) = [each for each in findings if each["subject"] == "energy"]
    measured = finding["detail"].startswith("measured by ")
    assert measured or finding["detail"].startswith("modelled by ")
    assert says in finding["detail"]
    # a meter that was asked for must be there; else the profiles do
    assert (finding["status"] == "failed") == (meter == "ina3221" and not measured)
    # every kind is either found or has a reason
    assert all(kind in finding["detail"] for kind in ("ina3221", "jtop", "nvml", "rapl"))


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
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use: choose" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_remark_that_finds_no_room_is_not_said(monkeypatch, capsys):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(console.notes, "_file", Full())
        console.say("a remark")
    console.say("another")
    assert capsys.readouterr().err == "another\n"
