"""Experts that compute nothing, behind a real gateway, asked by the real OpenAI client."""

from pathlib import Path

import openai
import pytest

from coe.config import DATA, load_config
from coe.routers.outcomes import Outcomes

OUTCOMES = Path(__file__).parents[2] / "data" / "outcomes" / "embedded.parquet"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
NO = "Nobody answers this so cheaply."
FREE = f"""
  - id: faq
    kind: constant
    answers:
      - {{text: "Nine to five, on weekdays.", patterns: ['(?i)opening\\s+hours'], quality: 1}}
  - {{id: nobody, kind: null, text: {NO}}}
  - {{id: again, kind: copy}}
"""
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
devices:
  h100: {{ttft_b_ms: 0.1, ttft_c_ms: 200, decode_tokens_per_s: 100, prefill_w: 40, decode_w: 30}}
experts:
  - {{id: {SMALL}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
  - {{id: {LARGE}, kind: replay, recording: {OUTCOMES}, device: h100, time_scale: 0}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, serve):
    path = tmp_path_factory.mktemp("free") / "coe.yaml"
    path.write_text(CONFIG + FREE)
    with serve(load_config(path)) as running:
        yield running


@pytest.fixture(scope="module")
def prompts():
    """Recorded prompts, a new one for each test."""
    return iter(Outcomes.read(OUTCOMES).prompts)


def ask(gateway, content, stream, model="auto", **coe):
    """Text, finish reason, headers and receipt of an answer."""
    raw = gateway.client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        stream=stream,
        extra_body={"coe": coe},
    )
    answer = raw.parse()
    if not stream:
        choice = answer.choices[0]
        text, finish = choice.message.content, choice.finish_reason
    else:
        choices = [chunk.choices[0] for chunk in answer if chunk.choices]
        text = "".join(choice.delta.content or "" for choice in choices)
        finish = choices[-1].finish_reason
    return text, finish, raw.headers, gateway.receipt(raw.headers["x-coe-decision-id"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_canned_answer_costs_nothing(gateway, stream):
    said, finish, headers, receipt = ask(gateway, "What are your opening hours?", stream)
    assert (said, finish) == ("Nine to five, on weekdays.", "stop")
    assert headers["x-coe-experts"] == receipt["expert_id"] == "faq"
    assert receipt["energy_j"] == receipt["cost_usd"] == 0
    assert receipt["output_tokens"] == 7


@pytest.mark.parametrize("stream", [False, True])
def test_what_fits_no_budget_is_declined(gateway, prompts, stream):
    tight = {"budget": {"energy_j": 0.01}}
    said, finish, headers, receipt = ask(gateway, next(prompts), stream, **tight)
    assert (said, finish) == (NO, "stop")
    assert headers["x-coe-declined"] == "true"
    assert (receipt["expert_id"], receipt["energy_j"]) == ("nobody", 0)


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_question_is_answered_once(gateway, prompts, stream):
    prompt = next(prompts)
    first, _, headers, paid = ask(gateway, prompt, stream)
    again, finish, _, free = ask(gateway, prompt, not stream)
    assert (again, finish) == (first, "stop")
    assert paid["energy_j"] > 0 == free["energy_j"] == free["cost_usd"]
    assert free["expert_id"] == "again"
    assert free["copied_from"] == {
        "decision_id": headers["x-coe-decision-id"],
        "expert_id": paid["expert_id"],
    }
    anew = ask(gateway, prompt, stream, cache=False)[3]
    assert (anew["expert_id"], anew["copied_from"]) == (paid["expert_id"], None)


def test_by_name_without_an_answer_is_the_callers_error(gateway):
    for name in ("faq", "again"):
        with pytest.raises(openai.BadRequestError, match="no answer ready"):
            ask(gateway, "Never asked, not canned.", False, model=name)
    assert ask(gateway, "Never asked.", False, model="nobody")[0] == NO


def test_a_fleet_of_nothing_else_serves(tmp_path, serve):
    path = tmp_path / "coe.yaml"
    path.write_text(CONFIG.partition("devices:")[0] + "experts:" + FREE)
    with serve(load_config(path)) as alone:
        assert alone.runtime.fleet.can_answer
        assert ask(alone, "opening hours", False)[0].startswith("Nine")
        assert ask(alone, "Anything else?", False)[0] == NO
        names = {row.id for row in alone.client.models.list()}
        assert {"faq", "nobody", "again"} < names
