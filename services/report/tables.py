"""The tables of a report, as HTML text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from coe.evaluation import ArmResult, Evaluation
from coe.services.report.arms import COST, ENERGY, LATENCY, PARAMS, Axis, kind_of
from coe.services.report.labels import clean
from coe.services.report.verdict import verdict

_ORDER = ("coe", "baseline", "single", "oracle")
_VERDICTS = {"above": "above", "noise": "within noise", "below": "below"}
_COLUMNS: tuple[tuple[Axis, str], ...] = (
    (COST, "USD per 1,000 prompts"),
    (ENERGY, "J per prompt"),
    (LATENCY, "s per prompt"),
    (PARAMS, "active B"),
)


def text(name: str) -> str:
    """``name`` as it may stand in HTML, in an element or in a quoted attribute."""
    return escape(clean(name), quote=True)


def table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], label: str, classes: Sequence[str] = ()
) -> str:
    """A table that scrolls by itself; the first cell of each row heads it.

    Cells are text and are escaped here. ``classes`` has one for each row, or is empty.
    """
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in heading)
    lines = []
    for k, (first, *cells) in enumerate(rows):
        attribute = f' class="{text(classes[k])}"' if classes else ""
        body = "".join(f"<td>{text(cell)}</td>" for cell in cells)
        lines.append(f'<tr{attribute}><th scope="row">{text(first)}</th>{body}</tr>')
    return (
        f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody></table></div>"
    )


def arms_table(evaluation: Evaluation) -> str:
    """Every arm: this project's, then plainer routers, experts and oracles, each by score.

    Columns without any known figure are left out.
    """
    ids = evaluation.expert_ids
    arms = sorted(
        evaluation.arms,
        key=lambda arm: (_ORDER.index(kind_of(arm, ids)), arm.name != "coe", -arm.score),
    )
    axes = [pair for pair in _COLUMNS if any(pair[0].of(arm) is not None for arm in arms)]
    refusing = any(arm.refused > 0 for arm in arms)
    heading = ["arm", "score", "95 % interval", "to best single", "95 % interval", "verdict"]
    heading += [words for _, words in axes]
    heading += ["oracle gap closed", *(["refused"] if refusing else [])]
    rows = []
    for arm in arms:
        row = [arm.name, f"{arm.score:.3f}", _between(arm.ci95, "")]
        row += [f"{arm.delta_best_single:+.3f}", _between(arm.delta_ci95, "+")]
        row += [_judged(arm, evaluation.best_single)]
        row += [_number(axis.of(arm)) for axis, _ in axes]
        row += ["" if arm.oracle_gap_closed is None else f"{100 * arm.oracle_gap_closed:.0f} %"]
        row += [f"{100 * arm.refused:.1f} %"] if refusing else []
        rows.append(row)
    return table(heading, rows, "all arms", [kind_of(arm, ids) for arm in arms])


def categories_table(evaluation: Evaluation) -> str:
    """Every category: who is best in it, and whom arm ``coe`` asks."""
    found, ids = evaluation.categories, evaluation.expert_ids
    single = ids.index(evaluation.best_single)
    rows = []
    for i in sorted(range(len(found.names)), key=lambda i: -int(found.n[i])):
        best, asked = int(found.scores[i].argmax()), int(found.chosen[i].argmax())
        share = float(found.chosen[i, asked])
        rows.append(
            [
                found.names[i],
                str(found.n[i]),
                ids[best],
                f"{found.scores[i, best]:.3f}",
                f"{found.scores[i, single]:.3f}",
                f"{ids[asked]} ({100 * share:.0f} %)" if share > 0 else "nobody",
            ]
        )
    heading = ("category", "prompts", "best here", "score", "best single", "coe mostly asks")
    return table(heading, rows, "all categories")


def names_table(pairs: Sequence[tuple[str, str]]) -> str:
    """Names as the pictures shorten them, and in full."""
    return table(("in the pictures", "in full"), pairs, "shortened names")


def _number(value: float | None) -> str:
    """Three significant digits, never in powers of ten unless tiny."""
    if value is None:
        return "unknown"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _between(bounds: tuple[float, float], sign: str) -> str:
    low, high = bounds
    return f"{low:{sign}.3f} to {high:{sign}.3f}"


def _judged(arm: ArmResult, single: str) -> str:
    return "(itself)" if arm.name == f"always {single}" else _VERDICTS[verdict(arm)]
