"""Two real engines in memory for one of them."""

import concurrent.futures
import time

import httpx
import pytest

from coe.config import DATA, load_config

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
pytestmark = pytest.mark.engine
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
on_demand: {{memory_gb: 0.9}}
devices:
  core: {{ttft_b_ms: 5, ttft_c_ms: 200, decode_tokens_per_s: 50, prefill_w: 12, decode_w: 10}}
experts:
  - {{id: {SMALL}, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core,
     context_tokens: 1024, memory_gb: 0.4, vocabulary: any}}
  - {{id: {LARGE}, kind: embedded, weights: qwen2.5-coder-0.5b-instruct-q4_k_m, device: core,
     context_tokens: 1024, memory_gb: 0.8}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, embedded_config, serve):
    path = tmp_path_factory.mktemp("turns") / "coe.yaml"
    path.write_text(CONFIG)
    with serve(load_config(path)) as running:
        yield running


def ask(gateway, model, **more):
    return gateway.client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=3, **more
    )


def test_experts_that_do_not_fit_together_answer_all_the_same(gateway):
    assert httpx.get(f"{gateway.url}/readyz", timeout=10).status_code == 200
    models = [SMALL, LARGE] * 3
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda model: ask(gateway, model), models))
    assert [answer.model for answer in answers] == models
    # six requests for two experts by turns would be six loads, first come first served
    assert gateway.runtime.fleet.turns.n_loads <= 3
    hosts = gateway.runtime.fleet.hosts.values()
    for _ in range(100):
        # idle, the node may load the one that it expects to be asked for
        states = httpx.get(f"{gateway.url}/readyz", timeout=10).json()["experts"]
        assert sum(host.process_id is not None for host in hosts) <= 1
        if sorted(states.values()) == ["on demand", "ready"]:
            break
        time.sleep(0.2)
    assert sorted(states.values()) == ["on demand", "ready"]


def test_an_expert_that_is_not_always_in_memory_is_not_mixed(gateway):
    assert gateway.runtime.config.specs[SMALL].vocabulary == "any"
    assert gateway.runtime.fleet.specs[SMALL].vocabulary is None


def test_loading_counts_when_an_expert_is_chosen(gateway):
    """What is in memory answers at once; the other one is known to load first."""
    ask(gateway, LARGE)
    body = {"model": "auto", "messages": [{"role": "user", "content": "Write a poem."}]}
    decision = httpx.post(f"{gateway.url}/v1/route", json=body, timeout=10).json()
    ttft_ms = {decision["experts"][0]["id"]: decision["predicted"]["ttft_ms"]}
    ttft_ms |= {a["id"]: a["predicted"]["ttft_ms"] for a in decision["alternatives"]}
    turns = gateway.runtime.fleet.turns
    inside = next(name for name in (SMALL, LARGE) if turns.presence(name).delay_ms == 0)
    outside = SMALL if inside == LARGE else LARGE
    assert turns.presence(outside).delay_ms > 100
    assert ttft_ms[outside] > turns.presence(outside).delay_ms
    assert ttft_ms[outside] > ttft_ms[inside]
