"""The page and the picture of ``results.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from coe.services.report.canvas import BLUE, GREY, SKY, VERMILLION, drawing, figure_of, picture_of

HERE = Path(__file__).parent
_COLOURS = {"pinned": BLUE, "routed": SKY, "sglang-router": GREY, "litellm": VERMILLION}
_SAID = {"pinned": "coe, pinned", "routed": "coe, routed", "litellm": "LiteLLM proxy"}
_AT_ONCE = (1, 16, 64, 256)

_ABOUT = """\
# What the gateway costs

Ours (pinned: the request names its expert; routed: by the shipped artefact), LiteLLM's proxy,
sglang-router, and no gateway, in front of one stub that answers at once with 64 tokens. All
gateways share one core and take turns within one run; load and stub share another. Every answer is
checked. Figures are medians of the repeats.

`python benchmarks/gateway/bench.py` measures anew and writes this page. The others get environments
of their own by uv, in a cache folder in the system's temporary directory; who cannot be installed
is left out.
""".splitlines()

_BELOW = """\
The limit of the stack is its server alone (an ASGI application that sends the body back) and its
client alone (the gateway's own, against the stub), in series: `1 / (1/a + 1/b)`. By CPU: the same
of what a request takes, which neighbours on a busy machine disturb less. Who would take longer
than four seconds to answer so many at once is not asked, and has no figure.
""".splitlines()

_INSIDE = """\
## Where the CPU goes

Inside the gateway, without sockets, with an expert that answers at once (`inside.py`): the least of
forty rounds, shared out by a profiler. `smollm2-135m` is pinned, `auto` routed. The rest is layers:
watching, front, access, admission, the disconnect, and what belongs to no part.
""".splitlines()

Cells = dict[str, dict[str, dict[str, float]]]


def bars(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Each promise of speed, what was measured of it, and whether it is kept."""
    cells: Cells = result["cells"]
    pinned = _best(cells, "pinned")
    pinned_ms, routed_ms = (_least(cells, name) for name in ("pinned", "routed"))
    rows: list[tuple[str, str, bool]] = []
    if "litellm" in cells["whole, 16 at once"]:
        times, by_cpu = pinned / _best(cells, "litellm"), _least(cells, "litellm") / pinned_ms
        said = f"{times:.1f}; {by_cpu:.1f} by CPU"
        rows.append(("requests a second over LiteLLM's, at least 20", said, times >= 20))
        cell = cells["whole, 50 a second (open loop)"]
        direct = cell["direct"]["p99_ms"]
        added, theirs = (cell[n]["p99_ms"] - direct for n in ("pinned", "litellm"))
        times = theirs / max(added, 1e-3)
        said = f"{times:.0f} ({added:.2f} ms against {theirs:.1f} ms)"
        rows.append(("LiteLLM's added p99 over ours, 50 a second, at least 20", said, times >= 20))
    if "sglang-router" in cells["whole, 16 at once"]:
        share, by_cpu = (
            pinned / _best(cells, "sglang-router"),
            _least(cells, "sglang-router") / pinned_ms,
        )
        said = f"{share:.2f}; {by_cpu:.2f} by CPU"
        rows.append(("requests a second over sglang-router's, at least 0.33", said, share >= 1 / 3))
    limit, alone_ms = composite(result), result["client_alone_64_at_once"]["cpu_ms_per_request"]
    share, by_cpu = pinned / limit, (_least(cells, "echo") + alone_ms) / pinned_ms
    said = f"{share:.2f} of {limit:,.0f}; {by_cpu:.2f} by CPU"
    rows.append(("requests a second over the limit of the stack, at least 0.5", said, share >= 0.5))
    more_ms = routed_ms - pinned_ms
    rows.append(
        ("CPU that routing adds to a request, at most 3 ms", f"{more_ms:.2f} ms", more_ms <= 3)
    )
    n = max(row["pinned"]["chunks_per_cpu_s"] for cell, row in cells.items() if "paced" in cell)
    rows.append(("chunks a second, each read by itself, at least 20,000", f"{n:,.0f}", n >= 20_000))
    cell = cells["whole, 100 a second (open loop)"]
    for name, most_ms in (("pinned", 15), ("routed", 40)):
        added = cell[name]["p99_ms"] - cell["direct"]["p99_ms"]
        what = f"added p99 at 100 a second, {name}, at most {most_ms} ms"
        rows.append((what, f"{added:.2f} ms", added <= most_ms))
    return [(what, said, "yes" if kept else "no") for what, said, kept in rows]


def composite(result: dict[str, Any]) -> float:
    """Requests a second of server and client of this stack in series, with nothing between them."""
    echo = _best(result["cells"], "echo")
    return 1 / (1 / echo + 1 / result["client_alone_64_at_once"]["requests_per_s"])


def _best(cells: Cells, name: str) -> float:
    found = [cells[f"whole, {n} at once"].get(name) for n in _AT_ONCE]
    return max(row["requests_per_s"] for row in found if row)


def _least(cells: Cells, name: str) -> float:
    """CPU milliseconds of a request where it takes least."""
    found = [cells[f"whole, {n} at once"].get(name) for n in _AT_ONCE]
    return min(row["cpu_ms_per_request"] for row in found if row)


def page(result: dict[str, Any]) -> str:
    """The README."""
    machine, cells = result["machine"]["before"], result["cells"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    before_s, after_s = (result["machine"][when]["fixed_loop_s"] for when in ("before", "after"))
    client_per_s = result["client_alone_64_at_once"]["requests_per_s"]
    lines = [
        *_ABOUT,
        "",
        f"{machine['cores']} cores, Python {machine['python']}. A fixed loop took {before_s} s",
        f"before and {after_s} s after (0.08 on a quiet core). {result['note']}",
        "",
        f"Versions: {versions}.",
        *(f"\n{name} is missing: {why}" for name, why in result["missing"].items()),
        "",
        "![Requests a second, and CPU of one request](gateway.png)",
        "",
        "| promise | measured | kept |",
        "|---|---|---|",
        *(f"| {what} | {said} | {kept} |" for what, said, kept in bars(result)),
        "",
        *_BELOW,
        "",
        f"The client alone: {client_per_s:,.0f} requests a second.",
    ]
    for title, unit, figure, form in (
        ("Requests a second", "requests/s", "requests_per_s", "{:,.0f}"),
        ("Latency, p50", "ms", "p50_ms", "{:.2f}"),
        ("Latency, p99", "ms", "p99_ms", "{:.2f}"),
        ("CPU of a request, all processes of the gateway", "ms", "cpu_ms_per_request", "{:.3f}"),
        ("Share of requests refused for there being too many", "share", "refused", "{:.3f}"),
        ("Streamed chunks a second of CPU", "chunks/s", "chunks_per_cpu_s", "{:,.0f}"),
    ):
        lines += ["", f"## {title}", "", *_table(cells, unit, figure, form)]
    lines += ["", *_INSIDE, "", *_inside()]
    memory = ", ".join(f"{name} {mb:,.0f} MB" for name, mb in result["rss_mb_after"].items())
    lines += ["", f"Memory after the load: {memory}.", "", f"Command: `{result['command']}`"]
    return "\n".join(lines) + "\n"


def _inside() -> list[str]:
    found = json.loads((HERE / "inside.json").read_text())
    models = list(found)
    rows = [f"| microseconds | {' | '.join(models)} |", "|---|" + "---|" * len(models)]
    for part in found[models[0]]:
        rows.append(f"| {part} | {' | '.join(str(found[m][part]) for m in models)} |")
    return rows


def _table(cells: Cells, unit: str, figure: str, form: str) -> list[str]:
    names = list(dict.fromkeys(name for cell in cells.values() for name in cell))
    rows = [
        f"| {unit} | {' | '.join(_SAID.get(n, n) for n in names)} |",
        "|---|" + "---|" * len(names),
    ]
    for cell, found in cells.items():
        values = [
            form.format(found[n][figure]) if figure in found.get(n, {}) else "" for n in names
        ]
        if any(values):
            rows.append(f"| {cell} | {' | '.join(values)} |")
    return rows


def draw(result: dict[str, Any]) -> None:
    """``gateway.png`` and ``gateway.svg``."""
    cells: Cells = result["cells"]
    with drawing():
        figure = figure_of(2.5, 6.6)
        left, right = figure.subplots(1, 2)
        for name, colour in _COLOURS.items():
            if name not in cells["whole, 1 at once"]:
                continue
            asked = [n for n in _AT_ONCE if name in cells[f"whole, {n} at once"]]
            rows = [cells[f"whole, {n} at once"][name] for n in asked]
            label = _SAID.get(name, name)
            for ax, of in ((left, "requests_per_s"), (right, "cpu_ms_per_request")):
                ax.plot(
                    asked,
                    [row[of] for row in rows],
                    "o-",
                    color=colour,
                    ms=3,
                    lw=1.2,
                    label=label,
                )
        for ax, title in ((left, "requests a second"), (right, "CPU of a request, ms")):
            ax.set(xscale="log", yscale="log", xlabel="requests at once", title=title)
            ax.set_xticks(_AT_ONCE)
            ax.xaxis.set_minor_locator(NullLocator())
            ax.yaxis.set_major_locator(LogLocator())
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.axhline(composite(result), color=GREY, lw=0.8, ls=":")
        left.annotate(
            "limit of the stack", (1, composite(result)), fontsize=7, va="bottom", color=GREY
        )
        handles, labels = right.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncol=4, frameon=False, fontsize=7
        )
        picture = picture_of("gateway", figure)
    (HERE / "gateway.png").write_bytes(picture.png)


def main() -> None:
    """Write page and picture."""
    result = json.loads((HERE / "results.json").read_text())
    draw(result)
    (HERE / "README.md").write_text(page(result))


if __name__ == "__main__":
    main()
