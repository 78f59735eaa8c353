"""A simulation against the same requests over HTTP: experts that replay, arrivals kept to."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.simulation.arms import replayed
from coe.simulation.figures import figures
from coe.simulation.setting import Budgeting, Demand, Setting

OUTCOMES = Path(__file__).parents[2] / "data" / "outcomes" / "embedded.parquet"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
# Answers take one to two seconds, so that milliseconds of a busy machine do not matter, and wait
# another one. Simulated with up to 20 ms more for each, figures change by less than 3 %.
CONFIG = f"""
artefact: {DATA / "artefact"}
budgets: budgets.yaml
devices:
  quick: {{ttft_b_ms: 1, ttft_c_ms: 300, decode_tokens_per_s: 90, prefill_w: 10, decode_w: 10}}
  slow: {{ttft_b_ms: 2, ttft_c_ms: 600, decode_tokens_per_s: 38, prefill_w: 20, decode_w: 20}}
experts:
  - {{id: {SMALL}, kind: replay, recording: {OUTCOMES}, device: quick, slots: 6,
      answer_tokens: 150}}
  - {{id: {LARGE}, kind: replay, recording: {OUTCOMES}, device: slow, slots: 12,
      answer_tokens: 150}}
"""
BUDGETS = "policies: {default: {prices: {per_second: 0.03}}}"
RATE_PER_S, N_REQUESTS, SEED = 10.0, 150, 1
TOLERANCE = 0.1


@dataclass(frozen=True)
class Answered:
    latency_ms: float
    expert_id: str
    energy_j: float


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "budgets.yaml").write_text(BUDGETS)
    (folder / "coe.yaml").write_text(CONFIG)
    return load_config(folder / "coe.yaml")


async def asked(url: str, prompts: list[str], at_s: list[float]) -> list[Answered]:
    """Every prompt at its time, whatever became of those before."""
    # a connection that is kept may be closed by the server just as it is used again
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        started = time.monotonic()

        async def ask(prompt: str, due_s: float) -> Answered:
            await asyncio.sleep(started + due_s - time.monotonic())
            sent = time.monotonic()
            body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
            answer = await client.post("/v1/chat/completions", json=body)
            latency_ms = 1000.0 * (time.monotonic() - sent)
            receipt = answer.raise_for_status().json()["coe"]["receipt"]
            return Answered(latency_ms, receipt["expert_id"], receipt["energy_j"])

        return await asyncio.gather(*map(ask, prompts, at_s))


def test_a_simulation_is_within_a_tenth_of_the_same_requests_over_http(serve, config):
    outcomes = Outcomes.read(OUTCOMES)
    specs = list(config.specs.values())
    setting = Setting.of(
        Router.load(config.artefact, specs),
        outcomes,
        "test",
        {},
        Demand(N_REQUESTS, RATE_PER_S),
        Budgeting(load_policies(config.budgets)["default"]),
        np.random.default_rng(SEED),
    )
    run = replayed("auto", setting)
    simulated = figures("auto", setting, run, np.random.default_rng(0))
    # a case in which nobody waits would say nothing
    assert simulated.wait_ms > 0.3 * simulated.latency_ms["mean"]
    assert min(simulated.asked.values()) > 0.1

    rows = outcomes.rows(outcomes.splits == "test")
    prompts = [rows.prompts[k] for k in setting.workload.prompt]
    with serve(config) as served:
        found = asyncio.run(asked(served.url, prompts, setting.workload.at_s.tolist()))
    latency_ms = np.array([one.latency_ms for one in found])
    column = {name: k for k, name in enumerate(rows.expert_ids)}
    score = [
        rows.scores[k, column[one.expert_id]]
        for k, one in zip(setting.workload.prompt, found, strict=True)
    ]
    measured = {
        "mean": latency_ms.mean(),
        "p50": np.quantile(latency_ms, 0.5),
        "p95": np.quantile(latency_ms, 0.95),
        "energy_j": np.mean([one.energy_j for one in found]),
        "quality": np.mean(score),
    }
    expected = {
        **{name: simulated.latency_ms[name] for name in ("mean", "p50", "p95")},
        "energy_j": simulated.energy_j,
        "quality": simulated.quality,
    }
    assert measured == pytest.approx(expected, rel=TOLERANCE)
