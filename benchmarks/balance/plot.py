"""Draw results.json, and put its figures into README.md.

python benchmarks/balance/plot.py      # writes balance.svg and the tables of README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin: written by plot.py -->\n", "<!-- end: written by plot.py -->\n"
COLOURS = ("#999999", "#e69f00", "#d55e00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2")
DRAWN = ("all alike", "one of 8 takes 4 times as long", "one of 3 takes 4 times as long")


def main() -> None:
    """Draw and write."""
    document = json.loads((HERE / "results.json").read_text())
    draw(document["scenarios"])
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    (HERE / "README.md").write_text(before + BEGIN + figures(document) + END + after)


def draw(rows: list[dict[str, Any]]) -> None:
    """The 99th percentile by load."""
    matplotlib.rcParams["svg.hashsalt"] = "coe"
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(DRAWN), sharey=True)
    for name, axes in zip(DRAWN, panels, strict=True):
        own = [row for row in rows if row["scenario"] == name]
        for colour, policy in zip(COLOURS, own[0]["policies"], strict=True):
            p99_s = [row["policies"][policy]["p99_s"] for row in own]
            loads = [100 * row["load"] for row in own]
            axes.semilogy(loads, p99_s, "o-", color=colour, ms=4, lw=1.4, label=policy)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("load, %")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("99th percentile of latency, s")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8
    )
    figure.savefig(HERE / "balance.svg", metadata={"Date": None})


def figures(document: dict[str, Any]) -> str:
    """Tables, as Markdown."""
    rows, machine, speed = document["scenarios"], document["machine"], document["speed"]
    names = list(rows[0]["policies"])
    lines = []
    for quantile, title in (("p50_s", "Median"), ("p99_s", "99th percentile")):
        lines.append(
            f"{title} of the latency of answers, in seconds; in brackets, over that of the last:"
        )
        table = [
            [
                row["scenario"],
                f"{100 * row['load']:.0f} %",
                *(
                    f"{row['policies'][name][quantile]:g} ({row['of_ours'][name][quantile]:g})"
                    for name in names
                ),
            ]
            for row in rows
        ]
        lines += _table(["replicas", "load", *names], table)
    lines.append("Of all requests, in %, those that failed where one replica fails at once:")
    failing = [row for row in rows if "fails" in row["scenario"]]
    table = [
        [f"{100 * r['load']:.0f} %", *(f"{100 * r['policies'][n]['failed']:.1f}" for n in names)]
        for r in failing
    ]
    lines += _table(["load", *names], table)
    lines.append("Microseconds of a pick, and of the beginning and end of a request:")
    several = {name: taken for name, taken in speed.items() if "replicas" in name}
    head = ["", "pick", "pick, one draining", "begin and end"]
    lines += _table(head, [[name, *map(str, taken.values())] for name, taken in several.items()])
    numbers = speed["two random numbers"]
    lines += [
        f"Two random numbers take {numbers['standard_library_us']} us of the standard library, "
        f"{numbers['numpy_us']} us of NumPy ({numbers['numpy_integers_us']} us as integers).",
        "",
        f"The run took {document['took_s']:.0f} s on {machine['cores']} cores that others used too "
        f"(load {machine['load_average']:.1f}; fixed loop {machine['fixed_loop_s']} s; Python "
        f"{machine['python']}).",
        "",
    ]
    return "\n".join(lines)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


if __name__ == "__main__":
    main()
