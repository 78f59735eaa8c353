"""Draw results.json, and put its figures into README.md.

python benchmarks/personal/plot.py      # writes personal.svg and the tables of README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin: written by plot.py -->\n", "<!-- end: written by plot.py -->\n"
LINES = {
    "gate": ("#0072b2", "o-"),
    "gate that never declines": ("#56b4e9", "s--"),
    "always own": ("#d55e00", "^-"),
    "oracle": ("#999999", "v:"),
}
POOLS = {"gap": "everybody's experts lack the field", "whole": "everybody's experts are all others"}
TRAFFICS = {"one task": "prompts of one task", "half": "half of them of one task"}


def main() -> None:
    """Draw and write."""
    rows = json.loads((HERE / "results.json").read_text())["summary"]
    draw([row for row in rows if row["pool"] == "gap" and row["own_expert"].startswith("better")])
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    (HERE / "README.md").write_text(before + BEGIN + figures(rows) + END + after)


def draw(rows: list[dict[str, Any]]) -> None:
    """Points gained by prompts learned from, where the own expert is the better one."""
    matplotlib.rcParams["svg.hashsalt"] = "coe"
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(TRAFFICS), sharey=True)
    for (traffic, title), axes in zip(TRAFFICS.items(), panels, strict=True):
        own = [row for row in rows if row["traffic"] == traffic and row["reach"] == 100]
        sizes = [row["prompts"] for row in own]
        for name, (colour, style) in LINES.items():
            gains = [100 * row["gain"][name] for row in own]
            low, high = zip(*([100 * x for x in row["ci95"][name]] for row in own), strict=True)
            axes.plot(sizes, gains, style, color=colour, ms=5, lw=1.4, label=name)
            if name == "gate":
                axes.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0)
        axes.axhline(0, color="black", lw=0.6)
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_title(f"{title}, {own[0]['n_tenants']} tenants", fontsize=10)
        axes.set_xlabel("prompts learned from")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("points over the global router")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8
    )
    figure.savefig(HERE / "personal.svg", metadata={"Date": None})


def figures(rows: list[dict[str, Any]]) -> str:
    """A table for each pool, as Markdown."""
    lines = []
    for pool, said in POOLS.items():
        lines += [f"Where {said}:", ""]
        lines.append(
            "| traffic | own expert | tenants | prompts | gate | 95 % | never declining "
            "| always own | oracle | declined | surely better | surely worse |"
        )
        lines.append("| " + " | ".join(["---"] * 12) + " |")
        lines += [_line(row) for row in rows if row["pool"] == pool and _shown(row)]
        lines.append("")
    return "\n".join(lines)


def _shown(row: dict[str, Any]) -> bool:
    """Every size once: beyond a hundred prompts, of the tenants that have so many."""
    return (row["reach"] == 500) == (row["prompts"] > 100)


def _line(row: dict[str, Any]) -> str:
    gain = {name: f"{100 * value:+.1f}" for name, value in row["gain"].items()}
    low, high = (f"{100 * x:+.1f}" for x in row["ci95"]["gate"])
    cells = [
        TRAFFICS[row["traffic"]],
        row["own_expert"],
        row["n_tenants"],
        row["prompts"],
        gain["gate"],
        f"{low} to {high}",
        gain["gate that never declines"],
        gain["always own"],
        gain["oracle"],
        f"{100 * row['declined']:.0f} %",
        row["surely_better"],
        row["surely_worse"],
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
