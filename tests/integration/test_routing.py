"""Different prompts and budgets reach different experts, for the reason they state."""

import httpx
import pytest

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
pytestmark = pytest.mark.engine

KNOWLEDGE = "What is the capital of France?"
CODE = "Write a Python function that returns the sum of the even numbers in a list."
MATHS = "A shop sells 17 boxes with 6 pens each. How many pens is that in total?"


def decide(gateway, content, model="auto", **coe):
    body = {"model": model, "messages": [{"role": "user", "content": content}], "coe": coe}
    answer = httpx.post(f"{gateway.url}/v1/route", json=body, timeout=30)
    return answer.json()


def chosen(decision):
    return decision["experts"][0]["id"]


def test_the_category_decides_between_experts(gateway):
    knowledge, code = decide(gateway, KNOWLEDGE), decide(gateway, CODE)
    assert (knowledge["category"], chosen(knowledge)) == ("knowledge", SMALL)
    assert "once joules, time and money are counted" in knowledge["why"]
    assert (code["category"], chosen(code)) == ("code", LARGE)
    assert "highest expected quality" in code["why"]


def test_an_energy_ceiling_sends_maths_to_the_small_expert(gateway):
    free = decide(gateway, MATHS)
    assert (free["category"], chosen(free), free["binding"]) == ("maths", LARGE, None)
    ceiling = free["cautious"]["energy_j"] * 0.9
    tight = decide(gateway, MATHS, budget={"energy_j": ceiling})
    assert (chosen(tight), tight["binding"]) == (SMALL, "energy_j")
    assert "fits energy_j" in tight["why"]
    assert tight["cautious"]["energy_j"] <= ceiling
    assert tight["slack"]["energy_j"] >= 0
    lost = next(other for other in tight["alternatives"] if other["id"] == LARGE)
    assert lost["violated"] == ["energy_j"]
    assert "would win with energy_j >=" in lost["why_not"]


def test_a_latency_ceiling_binds_too(gateway):
    free = decide(gateway, MATHS)
    tight = decide(gateway, MATHS, budget={"latency_ms": free["cautious"]["latency_ms"] * 0.9})
    assert (chosen(tight), tight["binding"]) == (SMALL, "latency_ms")


def test_policies_differ(gateway):
    assert chosen(decide(gateway, MATHS, "auto:best")) == LARGE
    eco = decide(gateway, MATHS, "auto:eco")
    assert (chosen(eco), eco["policy"]) == (SMALL, "eco")


def test_an_impossible_budget_says_what_would_do_and_it_does(gateway):
    refusal = decide(gateway, MATHS, budget={"energy_j": 0.001})["error"]
    assert refusal["code"] == "budget_infeasible"
    assert refusal["param"] == "coe.budget.energy_j"
    enough = refusal["needed"]["energy_j"]
    again = decide(gateway, MATHS, budget={"energy_j": enough})
    assert chosen(again) == SMALL
    assert again["cautious"]["energy_j"] <= enough


def test_allow_and_deny(gateway):
    assert chosen(decide(gateway, MATHS, experts={"deny": [LARGE]})) == SMALL
    assert chosen(decide(gateway, KNOWLEDGE, experts={"allow": [LARGE]})) == LARGE


def test_gibberish_is_general(gateway):
    decision = decide(gateway, "asdf")
    assert decision["uncertain"]
    assert decision["category"] == "general"
    assert "unfamiliar" in decision["why"]


def test_the_answer_keeps_to_the_joules(gateway):
    budget = {"energy_j": 60.0}
    decision = decide(gateway, CODE, budget=budget)
    body = {"model": "auto", "messages": [{"role": "user", "content": CODE}]}
    answer = httpx.post(
        f"{gateway.url}/v1/chat/completions", json=body | {"coe": {"budget": budget}}, timeout=120
    ).json()
    receipt = answer["coe"]["receipt"]
    assert receipt["output_tokens"] <= decision["max_tokens"]
    # the prompt's length is estimated before the expert counts it
    assert receipt["energy_j"] <= budget["energy_j"] * 1.1


def test_metrics_count_answers(gateway):
    page = httpx.get(f"{gateway.url}/metrics", timeout=30).text
    assert "coe_answers_total{" in page
    assert "coe_in_flight 0.0" in page
    assert 'coe_energy_joules_total{expert="smollm2-135m",source="modelled"}' in page
