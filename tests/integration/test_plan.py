"""A plan from the command line, and a real gateway that keeps to it."""

import json
import re

import pytest

from coe.config import DATA
from coe.plan import Plan

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
OUTCOMES = DATA.parents[1] / "data" / "outcomes" / "embedded.parquet"
AXES = {"energy_j", "latency_ms", "cost_usd"}


def document(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_shipped_artefact_is_planned_with_a_certificate(coe, tmp_path):
    picture, kept = tmp_path / "plan.png", tmp_path / "plan.json"
    config = DATA / "coe.yaml"
    done = coe("plan", "-c", config, "--json", "--plot", picture, "--out", kept)
    found = document(done)
    assert found["status"] == "optimal"
    assert set(found["certificate"]) == {"lower", "upper", "gap", "nodes", "solve_ms"}
    assert found["certificate"]["gap"] == pytest.approx(0, abs=1e-9)
    assert set(found["staircases"]) == AXES
    assert found["staircase"] == found["staircases"]["energy_j"]
    for axis, stairs in found["staircases"].items():
        used, quality = [s[axis] for s in stairs], [s["quality"] for s in stairs]
        assert used == sorted(set(used))
        assert quality == sorted(set(quality))
        assert all({*AXES, "quality", "experts", "sets", "modes"} == s.keys() for s in stairs)
    dearest = {one["experts"][0]: one for one in found["singles"]}
    assert set(dearest) == {SMALL, LARGE}
    # no single expert lies above the staircase
    for one in found["singles"]:
        at = [s for s in found["staircase"] if s["energy_j"] <= one["energy_j"] * (1 + 1e-9)]
        assert at[-1]["quality"] >= one["quality"] - 1e-9
    assert found["premise"]["falls"] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(Plan.load(kept).document())) == found


def test_a_tighter_mean_is_never_worth_more_and_is_kept(coe_here):
    worth = []
    for budget in (17, 25, 40):
        found = document(coe_here("plan", "-b", "best", "--mean-energy-j", budget, "--json"))
        assert found["energy_j"] <= budget
        bought = [s for s in found["staircase"] if s["energy_j"] <= budget][-1]
        assert bought["quality"] == pytest.approx(found["quality"])
        worth.append(found["quality"])
    assert worth == sorted(worth)


def test_too_little_is_exit_code_1_and_says_what_would_do(coe_here):
    done = coe_here("plan", "--mean-energy-j", "1")
    assert done.returncode == 1
    assert "nothing fits mean_energy_j" in done.stdout
    needed = re.search(r"mean_energy_j (\S+) would do", done.stdout)[1]
    assert coe_here("plan", "--mean-energy-j", needed).returncode == 0


def test_sets_of_two_on_recorded_answers(coe_here):
    found = document(
        coe_here("plan", "--outcomes", OUTCOMES, "--aggregation", "mixture", "-k", 2, "--json")
    )
    assert found["k"] == 2
    assert found["premise"]["falls"] >= 0
    assert {len(s["experts"]) for c in found["categories"] for s in c["menu"]} <= {1, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aggregation", "mixture"], "--outcomes"),
        (["--aggregation", "vote"], "--aggregation must be one of"),
        (["--method", "guess"], "--method must be one of"),
        (["--method", "branch"], "branch"),
        (["-b", "absent"], "no policy 'absent'"),
        (["--outcomes", OUTCOMES], "leave out --outcomes"),
        (["--outcomes", OUTCOMES, "--aggregation", "choose", "--split", "x"], "no prompt"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_exit_code_2(coe_here, options, message):
    done = coe_here("plan", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_plan_with_a_mean_leaves_its_own_experts_to_a_request(coe_here, tmp_path):
    """Without the plan the large expert would answer."""
    kept, config = tmp_path / "plan.json", tmp_path / "coe.yaml"
    config.write_text(shipped_config() + f"\nplan: {kept}\n")
    document(coe_here("plan", "--mean-energy-j", 17, "--out", kept, "--json"))
    asked = ("route", "Solve 3x + 4 = 10 for x.", "-c", config, "-b", "best", "--json")
    assert [e["id"] for e in document(coe_here(*asked))["experts"]] == [SMALL]
    assert coe_here("doctor", "-c", config).stdout.count("plan: for") == 1
    kept.write_text("{}")
    assert coe_here(*asked).returncode == 2
    assert "not a plan" in coe_here("doctor", "-c", config).stdout


def test_nothing_that_fits_is_not_kept(coe_here, tmp_path):
    kept = tmp_path / "plan.json"
    done = coe_here("plan", "--mean-energy-j", "1", "--out", kept, "--plot", tmp_path / "plan.png")
    assert (done.returncode, [*tmp_path.iterdir()]) == (1, [])


def shipped_config():
    """The text of the embedded default, its paths made absolute."""
    text = (DATA / "coe.yaml").read_text().replace("budgets: b", f"budgets: {DATA}/b")
    return text.replace("artefact: a", f"artefact: {DATA}/a")


@pytest.mark.engine
def test_a_gateway_keeps_to_its_plan(coe_here, serve, embedded_config, tmp_path):
    """Only the small expert fits the node, so it answers what the large one would."""
    text = shipped_config()
    for name, size in ((SMALL, 0.2), (LARGE, 0.6)):
        text = text.replace(
            f"- id: {name}\n", f"- id: {name}\n    node: edge\n    memory_gb: {size}\n"
        )
    config = tmp_path / "coe.yaml"
    config.write_text(text + "\nnodes:\n  edge: {memory_gb: 0.5}\n")
    kept = tmp_path / "plan.json"
    found = document(coe_here("plan", "-c", config, "--out", kept, "--json"))
    assert found["resident"] == {"edge": [SMALL]}
    with serve(embedded_config.model_copy(update={"plan": kept})) as gateway:
        answer = gateway.client.chat.completions.create(
            model="auto:best",
            max_tokens=8,
            messages=[
                {"role": "user", "content": "Write a Python function that adds two numbers."}
            ],
        )
        assert [e["id"] for e in answer.model_extra["coe"]["experts"]] == [SMALL]
        pinned = gateway.client.chat.completions.create(
            model=LARGE, max_tokens=4, messages=[{"role": "user", "content": "Say hello."}]
        )
        assert [e["id"] for e in pinned.model_extra["coe"]["experts"]] == [LARGE]
