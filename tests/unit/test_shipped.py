"""What ships belongs together: prompts, outcomes, artefact, configuration, embedder."""

import hashlib
from dataclasses import replace
from pathlib import Path

from coe.capability import EVERYTHING
from coe.config import DATA, load_config
from coe.routers.artefact import Artefact
from coe.routers.checks import parse_check
from coe.routers.embed import load_default
from coe.routers.outcomes import Outcomes, read_prompts
from coe.services.sandbox import score_answer

ROOT = Path(__file__).parents[2]
OUTCOMES = ROOT / "data" / "outcomes" / "embedded.parquet"


def test_the_artefact_was_trained_on_the_committed_outcomes():
    artefact = Artefact.load(DATA / "artefact")
    assert artefact.training["outcomes_sha256"] == hashlib.sha256(OUTCOMES.read_bytes()).hexdigest()
    artefact.check_canaries(load_default())


def test_the_outcomes_are_those_of_the_committed_prompts():
    prompts = read_prompts(ROOT / "data" / "prompts" / "prompts.jsonl")
    outcomes = Outcomes.read(OUTCOMES)
    assert list(outcomes.prompt_ids) == [row["prompt_id"] for row in prompts]
    assert list(outcomes.prompts) == [row["prompt"] for row in prompts]
    assert outcomes.splits.tolist() == [row["split"] for row in prompts]


def test_the_scores_are_what_the_checks_say_of_the_recorded_answers():
    import pyarrow.parquet as pq

    prompts = read_prompts(ROOT / "data" / "prompts" / "prompts.jsonl")
    table = pq.read_table(OUTCOMES)
    for expert_id in ("smollm2-135m", "qwen2.5-coder-0.5b"):
        answers = table[f"answer__{expert_id}"].to_pylist()
        scores = table[f"score__{expert_id}"].to_pylist()
        for row, answer, score in zip(prompts, answers, scores, strict=True):
            # programs are left out here: running them is a test of the sandbox
            if row["check"]["kind"] != "python_tests":
                again = score_answer(answer, parse_check(row["check"]), run_code=False)
                assert again == score, row["prompt_id"]


def test_the_artefact_knows_the_experts_as_they_are_configured():
    specs = load_config(DATA / "coe.yaml").specs
    # what a request may ask of them is not learned
    specs = {name: replace(spec, capabilities=EVERYTHING) for name, spec in specs.items()}
    assert {spec.id: spec for spec in Artefact.load(DATA / "artefact").experts} == specs
