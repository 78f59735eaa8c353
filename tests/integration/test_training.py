"""`coe collect` and `coe train` with real engines, then a decision of what they learned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import coe
from coe.routers.outcomes import Outcomes

pytestmark = pytest.mark.engine
SHIPPED = Path(coe.__file__).parent / "data"


def run(*arguments):
    command = [sys.executable, "-m", "coe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A dozen short prompts, one of them with a program for an answer."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [
        {
            "prompt_id": f"{category}-{n}",
            "prompt": text.format(n),
            "category": category,
            "split": "dev" if n == 5 else "train",
            "max_tokens": 8,
            "check": check,
        }
        for category, text, check in (
            ("maths", "What is {0} plus {0}?", {"kind": "number", "value": 4}),
            ("chat", "Say hello, number {0}.", {"kind": "contains_any", "items": ["hello"]}),
        )
        for n in range(6)
    ]
    tests = {"kind": "python_tests", "tests": ["assert one() == 1"]}
    rows.append(
        {"prompt_id": "code-0", "prompt": "Write one().", "category": "maths", "check": tests}
        | {"max_tokens": 8}
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def outcomes(embedded_config, prompts):
    out = prompts.with_name("outcomes.parquet")
    config = str(SHIPPED / "coe.yaml")
    done = run("collect", "--config", config, "--prompts", str(prompts), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "unscored" in done.stderr
    return out


def test_collect_writes_scores_tokens_joules_and_answers(outcomes):
    table = Outcomes.read(outcomes)
    assert len(table.prompts) == 13
    assert set(table.expert_ids) == {"smollm2-135m", "qwen2.5-coder-0.5b"}
    assert (table.tokens > 0).all()
    assert (table.energy_j > 0).all()
    assert list(outcomes.parent.glob("*.journal.jsonl")) == []


def test_programs_are_not_run_unasked(outcomes):
    table = Outcomes.read(outcomes)
    code = [k for k, name in enumerate(table.prompt_ids) if name == "code-0"]
    assert all(value != value for value in table.scores[code].ravel())


def test_train_then_route(outcomes, tmp_path):
    artefact = tmp_path / "artefact"
    done = run("train", "--outcomes", str(outcomes), "--out", str(artefact), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["n_prompts"] == 2
    text = (SHIPPED / "coe.yaml").read_text()
    text = text.replace("artefact: artefact", f"artefact: {artefact}")
    text = text.replace("budgets: budgets.yaml", f"budgets: {SHIPPED / 'budgets.yaml'}")
    (tmp_path / "coe.yaml").write_text(text)
    routed = run("route", "What is 3 plus 3?", "--config", str(tmp_path / "coe.yaml"), "--json")
    assert routed.returncode == 0, routed.stderr
    assert json.loads(routed.stdout)["category"] == "maths"
