"""Draw results.json, and put its figures into README.md.

python benchmarks/simulation/plot.py      # writes fleets.svg, http.svg and the tables of README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin: written by plot.py -->\n", "<!-- end: written by plot.py -->\n"
MARKS = {
    "best-single": ("#666666", "s"),
    "random": ("#cc79a7", "v"),
    "round-robin": ("#e69f00", "^"),
    "coe": ("#56b4e9", "D"),
    "auto": ("#0072b2", "o"),
    "plan": ("#009e73", "P"),
}
AXES = {"mean_ms": "mean", "p50_ms": "p50", "p95_ms": "p95", "p99_ms": "p99"}


def main() -> None:
    """Draw and write."""
    matplotlib.rcParams.update({"svg.hashsalt": "coe", "svg.fonttype": "none"})
    document = json.loads((HERE / "results.json").read_text())
    draw_fleets(document["fleets"])
    draw_http(document["over_http"])
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    (HERE / "README.md").write_text(before + BEGIN + figures(document) + END + after)


def draw_fleets(scenarios: list[dict[str, Any]]) -> None:
    """Score against the 95 % quantile of latency and against joules, under the higher load."""
    most = max(one["load_of_best_single"] for one in scenarios)
    shown = [one for one in scenarios if one["load_of_best_single"] == most]
    figure = Figure(figsize=(8, 2.9 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 2, squeeze=False, sharey=True)
    for scenario, line in zip(shown, panels, strict=True):
        for arm in scenario["policies"]:
            colour, marker = MARKS[arm["policy"]]
            for axes, used in zip(line, (arm["latency_s"]["p95"], arm["energy_j"]), strict=True):
                axes.plot([used] * 2, arm["ci95"], color="#d2d2d2", lw=1.2, zorder=1)
                axes.plot(
                    used, arm["score"], marker, color=colour, ms=7, alpha=0.8, label=arm["policy"]
                )
        line[0].set(xlabel="95 % quantile of latency, s", ylabel="score")
        line[1].set_xlabel("joules per answer")
        line[0].set_title(
            f"{scenario['arrivals']}, {scenario['rate_per_s']:.0f} requests/s", fontsize=10
        )
        for axes in line:
            axes.margins(x=0.08, y=0.08)
            axes.grid(alpha=0.25)
    figure.axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(HERE / "fleets.svg", metadata={"Date": None})


def draw_http(rows: list[dict[str, Any]]) -> None:
    """Latencies measured and simulated, policy by policy."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
        for shift, (name, colour) in enumerate((("measured", "#999999"), ("simulated", "#0072b2"))):
            places = [k + 0.36 * shift for k in range(len(AXES))]
            values = [row[name][axis] / 1000.0 for axis in AXES]
            axes.bar(places, values, 0.34, color=colour, label=name)
        axes.set_xticks([k + 0.18 for k in range(len(AXES))], list(AXES.values()))
        axes.set_title(row["policy"], fontsize=10)
        axes.set_ylabel("s")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "http.svg", metadata={"Date": None})


def figures(document: dict[str, Any]) -> str:
    """The tables, as Markdown."""
    machine = document["machine"]
    parts = [
        f"{document['requests']:,} requests, {document['replicas']:,} replicas of "
        f"{document['slots_each']} slots. {machine['cores']} cores that others used too (load "
        f"{machine['load_average']:.1f}; fixed loop {machine['fixed_loop_s']} s); one thread.\n"
    ]
    parts += [fleet_table(scenario) for scenario in document["fleets"]]
    parts += [paced_table(document["paced"]), http_table(document["over_http"])]
    return "\n".join(parts)


def fleet_table(scenario: dict[str, Any]) -> str:
    """One scenario."""
    heading = (
        f"**{scenario['arrivals']}**, {scenario['rate_per_s']:.1f} requests/s "
        f"({scenario['load_of_best_single']:.0%} of what the best single expert can do):\n"
    )
    rows = [
        [
            arm["policy"],
            f"{arm['score']:.3f}",
            *(f"{arm['latency_s'][name]:.1f}" for name in ("mean", "p50", "p95", "p99")),
            f"{arm['wait_s']:.2f}",
            f"{arm['energy_j']:.0f}",
            f"{max(arm['utilisation'].values()):.0%}",
            f"{arm['events_per_s']:,}",
        ]
        for arm in scenario["policies"]
    ]
    columns = [
        "policy",
        "score",
        "mean s",
        "p50 s",
        "p95 s",
        "p99 s",
        "wait s",
        "J",
        "busiest",
        "events/s",
    ]
    return heading + "\n" + table(columns, rows)


def paced_table(arms: list[dict[str, Any]]) -> str:
    """Budgets over time."""
    rows = [
        [
            arm["policy"],
            f"{arm['score']:.3f}",
            f"{arm['energy_j']:.0f}",
            f"{arm['periods'][0][2]:.1%}",
            f"{arm['events_per_s']:,}",
        ]
        for arm in arms
    ]
    n = arms[0]["requests"]
    heading = (
        f"**Pacing**, {n:,} requests, joules for two windows at 70 % of what `auto` takes:\n\n"
    )
    return heading + table(["policy", "score", "J", "fullest window", "events/s"], rows)


def http_table(rows: list[dict[str, Any]]) -> str:
    """Simulated against measured."""
    cells = [
        [
            row["policy"],
            f"{row['requests']}",
            f"{row['rate_per_s']:.1f}",
            f"{row['waiting']:.0%}",
            f"{row['same_expert']:.1%}",
            *(f"{100 * row['off_by'][name]:+.1f} %" for name in (*AXES, "energy_j", "score")),
        ]
        for row in rows
    ]
    columns = [
        "policy",
        "requests",
        "a second",
        "waiting",
        "same expert",
        *AXES.values(),
        "J",
        "score",
    ]
    return "**Over HTTP**, simulated against measured:\n\n" + table(columns, cells)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
