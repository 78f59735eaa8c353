"""What the answers of each arm come to: figures, and a table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from asking import Answered, Arm

from coe.routers.bootstrap import interval, resampled_means

Row = Mapping[str, Any]

SEED = 0
N_RESAMPLES = 2000
_ARM = ("", "accuracy", "95 %", "p50 s", "p95 s", "joules", "cents", "answered by")
_PAIR = ("", "accuracy", "95 %", "joules", "p95", "")


def summarised(arms: Sequence[Arm], found: Mapping[str, list[Answered]]) -> list[dict[str, Any]]:
    """The figures of each arm, and each budget's against every single expert's.

    Intervals are those of a bootstrap over prompts; a difference is that of the same prompts.
    """
    scores = np.array([[one.score for one in found[arm.name]] for arm in arms]).T
    means = resampled_means(scores, N_RESAMPLES, np.random.default_rng(SEED))
    rows = [
        {
            "name": arm.name,
            "kind": "budget" if arm.is_budget else "single",
            "accuracy": _short(scores[:, k].mean()),
            "accuracy_ci95": [_short(end) for end in interval(means[:, [k]])[0]],
            **_used(found[arm.name]),
        }
        for k, arm in enumerate(arms)
    ]
    singles = [n for n, arm in enumerate(arms) if not arm.is_budget]
    for k, arm in enumerate(arms):
        if arm.is_budget:
            gains = (scores[:, [k]] - scores[:, singles]).mean(axis=0)
            ends = interval(means[:, [k]] - means[:, singles])
            rows[k]["against"] = [
                _against(rows[k], rows[n], gain, end)
                for n, gain, end in zip(singles, gains, ends, strict=True)
            ]
    return rows


def _against(row: Row, single: Row, gain: Any, ends: Any) -> dict[str, Any]:
    return {
        "single": single["name"],
        "delta_accuracy": _short(gain),
        "delta_ci95": [_short(end) for end in ends],
        "energy_ratio": _short(row["mean_energy_j"] / single["mean_energy_j"]),
        "p95_latency_ratio": _short(row["p95_latency_ms"] / single["p95_latency_ms"]),
    }


def _used(answers: Sequence[Answered]) -> dict[str, Any]:
    latency_ms = np.array([one.latency_ms for one in answers])
    energy_j = np.array([one.energy_j for one in answers])
    n_by = Counter(one.expert_id for one in answers)
    return {
        "p50_latency_ms": _short(np.quantile(latency_ms, 0.5)),
        "p95_latency_ms": _short(np.quantile(latency_ms, 0.95)),
        "mean_latency_ms": _short(latency_ms.mean()),
        "mean_energy_j": _short(energy_j.mean()),
        "p95_energy_j": _short(np.quantile(energy_j, 0.95)),
        "max_energy_j": _short(energy_j.max()),
        "mean_cost_usd": _short(np.mean([one.cost_usd for one in answers])),
        "n_cut": sum(one.cut for one in answers),
        "n_nearest": sum(one.nearest for one in answers),
        "n_exceeded": sum(one.exceeded for one in answers),
        "shares": {name: _short(n / len(answers)) for name, n in n_by.most_common()},
    }


def slowed(found: Mapping[str, list[Answered]]) -> float:
    """By which share of the devices' own time the gateway and this machine lengthened answers."""
    answers = [one for each in found.values() for one in each]
    return sum(one.latency_ms for one in answers) / sum(one.device_ms for one in answers) - 1


def tables(rows: Sequence[Row]) -> str:
    """Both tables: every arm, and every budget against every single expert."""
    pairs = [_PAIR] + [_pair(row, one) for row in rows for one in row.get("against", ())]
    return _aligned([_ARM, *map(_arm, rows)]) + "\n\n" + _aligned(pairs)


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    """Lines of text: first and last column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for first, *numbers, last in cells:
        right = (text.rjust(width) for text, width in zip(numbers, widths[1:-1], strict=True))
        lines.append("  ".join([first.ljust(widths[0]), *right, last]).rstrip())
    return "\n".join(lines)


def _arm(row: Row) -> tuple[str, ...]:
    budget = row["kind"] == "budget"
    shares = [f"{name} {share:.0%}" for name, share in row["shares"].items()]
    return (
        f"auto:{row['name']}" if budget else row["name"],
        f"{row['accuracy']:.3f}",
        "{:.3f} {:.3f}".format(*row["accuracy_ci95"]),
        f"{row['p50_latency_ms'] / 1000:.1f}",
        f"{row['p95_latency_ms'] / 1000:.1f}",
        f"{row['mean_energy_j']:,.0f}",
        f"{100 * row['mean_cost_usd']:.4f}",
        ", ".join(shares) if budget else "",
    )


def _pair(row: Row, against: Row) -> tuple[str, ...]:
    return (
        f"auto:{row['name']} against {against['single']}",
        f"{against['delta_accuracy']:+.3f}",
        "{:+.3f} {:+.3f}".format(*against["delta_ci95"]),
        f"{against['energy_ratio']:.0%}",
        f"{against['p95_latency_ratio']:.0%}",
        "",
    )


def _short(value: Any) -> float:
    """Five significant digits."""
    return float(f"{float(value):.5g}")
