"""``coe simulate`` on the shipped artefact and the outcomes it was trained on."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coe.services.cli import app

OUTCOMES = Path(__file__).resolve().parents[3] / "data" / "outcomes" / "embedded.parquet"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
PERIODS = """
policies: {default: {prices: {per_second: 0.005}}}
periods: {joules: {window_s: 600, energy_j: 2000}}
"""


def run(*arguments):
    given = ["simulate", "--outcomes", str(OUTCOMES), "--requests", "500", *map(str, arguments)]
    return CliRunner().invoke(app, given)


def document(*arguments):
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_shipped_default_is_simulated_out_of_the_box():
    found = document()
    assert found["n_requests"] == 500
    assert found["best_single"] == LARGE
    assert found["fleet"][LARGE] == {"replicas": 1, "slots": 1, "device": "one-core-500m"}
    names = [arm["policy"] for arm in found["policies"]]
    assert names == ["best-single", "random", "round-robin", "coe", "auto", "plan"]
    for arm in found["policies"]:
        low, high = arm["quality_ci95"]
        assert low <= arm["quality"] <= high
        latency = arm["latency_ms"]
        assert latency["p50"] <= latency["p95"] <= latency["p99"]
        assert arm["events_per_s"] > 0
    assert json.dumps(found, allow_nan=False)


def test_the_same_seed_gives_the_same_document():
    def told(seed):
        found = document("--seed", seed, "--policy", "auto")
        for arm in found["policies"]:
            for name in ("elapsed_s", "events_per_s", "times_real_time"):
                del arm[name]
        return found

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_a_table_for_people_with_warnings_and_speed():
    result = run("--rate", 5, "--policy", "best-single", "--policy", "auto", "--speedup")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("500 requests, 5 a second, of 97 prompts; budget policy default")
    assert [line.split()[0] for line in lines[1:4]] == ["policy", "best-single", "auto"]
    assert any(line.startswith("auto: ") and "events/s" in line for line in lines)
    assert f"warning: best-single: {LARGE} is overloaded" in result.stderr


def test_replicas_come_from_options_and_from_a_file(tmp_path):
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"replicas: {{{LARGE}: 3, {SMALL}: 2}}\n")
    found = document("--fleet", fleet, "--replicas", f"{SMALL}=5", "--policy", "random")
    assert {name: one["replicas"] for name, one in found["fleet"].items()} == {SMALL: 5, LARGE: 3}


def test_budgets_over_time_bring_pacing(tmp_path):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text(PERIODS)
    found = document("--budgets", budgets)
    arms = {arm["policy"]: arm for arm in found["policies"]}
    assert {"auto+pacing", "plan+pacing"} <= arms.keys()
    (paced,) = arms["auto+pacing"]["periods"]
    assert paced["fullest"] < arms["auto"]["periods"][0]["fullest"]
    result = run("--budgets", budgets, "--policy", "auto+pacing")
    assert "auto+pacing: period joules (energy_j): " in result.stdout


def test_a_policy_that_bans_an_expert_keeps_it_out(tmp_path):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text(f"policies: {{default: {{experts: {{ban: [{LARGE}]}}}}}}")
    found = document("--budgets", budgets)
    shares = {arm["policy"]: arm["asked"] for arm in found["policies"]}
    assert shares["auto"][LARGE] == shares["plan"][LARGE] == 0.0
    assert shares["best-single"][LARGE] == 1.0


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("experts: {ban: [qwen]}", "there is no expert 'qwen'; there are"),
        (f"experts: {{ban: [{SMALL}, {LARGE}]}}", "every expert is excluded"),
        (f"experts: {{force: [{SMALL}, {LARGE}]}}", "to answer together"),
    ],
)
def test_a_policy_that_cannot_be_simulated_is_refused(tmp_path, policy, message):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text(f"policies: {{default: {{{policy}}}}}")
    result = run("--budgets", budgets)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_trace_gives_arrivals_and_lengths(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = "".join(f"{n * n % 97 + n},{50 + n},{10 + n}\n" for n in range(100))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    found = document("--trace", trace, "--policy", "coe")
    assert (found["arrivals"], found["lengths"]) == ("trace.csv", "trace")
    other = document("--trace", trace, "--no-lengths", "--rate", 2, "--policy", "coe")
    assert (other["lengths"], other["rate_per_s"]) == ("outcomes", 2.0)
    assert other["policies"][0]["energy_j"] != found["policies"][0]["energy_j"]


def test_a_kept_plan_is_followed(tmp_path):
    kept = tmp_path / "plan.json"
    made = CliRunner().invoke(app, ["plan", "--mean-energy-j", "20", "--out", str(kept), "--json"])
    assert made.exit_code == 0, made.output
    found = document("--plan", kept, "--policy", "plan", "--policy", "auto")
    plan, auto = (arm["energy_j"] for arm in found["policies"])
    assert plan < auto


@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_results_and_pictures_are_written(tmp_path, suffix, start):
    out, plot = tmp_path / "result.json", tmp_path / f"picture.{suffix}"
    result = run("--policy", "coe", "--policy", "auto", "--out", out, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["policies"][0]["policy"] == "coe"
    assert plot.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "cleverest"], "no policy 'cleverest'; there are best-single, random"),
        (["--policy", "single:nobody"], f"no expert is called 'nobody'; there are {SMALL}"),
        (["--policy", "auto+pacing"], "no budgets over time: add periods"),
        (["--budget", "lavish"], "no policy 'lavish'; there are default"),
        (["--rate", "-1"], "rate_per_s must be positive and finite, not -1.0"),
        (["--rate", "nan"], "rate_per_s must be positive and finite, not nan"),
        (["--replicas", "nobody=2"], "no expert is called 'nobody'"),
        (["--replicas", f"{SMALL}=0"], "must be EXPERT=NUMBER with a positive number"),
        (["--replicas", SMALL], "must be EXPERT=NUMBER"),
        (["--split", "nowhere"], "no prompt of split 'nowhere'"),
        (["--trace", "/gone.csv"], "not a readable CSV file"),
        (["--plot", "picture.jpeg"], "a picture ends in .svg, .png or .pdf"),
        (["--out", "/gone/result.json"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_named_with_exit_code_2(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("where", [["--plot", "picture.jpeg"], ["--out", "/gone/result.json"]])
def test_where_nothing_can_be_written_nothing_is_simulated(where):
    result = run("--policy", "cleverest", *where)
    assert "cleverest" not in result.stderr
    assert where[1] in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "a trace needs two rows"),
        ("a,b\n1,2\n", "missing columns"),
    ],
)
def test_a_wrong_trace_is_exit_code_2(tmp_path, text, message):
    trace = tmp_path / "trace.csv"
    trace.write_text(text)
    result = run("--trace", trace)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_wrong_fleet_file_is_exit_code_2(tmp_path):
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(f"replicas: {{{LARGE}: none}}\n")
    result = run("--fleet", fleet)
    assert result.exit_code == 2
    assert "fleet.yaml" in result.stderr
