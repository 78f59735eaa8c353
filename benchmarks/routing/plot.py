"""Draw results.json: per pool what each router gains over the best single expert.

python benchmarks/routing/plot.py      # writes routing.svg and routing.png beside results.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
PLAIN = ("knn", "direct classifier", "two-step", "two-step robust")
BLUE, GREY, ORANGE = "#0072b2", "#999999", "#d55e00"


def main() -> None:
    """Draw and write."""
    matplotlib.rcParams["svg.hashsalt"] = "coe"
    pools: dict[str, Any] = json.loads((HERE / "results.json").read_text())["pools"]
    names = list(pools)[::-1]
    figure = Figure(figsize=(8, 0.55 * len(names) + 1.6), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        arms = {arm["name"]: arm for arm in pools[name]["evaluation"]["arms"]}
        others = [100 * peer["delta_best_single"] for peer in pools[name]["peers"].values()]
        plain = [100 * arms[arm]["delta_best_single"] for arm in PLAIN if arm in arms]
        ours, (low, high) = arms["coe"]["delta_best_single"], arms["coe"]["delta_ci95"]
        axes.plot(others, [y - 0.18] * len(others), "o", ms=4, color=GREY, mfc="none")
        axes.plot(plain, [y - 0.18] * len(plain), "x", ms=5, color=ORANGE)
        axes.plot([100 * low, 100 * high], [y + 0.12] * 2, "-", lw=2, color=BLUE)
        axes.plot([100 * ours], [y + 0.12], "o", ms=7, color=BLUE)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(names)), [f"{n} ({pools[n]['n_experts']} experts)" for n in names])
    axes.set_xlabel("points gained over the best single expert of the training split, dev prompts")
    axes.set_xlim(left=max(axes.get_xlim()[0], -8))
    for marker, colour, fill, label in (
        ("o", BLUE, BLUE, "coe, 95 % interval"),
        ("x", ORANGE, ORANGE, "kNN, direct classifier, two-step"),
        ("o", GREY, "none", "published routers"),
    ):
        axes.plot([], [], marker, color=colour, mfc=fill, label=label)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=3, frameon=False, fontsize=8)
    figure.savefig(HERE / "routing.svg", metadata={"Date": None})
    figure.savefig(HERE / "routing.png", dpi=150)


if __name__ == "__main__":
    main()
