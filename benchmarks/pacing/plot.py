"""Draw results.json, and put its figures into README.md.

python benchmarks/pacing/plot.py      # writes pacing.svg, pacing.png and the tables of README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

HERE = Path(__file__).parent
BUDGETS = {"energy_j": "joules", "cost_usd": "dollars"}
NAMES = BUDGETS | {
    "requests": "requests, may decline",
    "energy_j and cost_usd": "joules and dollars",
    "energy_j, nested tenants": "joules: code, conv, both",
}
LINES = {
    "kind greedy": ("#999999", "s--", "greedy, then the cheapest"),
    "fixed price": ("#d55e00", "^-", "one price, tuned in hindsight"),
    "descent": ("#e69f00", "v-", "dual descent, told the demand, step tuned"),
    "paced": ("#0072b2", "o-", "paced"),
    "paced, may decline": ("#009e73", "D:", "paced, may decline"),
}
BEGIN, END = "<!-- begin: written by plot.py -->\n", "<!-- end: written by plot.py -->\n"


def main() -> None:
    """Draw and write."""
    document = json.loads((HERE / "results.json").read_text())
    draw(document["scenarios"])
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    _, after = rest.split(END)
    (HERE / "README.md").write_text(before + BEGIN + figures(document) + END + after)


def draw(rows: list[dict[str, Any]]) -> None:
    """Expected quality by level, for budgets of one resource."""
    matplotlib.rcParams["svg.hashsalt"] = "coe"
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


def figures(document: dict[str, Any]) -> str:
    """Tables and counts, as Markdown."""
    rows, machine = document["scenarios"], document["machine"]
    fullest = document["summary"]["fullest_window_of_any_policy"]
    named = [NAMES[name] for name in document["speed"]]
    speed = [list(map(str, row.values())) for row in document["speed"].values()]
    lines = [
        "Expected quality in % of the bound:",
        *_shares(rows),
        *_bar(len(rows), document["summary"]),
        "Where pacing gets less than 95 %: what it gets when what it lacks is given to it, one",
        "thing after another, each with all before it. *Nothing held*: the hard stop books an",
        "answer's true use at once. *Reference*: the linear program that knows all requests, but",
        "of answers the expected length only; like the others in % of the bound.",
        *_regained([row for row in rows if row["regained"]]),
        "Recorded score in % of that of the bound's choices; % of the budgets that were spent, and",
        "% of the requests without an answer:",
        *_recorded(rows),
        f"Fullest window of any policy: {100 * fullest:.2f} % of its ceiling.",
        "",
        "Microseconds that the pacer takes of a request, of budgets at half of what unlimited",
        "spending takes in the whole trace:",
        *_table(
            ["budgets", "mean", "median", "p99"],
            [[name, *taken] for name, taken in zip(named, speed, strict=True)],
        ),
        f"The run took {document['took_s']:.0f} s on {machine['cores']} cores that others used too "
        f"(load {machine['load_average']:.1f}; fixed loop {machine['fixed_loop_s']} s; Python "
        f"{machine['python']}).",
        "",
    ]
    return "\n".join(lines)


def _shares(rows: list[dict[str, Any]]) -> list[str]:
    lines = [[*_named(r), *(_percent(p["of_bound"]) for p in r["policies"].values())] for r in rows]
    return _table(["budget", "window", "level", *rows[0]["policies"]], lines)


def _bar(n_scenarios: int, summary: dict[str, Any]) -> list[str]:
    n_hard = summary["where_kind_greedy_is_below_the_bar"]
    met, known = (
        summary[f"of_those_at_or_above_it{tail}"] for tail in ("", "_with_lengths_unknown")
    )
    return [
        f"Kind greedy gets less than 95 % of the bound in {n_hard} of {n_scenarios} scenarios. Of",
        "those, at or above 95 %:",
        *_table(
            ["", "of the bound", "of the reference that does not know the length of answers"],
            [[name, f"{met[name]} of {n_hard}", f"{known[name]} of {n_hard}"] for name in met],
        ),
    ]


def _regained(missed: list[dict[str, Any]]) -> list[str]:
    lines = [
        [
            *_named(row),
            _percent(row["policies"]["paced"]["of_bound"]),
            *map(_percent, row["regained"].values()),
            _percent(row["informed_bound"] / row["bound"]),
        ]
        for row in missed
    ]
    given = missed[0]["regained"] if missed else ()
    return _table(["budget", "window", "level", "paced", *given, "reference"], lines)


def _recorded(rows: list[dict[str, Any]]) -> list[str]:
    head = ["budget", "window", "level", "kind greedy", "paced", "may decline", "paced: spent"]
    head += ["no answer", "may decline: no answer"]
    return _table(head, [[*_named(row), *_realised(row["policies"])] for row in rows])


def _named(row: dict[str, Any]) -> list[str]:
    return [NAMES[row["budget"]], f"{row['window_s'] / 60:.0f} min", f"{100 * row['level']:.0f} %"]


def _realised(policies: dict[str, Any]) -> list[str]:
    paced, declines = policies["paced"], policies["paced, may decline"]
    scores = [_percent(p["of_hindsight_score"]) for p in (policies["kind greedy"], paced, declines)]
    spent = " / ".join(map(_percent, paced["spent"]))
    return [*scores, spent, _percent(paced["not_answered"]), _percent(declines["not_answered"])]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


if __name__ == "__main__":
    main()
