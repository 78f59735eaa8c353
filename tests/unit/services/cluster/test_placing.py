"""Where a fleet runs the experts of its plan."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from coe.config import DATA, load_config
from coe.errors.files import PlanError
from coe.replica import Deployment
from coe.services.cli import app
from coe.services.cluster.placing import placed, sites

CONFIG = """
artefact: {data}/artefact
budgets: {data}/budgets.yaml
plan: plan.json
nodes:
  edge: {{memory_gb: {edge_gb}, resources: {{jetson_orin: 1}}}}
  cloud: {{memory_gb: 2}}
devices:
  core: {{ttft_b_ms: 5, ttft_c_ms: 200, decode_tokens_per_s: 50, prefill_w: 12, decode_w: 10}}
experts:
  - {{id: smollm2-135m, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core,
     memory_gb: 0.5, resources: {{jetson_orin: 1}}}}
  - {{id: qwen2.5-coder-0.5b, kind: embedded, weights: qwen2.5-coder-0.5b-instruct-q4_k_m,
     device: core, memory_gb: 1.5}}
"""


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A folder with the plan of both experts; returns a way to write its configuration."""
    folder = tmp_path_factory.mktemp("placing")
    done = CliRunner().invoke(
        app, ["plan", "--config", str(DATA / "coe.yaml"), "--out", str(folder / "plan.json")]
    )
    assert done.exit_code == 0, done.output

    def write(edge_gb=1.0, kept=""):
        path = folder / "coe.yaml"
        text = CONFIG.format(data=DATA, edge_gb=edge_gb)
        path.write_text(text.replace("memory_gb: 1.5", f"memory_gb: 1.5{kept}"))
        return path

    return write


def test_experts_lie_where_their_resources_and_memory_are(planned):
    found = sites(load_config(planned()), 0.1)
    assert {name: [s.node for s in of] for name, of in found.of.items()} == {
        "smollm2-135m": ["edge"],
        "qwen2.5-coder-0.5b": ["cloud"],
    }
    assert found.result.gap == 0


def test_an_expert_with_a_node_lies_there_or_nowhere(planned):
    kept = ", node: edge, resources: {jetson_orin: 1}"
    found = sites(load_config(planned(edge_gb=4.0, kept=kept)), 0.1)
    assert [s.node for s in found.of["qwen2.5-coder-0.5b"]] == ["edge"]
    with pytest.raises(PlanError, match=r"node_gb\[edge\]=2 would do"):
        sites(load_config(planned(kept=kept)), 0.1)


def test_what_does_not_fit_says_what_would_do(planned):
    with pytest.raises(PlanError, match=r"node_gb\[edge\]=0\.5 would do"):
        sites(load_config(planned(edge_gb=0.2)), 0.1)


def test_without_a_plan_there_is_nothing_to_place(planned):
    config = load_config(planned()).model_copy(update={"plan": None})
    with pytest.raises(PlanError, match="needs a plan"):
        sites(config, 0.1)


@pytest.mark.parametrize("rate_per_s", [float("inf"), float("nan")])
def test_a_rate_is_finite(planned, rate_per_s):
    with pytest.raises(PlanError, match="rate must be a finite number"):
        sites(load_config(planned()), rate_per_s)


def test_a_deployment_goes_to_its_nodes_with_a_copy_for_each(planned):
    found = sites(load_config(planned()), 0.1)
    one = Deployment("smollm2-135m", "{}")
    (moved,) = placed([one], found)
    assert moved == replace(one, labels={"coe-node": "edge"})
    both = replace(found, of={"smollm2-135m": found.of["smollm2-135m"] * 2})
    both.of["smollm2-135m"] = (
        found.of["smollm2-135m"][0],
        replace(found.of["smollm2-135m"][0], node="cloud"),
    )
    (spread,) = placed([one], both)
    assert spread.labels == {"coe-node": "in(cloud,edge)"}
    assert (spread.least, spread.most) == (2, 2)
    assert placed([Deployment("other", "{}")], found) == [], "the plan does without it"


def test_the_verb_says_where_and_how_good_that_is(planned):
    path = planned()
    said = CliRunner().invoke(app, ["fleet", "place", "--rate", "0.1", "--config", str(path)])
    assert said.exit_code == 0, said.output
    assert "smollm2-135m: edge (100%)" in said.output
    assert "proved best" in said.output
    document = CliRunner().invoke(app, ["fleet", "place", "--json", "--config", str(path)])
    assert json.loads(document.stdout)["sites"]["qwen2.5-coder-0.5b"][0]["node"] == "cloud"
    planned(edge_gb=0.2)
    wrong = CliRunner().invoke(app, ["fleet", "place", "--config", str(path)])
    assert wrong.exit_code == 2
    assert "would do" in wrong.output
