"""The same requests simulated, and over HTTP through a gateway whose experts replay answers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from coe.core import Policy
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.simulation.arms import replayed
from coe.simulation.figures import figures
from coe.simulation.setting import Budgeting, Demand, Setting

# devices so much faster than those of the pool, so that a minute is enough; far above the
# milliseconds that a busy machine adds
FASTER = 5.0
SLOTS = {"best-single": 16, "round-robin": 6, "auto": 6}
LOAD = 0.85  # of the expert that gets the most work


@dataclass(frozen=True, slots=True)
class Case:
    """Prompts whose answers were recorded, and a router of faster devices.

    ``folder`` holds artefact, recording and budgets.
    """

    router: Router
    outcomes: Outcomes
    policy: Policy
    folder: Path

    @classmethod
    def of(
        cls, router: Router, outcomes: Outcomes, responses: Path, folder: Path, policy: Policy
    ) -> Case:
        """The case of a pool; lengths are those of a replay, which counts words."""
        told = pq.read_table(responses).to_pylist()
        answers = {(one["prompt_id"], one["model"]): one["response"] for one in told}
        known = [
            all((key, name) in answers for name in outcomes.expert_ids)
            for key in outcomes.prompt_ids
        ]
        rows = outcomes.rows(np.array(known) & (outcomes.splits == "test"))
        columns = {
            f"answer__{name}": [answers[key, name] or "" for key in rows.prompt_ids]
            for name in rows.expert_ids
        }
        pq.write_table(pa.table({"prompt": rows.prompts, **columns}), folder / "answers.parquet")
        words = [
            [len(re.findall(r"\s*\S+|\s+$", one)) for one in column] for column in columns.values()
        ]
        router.artefact.save(folder / "artefact")
        budgets = {
            "policies": {"default": {"prices": {"per_second": FASTER * policy.prices.per_second}}}
        }
        (folder / "budgets.yaml").write_text(yaml.safe_dump(budgets))
        prices = replace(policy.prices, per_second=FASTER * policy.prices.per_second)
        specs = {
            name: replace(spec, context_tokens=32768, profile=_faster(spec.profile))
            for name, spec in router.specs.items()
        }
        rows = replace(rows, tokens=np.array(words, dtype=float).T)
        return cls(replace(router, specs=specs), rows, replace(policy, prices=prices), folder)

    def configured(self, slots: int) -> tuple[Case, Path]:
        """With so many slots for each expert, and the configuration that says so."""
        specs = {name: replace(spec, slots=slots) for name, spec in self.router.specs.items()}
        document = {
            "gateway": {"port": _free_port()},
            "artefact": "artefact",
            "budgets": "budgets.yaml",
            "devices": {name: _device(spec.profile) for name, spec in specs.items()},
            "experts": [
                {
                    "id": name,
                    "kind": "replay",
                    "recording": "answers.parquet",
                    "device": name,
                    "slots": slots,
                    "context_tokens": spec.context_tokens,
                }
                for name, spec in specs.items()
            ],
        }
        path = self.folder / "coe.yaml"
        path.write_text(yaml.safe_dump(document))
        return replace(self, router=replace(self.router, specs=specs)), path


def compared(case: Case, arm: str, n_requests: int, seed: int) -> dict[str, Any]:
    """Both, and by how much the simulation is off: simulated over measured, less one."""
    case, config = case.configured(SLOTS[arm])
    setting = _setting(case, arm, n_requests, seed)
    run = replayed(arm, setting)
    found = figures(arm, setting, run, np.random.default_rng(seed))
    ids = setting.expert_ids
    models = ["auto"] * n_requests if arm == "auto" else [ids[k] for k in run.expert]
    prompts = [case.outcomes.prompts[k] for k in setting.workload.prompt]
    url = f"http://127.0.0.1:{yaml.safe_load(config.read_text())['gateway']['port']}"
    with _running([sys.executable, "-m", "coe", "serve", "--config", str(config)], url):
        rows = asyncio.run(_asked(url, prompts, models, setting.workload.at_s.tolist()))
    latency_ms = np.array([row["latency_ms"] for row in rows])
    answered = np.array([ids.index(row["expert_id"]) for row in rows])
    measured = {
        "mean_ms": float(latency_ms.mean()),
        "p50_ms": float(np.quantile(latency_ms, 0.5)),
        "p95_ms": float(np.quantile(latency_ms, 0.95)),
        "p99_ms": float(np.quantile(latency_ms, 0.99)),
        "energy_j": float(np.mean([row["energy_j"] for row in rows])),
        "score": float(case.outcomes.scores[setting.workload.prompt, answered].mean()),
    }
    simulated = {
        **{f"{name}_ms": found.latency_ms[name] or 0.0 for name in ("mean", "p50", "p95", "p99")},
        "energy_j": found.energy_j or 0.0,
        "score": found.quality,
    }
    return {
        "policy": arm,
        "requests": n_requests,
        "rate_per_s": round(setting.workload.rate_per_s, 3),
        "slots": SLOTS[arm],
        "waiting": round((found.wait_ms or 0.0) / simulated["mean_ms"], 3),
        "same_expert": float((answered == run.expert).mean()),
        "measured": {name: float(f"{value:.5g}") for name, value in measured.items()},
        "simulated": {name: float(f"{value:.5g}") for name, value in simulated.items()},
        "off_by": {name: round(simulated[name] / measured[name] - 1, 4) for name in measured},
    }


def _setting(case: Case, arm: str, n_requests: int, seed: int) -> Setting:
    """At the rate that gives the busiest expert its load."""

    def at(rate_per_s: float) -> Setting:
        rng = np.random.default_rng(seed)
        demand, budgeting = Demand(n_requests, rate_per_s), Budgeting(case.policy)
        return Setting.of(case.router, case.outcomes, "test", {}, demand, budgeting, rng)

    low, high = 0.01, 1000.0
    for _ in range(20):
        middle = (low * high) ** 0.5
        setting = at(middle)
        found = figures(arm, setting, replayed(arm, setting), np.random.default_rng(seed))
        if max(load or 0.0 for load in found.offered.values()) < LOAD:
            low = middle
        else:
            high = middle
    return at(low)


async def _asked(
    url: str, prompts: Sequence[str], models: Sequence[str], at_s: Sequence[float]
) -> list[dict[str, Any]]:
    """Every prompt at its time, whatever became of those before."""
    # a connection that is kept may be closed by the server just as it is used again
    timeout = aiohttp.ClientTimeout(600)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        started = time.monotonic()

        async def ask(prompt: str, model: str, due_s: float) -> dict[str, Any]:
            await asyncio.sleep(started + due_s - time.monotonic())
            sent = time.monotonic()
            body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
            async with session.post("/v1/chat/completions", json=body) as response:
                content = await response.json()
                assert response.status == 200, content
            latency_ms = 1000.0 * (time.monotonic() - sent)
            receipt = content["coe"]["receipt"]
            return {
                "latency_ms": latency_ms,
                "expert_id": receipt["expert_id"],
                "energy_j": receipt["energy_j"],
            }

        return await asyncio.gather(*map(ask, prompts, models, at_s))


@contextlib.contextmanager
def _running(command: Sequence[str], url: str) -> Iterator[None]:
    """A server process that answers at ``url``, ended by its id."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        host, port = url.removeprefix("http://").split(":")
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection((host, int(port)), 1).close()
                break
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _faster(profile: Any) -> Any:
    return replace(
        profile,
        ttft_a_ms=profile.ttft_a_ms / FASTER,
        ttft_b_ms=profile.ttft_b_ms / FASTER,
        ttft_c_ms=profile.ttft_c_ms / FASTER,
        decode_tokens_per_s=profile.decode_tokens_per_s * FASTER,
    )


def _device(profile: Any) -> dict[str, Any]:
    names = ("ttft_a_ms", "ttft_b_ms", "ttft_c_ms", "decode_tokens_per_s", "prefill_w", "decode_w")
    return {name: float(getattr(profile, name)) for name in names}
