"""CoE's five experts on ZeroEval: what they answered, and what that takes on given devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coe.config import load_config
from coe.core import estimated_tokens
from coe.routers.outcomes import Outcomes
from coe.routers.verdict import Verdict, verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "edge_cloud"
NAMES = {
    "Qwen2-7B-Instruct": "qwen2-7b",
    "gemma-2-9b-it": "gemma-2-9b",
    "gemma-2-27b-it": "gemma-2-27b",
    "Meta-Llama-3.1-70B-Instruct": "llama-3.1-70b",
    "Qwen2-72B-Instruct": "qwen2-72b",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Outcomes with verdicts; energy, time and money are (n_prompts, n_experts)."""

    outcomes: Outcomes
    verdicts: list[list[Verdict | None]]
    energy_j: Floats
    latency_ms: Floats
    cost_usd: Floats


def recorded(responses: Path) -> Recorded:
    """The example's outcomes with what the answers in ``responses`` say."""
    outcomes = Outcomes.read(EXAMPLE / "outcomes.parquet")
    row = {name: k for k, name in enumerate(outcomes.prompt_ids)}
    column = {name: k for k, name in enumerate(outcomes.expert_ids)}
    verdicts: list[list[Verdict | None]] = [[None] * len(column) for _ in row]
    for said in pq.read_table(responses).to_pylist():
        verdicts[row[said["prompt_id"]]][column[NAMES[said["model"]]]] = verdict(said["response"])
    specs = load_config(EXAMPLE / "coe.yaml").specs
    prompt = np.array([estimated_tokens(text) for text in outcomes.prompts], dtype=float)
    used = []
    for k, name in enumerate(outcomes.expert_ids):
        spec, tokens = specs[name], outcomes.tokens[:, k]
        time = spec.profile.ttft_ms(prompt) + spec.profile.decode_ms(tokens)
        used.append((spec.profile.energy_j(prompt, tokens), time, spec.cost_usd(prompt, tokens)))
    energy_j, latency_ms, cost_usd = (np.column_stack(part) for part in zip(*used, strict=True))
    return Recorded(outcomes, verdicts, energy_j, latency_ms, cost_usd)


def extraction(table: Recorded) -> dict[str, object]:
    """How often answers say something, and whether equal verdicts have equal scores."""
    found: dict[str, object] = {}
    scores, verdicts = table.outcomes.scores, table.verdicts
    for task in np.unique(table.outcomes.tasks):
        rows = np.flatnonzero(table.outcomes.tasks == task)
        same = unlike = right_twice = differing = 0
        for n in rows:
            for a in range(len(NAMES)):
                for b in range(a):
                    one, other = verdicts[n][a], verdicts[n][b]
                    if one is None or other is None:
                        continue
                    same += one == other
                    unlike += one == other and scores[n, a] != scores[n, b]
                    both = scores[n, a] == scores[n, b] == 1.0
                    right_twice += both
                    differing += both and one != other
        spoke = np.array([[said is not None for said in verdicts[n]] for n in rows]).mean(axis=0)
        found[str(task)] = {
            "share_extracted": dict(zip(table.outcomes.expert_ids, spoke.round(3), strict=True)),
            "pairs_of_equal_verdicts": same,
            "of_them_scored_differently": int(unlike),
            "pairs_both_right": int(right_twice),
            "of_them_with_different_verdicts": int(differing),
        }
    return found
