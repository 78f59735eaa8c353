"""What the arms come to: figures with paired bootstrap intervals, and a table of them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from asking import Answered, Arm
from summary import slowed
from ways import Mixed

from coe.routers.bootstrap import interval, resampled_means
from coe.routers.outcomes import Outcomes

SEED = 0
N_RESAMPLES = 4000
FIGURES = ("score", "energy_j", "cost_usd")


def document_of(
    arms: Sequence[Arm],
    found: Mapping[str, list[Answered]],
    single: str,
    rows: Outcomes,
    seen: Mapping[str, Mapping[str, float]],
    given: argparse.Namespace,
) -> dict[str, Any]:
    """All figures, differences being those to always asking the ``single`` expert."""
    known = dict(found)
    known["oracle"] = oracle([found[name] for name in rows.expert_ids])
    return {
        "n_prompts": len(rows.prompts),
        "n_train_prompts": given.train_prompts,
        "speed": given.speed,
        "gap_s": given.gap_s,
        "seed": SEED,
        "n_resamples": N_RESAMPLES,
        "best_single": single,
        "slowed_by": round(slowed({name: found[name] for name in rows.expert_ids}), 4),
        "arms": [_row(name, known, single) for name in known],
        "mixes": {arm.name: dict(arm.shares) for arm in arms if isinstance(arm, Mixed)},
        "on_train_prompts": {
            name: {figure: _short(mean) for figure, mean in means.items()}
            for name, means in seen.items()
        },
    }


def oracle(singles: Sequence[list[Answered]]) -> list[Answered]:
    """The cheapest right answer of each prompt, or the cheapest; known only afterwards."""
    return [
        min(answers, key=lambda one: (-one.score, one.energy_j))
        for answers in zip(*singles, strict=True)
    ]


def _row(name: str, known: Mapping[str, list[Answered]], single: str) -> dict[str, Any]:
    family, _, budget = name.partition(" at ")
    equal = f"singles at {budget}" if family == "modes" and budget else None
    columns = [
        *(_column(known[name], figure) for figure in FIGURES),
        *(_column(known[single], figure) for figure in FIGURES),
        _column(known[equal or single], "score"),
    ]
    means = resampled_means(np.column_stack(columns), N_RESAMPLES, np.random.default_rng(SEED))
    score, joules, usd, one_score, one_joules, one_usd, equal_score = (
        float(column.mean()) for column in columns
    )
    latency_ms = _column(known[name], "latency_ms")
    row = {
        "name": name,
        "accuracy": _short(score),
        "accuracy_ci95": _ends(means[:, 0]),
        "gain": _short(score - one_score),
        "gain_ci95": _ends(means[:, 0] - means[:, 3]),
        "mean_energy_j": _short(joules),
        "energy_ratio": _short(joules / one_joules),
        "energy_ratio_ci95": _ends(means[:, 1] / means[:, 4]),
        "cost_ratio": _short(usd / one_usd),
        "mean_cost_usd": _short(usd),
        "p50_latency_ms": _short(np.quantile(latency_ms, 0.5)),
        "p95_latency_ms": _short(np.quantile(latency_ms, 0.95)),
    }
    if equal:
        row["over_singles"] = _short(score - equal_score)
        row["over_singles_ci95"] = _ends(means[:, 0] - means[:, 6])
    return row


def _column(answers: Sequence[Answered], figure: str) -> np.ndarray:
    return np.array([getattr(one, figure) for one in answers], dtype=float)


def _ends(means: np.ndarray) -> list[float]:
    return [_short(end) for end in interval(means[:, None])[0]]


def printed(document: Mapping[str, Any]) -> str:
    """The table of all arms."""
    lines = [f"{'':34}accuracy  gain to {document['best_single']:22} joules  cents  p50 s  p95 s"]
    for row in document["arms"]:
        low, high = (100 * end for end in row["gain_ci95"])
        lines.append(
            f"{row['name']:34}{row['accuracy']:.3f}   {100 * row['gain']:+5.1f} "
            f"[{low:+5.1f}, {high:+5.1f}]       {row['mean_energy_j']:7,.0f} "
            f"({row['energy_ratio']:.2f})  {100 * row['mean_cost_usd']:.4f}  "
            f"{row['p50_latency_ms'] / 1000:5.1f}  {row['p95_latency_ms'] / 1000:5.1f}"
        )
    return "\n".join(lines)


def _short(value: Any) -> float:
    """Five significant digits."""
    return float(f"{float(value):.5g}")
