"""Draw premise.json and sets.json, and write their tables into README.md.

python benchmarks/optimizer/report.py      # premise.svg, sets.svg and the tables between markers
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from coe.services.report.canvas import (
    BLUE,
    GREY,
    SKY,
    SMALL,
    VERMILLION,
    drawing,
    figure_of,
    picture_of,
)
from coe.services.report.picture import Picture

HERE = Path(__file__).parent
GATES = {"constant": GREY, "linear": VERMILLION, "per expert": BLUE}
GATE_NAMES = {
    "constant": "constant gate",
    "linear": "linear gate",
    "per expert": "logits per expert",
}
AGGREGATIONS = ("likelihood", "mixture", "choose", "likelihood, top 2", "mixture, top 2")
ARMS = {
    "two-step map": (VERMILLION, "-"),
    "shared set, choose": (BLUE, "-"),
    "price per prompt": (SKY, "-"),
    "shared set, mixture of 2": (BLUE, ":"),
    "lot": (GREY, ":"),
}
ARM_NAMES = {"lot": "two single experts by lot"}
PANELS = {
    "openllm 18, equal mean joules": ("openllm 18", "energy_j", "mean"),
    "openllm 18, equal worst-case joules": ("openllm 18", "energy_j", "worst"),
    "openllm 18, equal mean dollars": ("openllm 18", "cost_usd", "mean"),
    "mmlupro chat, equal mean joules": ("mmlupro chat", "energy_j", "mean"),
}


def main() -> None:
    """Draw, and put the tables in their places."""
    measured = json.loads((HERE / "premise.json").read_text())
    premise = measured["pools"]
    sets = json.loads((HERE / "sets.json").read_text())["pools"]
    with drawing():
        pictures = premise_picture(premise), sets_picture(sets)
    for picture in pictures:
        (HERE / f"{picture.name}.svg").write_text(picture.svg)
    readme = (HERE / "README.md").read_text()
    for name, table in {
        "counterexample": counterexample_table(measured["counterexample"]),
        "preservation": preservation_table(premise),
        "eps": eps_table(premise),
        "properties": properties_table(premise),
        "informed": informed_table(premise),
        "sets": sets_table(sets),
        "budgets": budgets_table(sets, "openllm 18", "mean"),
        "worst": budgets_table(sets, "openllm 18", "worst"),
    }.items():
        before, after = readme.split(f"<!-- {name} -->\n")
        readme = (
            f"{before}<!-- {name} -->\n{table}\n<!-- end -->{after.split('<!-- end -->', 1)[1]}"
        )
    (HERE / "README.md").write_text(readme)


def premise_picture(pools: dict[str, Any]) -> Picture:
    """Left the preservation gap, right the share of added experts that lower a set's value."""
    figure = figure_of(4.5, 7.2)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for y, name in enumerate(reversed(pools)):
        for k, (gate, colour) in enumerate(GATES.items()):
            gap = pools[name]["preservation"][gate]["training objective"]
            at = y + 0.22 * (1 - k)
            left.plot([max(gap["least"], 0), gap["most"]], [at, at], color=colour, linewidth=1.6)
            left.plot([gap["mean"]], [at], "o", color=colour, markersize=4.5)
    left.set_yticks(range(len(pools)), [*reversed(pools)])
    left.set_xlabel("nats lost by restricting the gate\n(mean and range over sets)")
    rows = [(pool, name) for pool in pools for name in AGGREGATIONS][::-1]
    for y, (pool, name) in enumerate(rows):
        for gate, colour in GATES.items():
            found = pools[pool]["properties"][f"trained: {gate}"][name]
            right.plot([100 * found["falls"]], [y], "o", color=colour, markersize=4, alpha=0.85)
    right.set_yticks(range(len(rows)), [f"{p}: {n}" for p, n in rows], fontsize=7)
    for edge in range(len(AGGREGATIONS), len(rows), len(AGGREGATIONS)):
        right.axhline(edge - 0.5, color=GREY, linewidth=0.5)
    right.set_xlabel("% of the ways to add an expert\nthat lower the value of the set")
    for gate, colour in GATES.items():
        left.plot([], [], "o-", color=colour, markersize=4.5, label=GATE_NAMES[gate])
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return picture_of("premise", figure)


def sets_picture(pools: dict[str, Any]) -> Picture:
    """Points over the best single expert of every budget, with 95 % intervals."""
    figure = figure_of(5.6, 7.2)
    for (title, (pool, axis, limit)), ax in zip(
        PANELS.items(), figure.subplots(2, 2).ravel(), strict=True
    ):
        _panel(ax, pools[pool]["axes"][axis][limit]["budgets"])
        ax.set_title(title, fontsize=8.5, loc="left")
    figure.supxlabel("budget, % of what the dearest expert uses", fontsize=8)
    figure.supylabel("points over the best single expert of the budget, dev", fontsize=8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return picture_of("sets", figure)


def _panel(ax: Axes, rows: list[dict[str, Any]]) -> None:
    ax.axhline(0, color=GREY, linewidth=0.8)
    for k, (name, (colour, line)) in enumerate(ARMS.items()):
        if name in rows[0]["arms"]:
            over = [row["arms"][name]["over single"] for row in rows]
            places = [x + 0.13 * (k - 2) for x in range(len(rows))]
            gains = [100 * at["gain"] for at in over]
            label = ARM_NAMES.get(name, name)
            ax.plot(places, gains, line, color=colour, linewidth=1, alpha=0.6)
            ax.plot(places, gains, "o", color=colour, markersize=3)
            ax.plot([], [], line, marker="o", color=colour, markersize=3, label=label)
            for x, at in zip(places, over, strict=True):
                ax.plot([x, x], [100 * bound for bound in at["ci95"]], color=colour, linewidth=0.7)
    ticks = [f"{100 * row['budget']:.2g}" for row in rows]
    ax.set_xticks(range(len(rows)), ["100" if t == "1e+02" else t for t in ticks], fontsize=SMALL)


def counterexample_table(found: dict[str, Any]) -> str:
    """Gate and loss for all three experts and for two of them."""
    rows = [
        [name, ", ".join(f"{share:.3f}" for share in at["gate"]), f"{at['loss']:.4f}"]
        for name, at in found.items()
    ]
    return _table(["experts", "gate", "loss, nats"], rows)


def preservation_table(pools: dict[str, Any]) -> str:
    """What training anew gains over restricting, in nats and in points of `choose`."""
    rows = []
    for pool, found in pools.items():
        for gate, gaps in found["preservation"].items():
            nats, points = (gaps["held out"][name] for name in ("nats", "points, choose"))
            rows.append(
                [
                    pool,
                    gate,
                    _spread(gaps["training objective"], ".3f"),
                    _spread(nats, ".3f"),
                    _spread(points, "+.1f"),
                ]
            )
            other = gaps.get("held out, linear gate trained anew")
            if other:
                nats, points = other["nats"], other["points, choose"]
                against = f"{gate}, beside a linear gate trained anew"
                rows.append([pool, against, "", _spread(nats, ".3f"), _spread(points, "+.1f")])
    head = [
        "pool",
        "gate",
        "training objective, nats",
        "held out, nats",
        "held out, choose, points",
    ]
    return _table(head, rows)


def eps_table(pools: dict[str, Any]) -> str:
    """The training gap for other probabilities of a right answer where the score is 0."""
    rows = [
        [pool, eps, *(_spread(gates[gate]["training objective"], ".3f") for gate in GATES)]
        for pool, found in pools.items()
        for eps, gates in found.get("other eps", {}).items()
    ]
    return _table(["pool", "eps", *GATES], rows)


def properties_table(pools: dict[str, Any]) -> str:
    """Violation rates of trained gates."""
    return _properties({pool: found["properties"] for pool, found in pools.items()}, "trained: ")


def informed_table(pools: dict[str, Any]) -> str:
    """Violation rates of gates that know the truth of simulated experts."""
    known = pools["simulated"]["properties"]
    return _properties(
        {"simulated": {k: v for k, v in known.items() if not k.startswith("trained: ")}}, ""
    )


def _properties(pools: dict[str, Any], prefix: str) -> str:
    rows = []
    for pool, gates in pools.items():
        for gate, found in gates.items():
            if gate.startswith(prefix):
                cells = [
                    f"{_percent(at['falls'])} / {_percent(at['rises'])} / "
                    f"{_percent(at['rises_closed'])}"
                    for at in (found[name] for name in AGGREGATIONS)
                ]
                rows.append([pool, gate.removeprefix(prefix), *cells])
    return _table(["pool", "gate", *AGGREGATIONS], rows)


def sets_table(pools: dict[str, Any]) -> str:
    """Per pool, axis and arm how often it is ahead or behind, and by how much."""
    rows = []
    for pool, found in pools.items():
        for axis, limits in found["axes"].items():
            for limit, at in limits.items():
                unit = "joules" if axis == "energy_j" else "dollars"
                for arm, said in at["summary"].items():
                    if arm != "single":
                        rows.append([pool, f"{limit} {unit}", arm, *_said(said)])
    head = ["pool", "budget", "arm", "over the best single expert: ahead / behind / budgets"]
    head += ["points, mean (least to most)", "over the lot: ahead / behind", "points, mean"]
    return _table([*head, "budget used, mean / most", "best single matched from"], rows)


def _said(said: dict[str, Any]) -> list[str]:
    over, lot, enough = said["over single"], said.get("over lot"), said["matches_best_single_from"]
    least, most = 100 * over["gain_least"], 100 * over["gain_most"]
    return [
        f"{over['ahead']} / {over['behind']} / {said['n_budgets']}",
        f"{100 * over['gain_mean']:+.1f} ({least:+.1f} to {most:+.1f})",
        f"{lot['ahead']} / {lot['behind']}" if lot else "",
        f"{100 * lot['gain_mean']:+.1f}" if lot else "",
        f"{100 * said['used_mean']:.0f} % / {100 * said['used_most']:.0f} %",
        "never" if enough is None else f"{100 * enough:.0f} %",
    ]


def budgets_table(pools: dict[str, Any], pool: str, limit: str) -> str:
    """Every budget of one pool: the single expert's score, and what each arm gains over it."""
    rows = []
    for row in pools[pool]["axes"]["energy_j"][limit]["budgets"]:
        arms = {name: arm for name, arm in row["arms"].items() if name != "single"}
        rows.append(
            [
                f"{100 * row['budget']:.0f} %",
                f"{row['arms']['single']['score']:.3f}",
                *(_gain(arm["over single"]) for arm in arms.values()),
            ]
        )
    return _table(["budget", "best single", *arms], rows)


def _gain(over: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in over["ci95"])
    certain = "**" if low > 0 or high < 0 else ""
    return f"{certain}{100 * over['gain']:+.1f}{certain} [{low:+.1f}, {high:+.1f}]"


def _spread(gaps: dict[str, float], form: str) -> str:
    # without the sign of a zero
    shown = [format(round(gaps[name], 3) + 0.0, form) for name in ("mean", "most")]
    return ", ".join("0" if not float(text) else text for text in shown)


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.1f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
