"""Draw results.json of bench.py, and write its tables into README.md.

python benchmarks/optimizer/solvers.py     # solvers.svg and the tables between markers
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from coe.services.report.canvas import (
    BLUE,
    DARK,
    GREY,
    RUST,
    SKY,
    VERMILLION,
    drawing,
    figure_of,
    picture_of,
)
from coe.services.report.picture import Picture

HERE = Path(__file__).parent
LINES = {
    "branch": ("branch-reduce-and-bound", BLUE, "-"),
    "enumeration": ("enumeration", SKY, "-"),
    "greedy": ("greedy, with bound", DARK, ":"),
    "milp, highs": ("HiGHS", VERMILLION, "-"),
    "milp, cbc": ("CBC", VERMILLION, ":"),
    "polyblock": ("polyblock", GREY, "-"),
}
PANELS = ("5 categories, 15%", "5 categories, 40%", "20 categories, 15%", "20 categories, 40%")
CASE = re.compile(r"(\d+) experts, (\d+ categories, \d+%)")


def main() -> None:
    """Draw, and put the tables in their places."""
    found = json.loads((HERE / "results.json").read_text())
    with drawing():
        picture = solvers_picture(found["solvers"])
    (HERE / "solvers.svg").write_text(picture.svg)
    readme = (HERE / "README.md").read_text()
    for name, table in {
        "enumeration": enumeration_table(found),
        "kernels": kernels_table(found["kernels"]),
        "solvers": solvers_table(found["solvers"]),
    }.items():
        before, after = readme.split(f"<!-- {name} -->\n")
        after = after.split("<!-- end -->", 1)[1]
        readme = f"{before}<!-- {name} -->\n{table}\n<!-- end -->{after}"
    (HERE / "README.md").write_text(readme)


def solvers_picture(rows: list[dict[str, Any]]) -> Picture:
    """Milliseconds over experts, a panel for each number of categories and ceiling."""
    figure = figure_of(5.4, 7.2)
    for panel, ax in zip(
        PANELS, figure.subplots(2, 2, sharex=True, sharey=True).ravel(), strict=True
    ):
        _panel(ax, rows, panel)
        ax.set_title(f"{panel} of all joules", fontsize=8.5, loc="left")
    figure.supxlabel("experts", fontsize=8)
    figure.supylabel("milliseconds to the end, median of 5 (a cross: some not proved)", fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return picture_of("solvers", figure)


def _panel(ax: Axes, rows: list[dict[str, Any]], panel: str) -> None:
    for method, (name, colour, line) in LINES.items():
        mine = []
        for row in rows:
            case = CASE.match(row["instance"])
            if case and case[2] == panel and row["method"] == method:
                mine.append((int(case[1]), row["median_ms"], row["proved"] == row["of"]))
        x, y, proved = zip(*mine, strict=True)
        ax.plot(x, y, line, color=colour, linewidth=1.3, label=name)
        for at, ms, sure in mine:
            ax.plot([at], [ms], "o" if sure else "x", color=colour, markersize=3.5)
        assert proved
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.axhline(10, color=RUST, linewidth=0.6, linestyle=(0, (4, 4)))


def enumeration_table(found: dict[str, Any]) -> str:
    """Enumeration, and what a request costs."""
    lines = ["| what | time |", "| --- | --- |"]
    for name, row in found["enumeration"].items():
        twin = f"; NumPy twin {row['twin_ms']:,.0f} ms" if "twin_ms" in row else ""
        lines.append(f"| {name} | {row['ms']:.1f} ms{twin} |")
    lines += [f"| {name} | {row['us']:.1f} us |" for name, row in found["online"].items()]
    return "\n".join(lines)


def kernels_table(rows: dict[str, Any]) -> str:
    """Every kernel beside its twin."""
    lines = ["| kernel | ms | twin, ms | times faster |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {row['ms']:.3f} | {row['twin_ms']:.1f} | {row['times_faster']:,.0f} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def solvers_table(rows: list[dict[str, Any]]) -> str:
    """Median milliseconds, a line for each instance and a column for each solver."""
    methods = [*LINES, "knapsack"]
    lines = [f"| instance | {' | '.join(methods)} |", "| --- " * (len(methods) + 1) + "|"]
    for instance in dict.fromkeys(row["instance"] for row in rows):
        cells = {row["method"]: _cell(row) for row in rows if row["instance"] == instance}
        lines.append(f"| {instance} | {' | '.join(cells.get(m, '') for m in methods)} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    ms = f"{row['median_ms']:.1f}"
    if row["proved"] == row["of"]:
        return ms
    return f"{ms} ({row['proved']}/{row['of']}, gap {row['largest_gap']:.3f})"


if __name__ == "__main__":
    main()
