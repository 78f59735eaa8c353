"""What each budget policy would have scored and spent on held-out prompts of the embedded experts.

Scores are those recorded in data/outcomes; nothing is asked. Intervals
are paired bootstraps over prompts, against the best single expert of the training split.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.core import Message, Policy, Request
from coe.router import Router
from coe.routers.outcomes import Outcomes

ROOT = Path(__file__).parents[2]
N_RESAMPLES = 10_000


def chosen(router: Router, rows: Outcomes, policy: Policy) -> NDArray[np.int64]:
    """(n_prompts,) the expert that the router picks for each prompt."""
    requests = [Request((Message("user", prompt),), policy) for prompt in rows.prompts]
    return np.array([rows.expert_ids.index(router.decide(r).expert_id) for r in requests])


def arm(
    rows: Outcomes, picks: NDArray[np.int64], best: int, rng: np.random.Generator
) -> dict[str, object]:
    """Mean score and joules of these picks, and the difference to always asking ``best``."""
    here = np.arange(len(rows.prompts))
    gains = rows.scores[here, picks] - rows.scores[:, best]
    resampled = gains[rng.integers(0, len(gains), (N_RESAMPLES, len(gains)))].mean(axis=1)
    return {
        "score": round(float(rows.scores[here, picks].mean()), 3),
        "joules": round(float(rows.energy_j[here, picks].mean()), 1),
        "delta_best_single": round(float(gains.mean()), 3),
        "delta_ci95": np.quantile(resampled, [0.025, 0.975]).round(3).tolist(),
    }


def measured(split: list[str]) -> dict[str, object]:
    """Every policy, every single expert and the oracle."""
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    outcomes = Outcomes.read(ROOT / "data" / "outcomes" / "embedded.parquet")
    best = int(np.nanmean(outcomes.rows(outcomes.splits == "train").scores, axis=0).argmax())
    rows = outcomes.rows(np.isin(outcomes.splits, split))
    rng = np.random.default_rng(0)
    n = len(rows.prompts)
    picks = {f"always {name}": np.full(n, k) for k, name in enumerate(rows.expert_ids)}
    for name, policy in load_policies(config.budgets).items():
        picks[f"auto:{name}"] = chosen(router, rows, policy)
    picks["oracle (inflated by luck)"] = rows.scores.argmax(axis=1)
    arms = {name: arm(rows, pick, best, rng) for name, pick in picks.items()}
    return {"split": split, "n_prompts": n, "arms": arms}
