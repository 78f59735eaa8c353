"""Draw results.json: what each way of spending gets of the hindsight optimum, by budget.

python benchmarks/pacing/plot.py      # writes pacing.svg and pacing.png beside results.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BUDGETS = {"energy_j": "joules", "cost_usd": "dollars"}
LINES = {
    "kind greedy": ("#999999", "s--", "greedy, then the cheapest"),
    "fixed price": ("#d55e00", "^-", "one price, tuned in hindsight"),
    "descent, multiplicative": ("#e69f00", "v-", "dual descent, told the demand, step tuned"),
    "paced": ("#0072b2", "o-", "paced"),
    "paced, may decline": ("#009e73", "D:", "paced, may decline"),
}


def main() -> None:
    """Draw and write."""
    matplotlib.rcParams["svg.hashsalt"] = "coe"
    rows: list[dict[str, Any]] = json.loads((HERE / "results.json").read_text())["scenarios"]
    windows = sorted({row["window_s"] for row in rows})
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(len(windows), len(BUDGETS), sharex=True, sharey=True)
    for window_s, line in zip(windows, panels, strict=True):
        for (budget, unit), axes in zip(BUDGETS.items(), line, strict=True):
            own = [r for r in rows if r["budget"] == budget and r["window_s"] == window_s]
            levels = [100 * row["level"] for row in own]
            for name, (colour, style, label) in LINES.items():
                shares = [100 * row["policies"][name]["of_bound"] for row in own]
                axes.plot(levels, shares, style, color=colour, ms=5, lw=1.4, label=label)
            axes.axhline(95, color="black", lw=0.6, ls=":")
            axes.set_title(f"{unit}, windows of {window_s / 60:.0f} min", fontsize=10)
            axes.set_ylim(0, 103)
            axes.grid(alpha=0.25)
    for axes in panels[-1]:
        axes.set_xlabel("budget, % of what unlimited spending takes")
    for axes in panels[:, 0]:
        axes.set_ylabel("expected quality, % of the bound")
    figure.legend(
        *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    figure.savefig(HERE / "pacing.svg", metadata={"Date": None})
    figure.savefig(HERE / "pacing.png", dpi=130)


if __name__ == "__main__":
    main()
