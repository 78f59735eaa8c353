"""The worked example, shortened: what it prints is what the gateway said."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from coe.config import load_config
from coe.core import estimated_tokens
from coe.routers.outcomes import Outcomes

EXAMPLE = Path(__file__).parents[2] / "examples" / "edge_cloud"
OUTCOMES = Outcomes.read(EXAMPLE / "outcomes.parquet")
N_PROMPTS = 20


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder that a short run wrote."""
    folder = tmp_path_factory.mktemp("example")
    command = [sys.executable, EXAMPLE / "run.py", "--prompts", str(N_PROMPTS), "--speed", "50"]
    done = subprocess.run(
        [*command, "--out", folder], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "auto:balanced against gemma-2-27b" in done.stdout
    return folder


@pytest.fixture(scope="module")
def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def arms(results):
    return {arm["name"]: arm for arm in results["arms"]}


@pytest.fixture(scope="module")
def rows():
    """The prompts that were asked."""
    test = OUTCOMES.rows(OUTCOMES.splits == "test")
    return test.rows([n < N_PROMPTS for n in range(len(test.prompts))])


def test_a_single_expert_is_as_good_and_takes_as_much_as_was_recorded(arms, rows):
    specs = load_config(EXAMPLE / "coe.yaml").specs
    assert set(rows.expert_ids) == set(specs)
    for k, name in enumerate(rows.expert_ids):
        profile, arm = specs[name].profile, arms[name]
        lengths = list(zip(map(estimated_tokens, rows.prompts), rows.tokens[:, k], strict=True))
        joules = sum(profile.energy_j(*length) for length in lengths) / N_PROMPTS
        device_ms = sum(profile.ttft_ms(i) + profile.decode_ms(o) for i, o in lengths) / N_PROMPTS
        assert arm["shares"] == {name: 1.0}
        assert arm["accuracy"] == pytest.approx(rows.scores[:, k].mean(), abs=1e-4)
        assert arm["mean_energy_j"] == pytest.approx(joules, rel=1e-3)
        assert arm["mean_latency_ms"] >= 0.999 * device_ms


def test_no_answer_exceeds_a_ceiling_that_somebody_was_expected_to_keep(arms):
    budgets = {name: arm for name, arm in arms.items() if arm["kind"] == "budget"}
    assert set(budgets) == {"edge", "balanced", "cloud"}
    assert {name: arm["n_exceeded"] for name, arm in budgets.items()} == dict.fromkeys(budgets, 0)


def test_only_residents_are_chosen_and_memory_holds_them(arms, results):
    config = load_config(EXAMPLE / "coe.yaml")
    resident = results["plan"]["resident"]
    sizes = {expert.id: (expert.node, expert.memory_gb) for expert in config.experts}
    for node, names in resident.items():
        assert {sizes[name][0] for name in names} == {node}
        assert sum(sizes[name][1] for name in names) <= config.nodes[node].memory_gb
    chosen = {name for arm in arms.values() if arm["kind"] == "budget" for name in arm["shares"]}
    assert chosen <= {name for names in resident.values() for name in names}


def test_a_budget_is_compared_with_every_single_expert(arms, rows):
    for arm in arms.values():
        for against in arm.get("against", []):
            single = arms[against["single"]]
            gain = arm["accuracy"] - single["accuracy"]
            assert against["delta_accuracy"] == pytest.approx(gain, abs=1e-4)
            low, high = against["delta_ci95"]
            assert low <= against["delta_accuracy"] <= high
        assert len(arm.get("against", rows.expert_ids)) == len(rows.expert_ids)


def test_there_is_a_picture_that_names_every_arm(out, arms):
    svg = (out / "edge_cloud.svg").read_text()
    assert (out / "edge_cloud.png").read_bytes().startswith(b"\x89PNG")
    for name, arm in arms.items():
        assert (f"auto:{name}" if arm["kind"] == "budget" else name) in svg


def test_the_table_holds_what_may_be_passed_on_and_answers_of_test_rows_only():
    table = pq.read_table(EXAMPLE / "outcomes.parquet")
    tasks = set(table["source_task"].to_pylist())
    assert tasks == {"zeroeval:gsm", "zeroeval:crux", "zeroeval:math-l5"}
    splits = table["split"].to_pylist()
    for name in OUTCOMES.expert_ids:
        answers = table[f"answer__{name}"].to_pylist()
        assert [a is not None for a in answers] == [split == "test" for split in splits]


def test_the_readme_has_the_figures_of_the_committed_results():
    results = json.loads((EXAMPLE / "results.json").read_text())
    assert results["n_prompts"] == int(np.sum(OUTCOMES.splits == "test"))
    lines = (EXAMPLE / "README.md").read_text().splitlines()
    for arm in results["arms"]:
        name = f"auto:{arm['name']}" if arm["kind"] == "budget" else arm["name"]
        row = next(line for line in lines if line.startswith(f"{name} ")).split()
        accuracy, joules = f"{arm['accuracy']:.3f}", f"{arm['mean_energy_j']:,.0f}"
        assert (row[1], row[5], row[6]) == (accuracy, f"{arm['p95_latency_ms'] / 1e3:.1f}", joules)
