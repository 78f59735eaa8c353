"""``coe evaluate`` on the shipped artefact and the outcomes it was trained on."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coe.budgets import load_policies
from coe.config import find_config, load_config
from coe.services.cli import app

OUTCOMES = Path(__file__).resolve().parents[3] / "data" / "outcomes" / "embedded.parquet"
EXPERTS = {"smollm2-135m", "qwen2.5-coder-0.5b"}
FIELDS = {
    "name",
    "score",
    "ci95",
    "delta_best_single",
    "delta_ci95",
    "cost_usd",
    "energy_j",
    "active_params_b",
    "oracle_gap_closed",
}


def run(*arguments, outcomes=OUTCOMES):
    return CliRunner().invoke(app, ["evaluate", "--outcomes", str(outcomes), *arguments])


@pytest.fixture(scope="module")
def document():
    result = run("--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_document_has_the_promised_fields(document):
    assert set(document) >= {"dataset", "n_prompts", "arms", "pareto"}
    assert document["dataset"] == "embedded"
    assert document["n_prompts"] > 0
    assert document["best_single"] in EXPERTS
    for arm in document["arms"]:
        assert set(arm) >= FIELDS
        low, high = arm["ci95"]
        assert low <= arm["score"] <= high
        assert arm["delta_ci95"][0] <= arm["delta_best_single"] <= arm["delta_ci95"][1]


def test_every_figure_of_the_document_is_a_number(document):
    # NaN, which Python writes and reads, is not JSON
    assert json.dumps(document, allow_nan=False)


def test_the_document_has_every_arm(document):
    names = [arm["name"] for arm in document["arms"]]
    policies = load_policies(load_config(find_config(None)).budgets).keys() - {"default"}
    assert policies
    assert len(names) == len(set(names))
    assert set(names) >= {
        *(f"always {expert}" for expert in EXPERTS),
        "random",
        "knn",
        "direct classifier",
        "two-step",
        "two-step robust",
        "oracle category",
        "oracle prompt",
        "coe",
        *(f"coe {policy}" for policy in policies),
    }
    assert sum(name.startswith("best single under ") for name in names) == 1
    assert sum(name.startswith("two-step under ") for name in names) == 1


def test_the_pareto_names_arms_that_are_there_and_no_oracle(document):
    names = {arm["name"] for arm in document["arms"]}
    for front in document["pareto"]:
        assert set(front) == {"axis", "arms"}
        assert front["axis"] in {"cost_usd", "energy_j", "latency_ms", "active_params_b"}
        assert set(front["arms"]) <= names - {"oracle category", "oracle prompt"}
    assert "energy_j" in [front["axis"] for front in document["pareto"]]


def test_the_same_seed_gives_the_same_document(document):
    assert json.loads(run("--json").stdout) == document
    other = json.loads(run("--json", "--seed", "1").stdout)
    assert other["seed"] == 1
    assert other["arms"] != document["arms"]


def test_people_get_a_table_of_the_same_arms(document):
    result = run()
    assert result.exit_code == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    for arm in document["arms"]:
        assert any(line.startswith(f"{arm['name']} ") for line in lines), arm["name"]


@pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="pictures need Matplotlib"
)
def test_a_report_is_a_page_with_its_pictures(tmp_path):
    path = tmp_path / "report.html"
    result = run("--report", str(path), "--json")
    assert result.exit_code == 0, result.output
    # what was written is told elsewhere: the document stays the only output
    assert json.loads(result.stdout)["dataset"] == "embedded"
    pictures = {p.stem for p in tmp_path.glob("report-*.png")}
    assert pictures
    assert pictures == {p.stem for p in tmp_path.glob("report-*.svg")}
    assert "<html" in path.read_text()
    assert len(list(tmp_path.iterdir())) == 1 + 2 * len(pictures)


def test_a_budget_of_parameters_names_its_arms():
    arms = json.loads(run("--stored-params-b", "0.5", "--json").stdout)["arms"]
    names = {arm["name"] for arm in arms}
    assert names >= {"best single under 0.5B", "two-step under 0.5B"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "moon"], "no prompt of split 'moon' has a score of every expert"),
        (["--stored-params-b", "0.01"], "no expert has at most 0.01 billion parameters"),
    ],
)
def test_what_the_user_can_correct_exits_with_2_and_one_error(arguments, message):
    result = run(*arguments, "--json")
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_table_that_is_not_there_is_named():
    result = run(outcomes="nowhere.parquet")
    assert result.exit_code == 2
    assert "nowhere.parquet: not a readable Parquet" in result.stderr


def test_an_artefact_that_is_not_there_is_named():
    result = run("--artefact", "nowhere", "--json")
    assert result.exit_code == 1
    assert "error: nowhere: not a readable router artefact" in result.stderr
    assert result.stdout == ""


def test_a_policy_that_names_nobody_s_expert_is_refused_as_in_serving(tmp_path):
    shipped = find_config(None)
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("policies: {default: {experts: {ban: [qwen]}}}\n")
    config = tmp_path / "coe.yaml"
    config.write_text(
        shipped.read_text()
        .replace("artefact: artefact", f"artefact: {shipped.parent / 'artefact'}")
        .replace("budgets: budgets.yaml", f"budgets: {budgets}")
    )
    result = run("--config", str(config), "--json")
    assert result.exit_code == 2
    assert "there is no expert 'qwen'; there are" in result.stderr
