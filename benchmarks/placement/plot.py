"""Draw results.json, and put its figures into README.md.

python benchmarks/placement/plot.py      # writes on_demand.svg and the tables of README.md
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin: written by plot.py -->\n", "<!-- end: written by plot.py -->\n"
STYLES = (
    ("#0072b2", "o-"),
    ("#56b4e9", "o--"),
    ("#009e73", "D:"),
    ("#d55e00", "s-"),
    ("#999999", "v--"),
)


def main() -> None:
    """Draw and write."""
    document = json.loads((HERE / "results.json").read_text())
    draw(document["on_demand"])
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    (HERE / "README.md").write_text(before + BEGIN + figures(document) + END + after)


def draw(rows: list[dict[str, Any]]) -> None:
    """Mean latency by memory, one panel for each load."""
    matplotlib.rcParams["svg.hashsalt"] = "coe"
    loads = [list(own) for _, own in groupby(rows, key=lambda row: row["calls"])]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = figure.subplots(1, len(loads), sharey=True)
    for own, axes in zip(loads, panels, strict=True):
        for (colour, style), name in zip(STYLES, own[0]["arms"], strict=True):
            memory = [100 * row["memory"] for row in own]
            mean_s = [row["arms"][name]["mean_s"] for row in own]
            axes.semilogy(memory, mean_s, style, color=colour, ms=4, lw=1.4, label=name)
        axes.set_title(f"{own[0]['calls']} requests an hour", fontsize=10)
        axes.set_xlabel("memory, % of all experts")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("mean latency, s")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    figure.savefig(HERE / "on_demand.svg", metadata={"Date": None})


def figures(document: dict[str, Any]) -> str:
    """Tables, as Markdown."""
    rows, machine = document["on_demand"], document["machine"]
    names = list(rows[0]["arms"])
    slowest = max(row["arms"][name]["us_per_request"] for row in rows for name in names)
    lines = ["### Placing", "", *_placing(document["placement"]), "### On demand", ""]
    said = {
        "mean_s": "Mean latency, in seconds:",
        "p95_s": "95th percentile, in seconds:",
        "loads_per_request": "Experts loaded per request:",
    }
    for figure, title in said.items():
        table = [
            [
                str(row["calls"]),
                f"{100 * row['memory']:.0f} %",
                *(f"{row['arms'][name][figure]:.3g}" for name in names),
            ]
            for row in rows
        ]
        lines += [title, *_table(["requests an hour", "memory", *names], table)]
    lines += [
        f"No policy takes more than {slowest:.0f} us of a request, the event loop included.",
        "",
        f"The run took {document['took_s']:.0f} s on {machine['cores']} cores that others used too "
        f"(load {machine['load_average']:.1f}; fixed loop {machine['fixed_loop_s']} s; Python "
        f"{machine['python']}).",
        "",
    ]
    return "\n".join(lines)


def _placing(rows: list[dict[str, Any]]) -> list[str]:
    """By size and room: how often each method ends how, its time, and the search over the best."""
    table = []
    for (n_nodes, n_experts, room), group in groupby(
        rows, key=lambda row: (row["nodes"], row["experts"], row["room"])
    ):
        own = [row["methods"] for row in group]
        best = [_least(methods) for methods in own]
        ratios = [
            methods["greedy"]["cost"] / least
            for methods, least in zip(own, best, strict=True)
            if least is not None and methods["greedy"]["cost"] is not None
        ]
        table.append(
            [
                f"{n_nodes} x {n_experts}",
                f"{100 * room:.0f} %",
                *(_ended(own, method) for method in ("milp", "milp-highs", "greedy")),
                f"{max(ratios):.3f}" if ratios and "milp" in own[0] else "",
                _percent([methods["greedy"]["gap"] for methods in own]),
            ]
        )
    head = ["nodes x experts", "memory", "CBC", "HiGHS", "search"]
    return _table([*head, "search over the best, worst", "gap that the search states"], table)


def _least(methods: dict[str, Any]) -> float | None:
    costs = [found["cost"] for found in methods.values() if found["cost"] is not None]
    return min(costs, default=None)


def _ended(own: list[dict[str, Any]], method: str) -> str:
    found = [methods[method] for methods in own if method in methods]
    if not found:
        return ""
    ends = [one["status"] for one in found]
    counts = ", ".join(f"{ends.count(end)} {end}" for end in dict.fromkeys(ends))
    return f"{counts}; {sorted(one['solve_ms'] for one in found)[len(found) // 2]:.0f} ms"


def _percent(gaps: list[float | None]) -> str:
    known = [100 * gap for gap in gaps if gap is not None]
    return f"{min(known):.1f} to {max(known):.1f} %" if known else ""


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


if __name__ == "__main__":
    main()
