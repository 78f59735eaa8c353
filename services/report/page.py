"""The report as one HTML page: no script, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from coe.evaluation import Evaluation
from coe.routers.frontier import cheapest
from coe.services.report.arms import COST, ENERGY, SPENT, Axis, best_single, named
from coe.services.report.curve import GateCurve
from coe.services.report.grids import Grid, category_labels, confusion_grid, expert_grid
from coe.services.report.labels import EXPERT_CHARS, NAME_CHARS, clean, labels
from coe.services.report.pareto import panels
from coe.services.report.picture import Picture
from coe.services.report.style import CSS
from coe.services.report.tables import arms_table, categories_table, names_table, text
from coe.services.report.verdict import headline, remarks, verdict

Pictures = Mapping[str, Picture]

_NO_SOURCE = {
    "cost_usd": "prices of every expert nor recorded dollars",
    "energy_j": "device profiles of every expert nor recorded joules",
    "latency_ms": "device profiles of every expert nor recorded times",
}


def page(evaluation: Evaluation, pictures: Pictures, gate_curve: GateCurve | None = None) -> str:
    """The whole page.

    Parameters
    ----------
    pictures : by name; a section whose picture is absent says why.
    """
    title = f"Routing on {text(evaluation.dataset)}"
    sections = (
        _verdict(evaluation),
        _pareto(evaluation, pictures),
        _arms(evaluation),
        _experts(evaluation, pictures),
        _calibration(evaluation, pictures),
        _confusion(evaluation, pictures),
        _coverage(evaluation, pictures),
        _retrieval(gate_curve, pictures),
        _limits(evaluation),
        _names(evaluation),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n" + "\n".join(sections) + "\n</main>\n</body>\n</html>\n"
    )


def _verdict(evaluation: Evaluation) -> str:
    ours = named(evaluation, "coe")
    facts = [
        ("table", evaluation.dataset),
        ("prompts", f"{evaluation.n_prompts:,}"),
        ("left out, not scored by every expert", f"{evaluation.n_left_out:,}"),
        ("experts", str(len(evaluation.expert_ids))),
        ("categories", str(len(evaluation.categories.names))),
        ("best single expert on the training rows", evaluation.best_single),
        ("resamples", f"{evaluation.n_resamples:,}"),
        ("seed", str(evaluation.seed)),
    ]
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in facts)
    return (
        f'<section class="{verdict(ours)}"><p class="verdict">{text(headline(evaluation))}</p>'
        + "".join(_p(sentence) for sentence in remarks(evaluation))
        + f"<dl>{listed}</dl></section>"
    )


def _pareto(evaluation: Evaluation, pictures: Pictures) -> str:
    found = {panel.axis: panel for panel in panels(evaluation)}
    said = []
    for axis in SPENT:
        if axis not in found:
            reason = (
                f"neither {_NO_SOURCE[axis.field]} are known"
                if all(axis.of(arm) is None for arm in evaluation.arms)
                else "no arm takes any"
            )
            said.append(f"Nothing is drawn against {axis.word}: {reason}.")
        elif found[axis].n_unknown:
            said.append(
                f"Against {axis.word} {_counted(found[axis].n_unknown, 'arm is', 'arms are')} "
                "missing: of some expert that they ask it is unknown."
            )
    said += [_saving(evaluation, axis) for axis in (COST, ENERGY)]
    caption = (
        "Up and to the left is better. Blue discs: arm coe and its policies, with 95 % intervals. "
        "Hollow squares: plainer routers. Grey discs: single experts; a dark rim marks the best "
        "on the training rows. Light blue line: routing at every price of the resource. Grey "
        "steps: the arms that no other beats for as little. Dashed: oracles, which know what no "
        "router can."
    )
    return _section(
        "Quality against what it takes",
        _figure(pictures, "pareto", "mean score against usage, every arm", caption),
        *(_p(sentence) for sentence in said if sentence),
    )


def _saving(evaluation: Evaluation, axis: Axis) -> str:
    """What the price curve says of the score of the best single expert."""
    single = best_single(evaluation)
    spent = axis.of(single)
    points = evaluation.curves.get(axis.field, ())
    if not spent or not points:
        return ""
    blend = cheapest(points, single.score)
    if blend is None:
        return f"At no price of {axis.word} does routing reach the best single expert."
    usage = axis.factor * blend.mean(blend.first.usage, blend.second.usage)
    return (
        "On the line of prices the score of the best single expert is had for "
        f"{100 * usage / spent:.0f} % of its {axis.word}. That place is picked on these very "
        "prompts: expect a little less."
    )


def _arms(evaluation: Evaluation) -> str:
    return _section(
        "Every arm",
        arms_table(evaluation),
        _p(
            "Intervals are of the mean over prompts, resampled in pairs; an arm is above or below "
            "the best single expert if the interval of its difference does not hold 0. An oracle "
            'gap closed of 100 % would be the score of "oracle prompt".'
        ),
        _p(
            "Dollars, joules and seconds are those of the outcome table where it has them. The "
            "others are reckoned from the length of the answer (recorded, else expected) with the "
            "prices and device profiles of the configuration. Unknown: neither is there for an "
            "expert that the arm asks."
        ),
    )


def _experts(evaluation: Evaluation, pictures: Pictures) -> str:
    grid = expert_grid(evaluation)
    caption = (
        "Mean score in per cent; the best expert overall and the largest category come first. "
        "Outlined: whose answers arm coe delivers most in the category."
    )
    return _section(
        "Experts by category",
        _figure(pictures, "experts", "mean score of each expert in each category", caption),
        _hidden(grid),
        _details("All categories", categories_table(evaluation)),
        _p(
            'Whoever is "best here" was found among all experts on these prompts: in a small '
            "category that is mostly luck."
        ),
    )


def _calibration(evaluation: Evaluation, pictures: Pictures) -> str:
    if "calibration" not in pictures:
        return _section("Calibration", _p("No expected score could be compared with a score."))
    caption = (
        "On the dashed line the router expects what comes out; below it, it expects too much. "
        "Larger discs and taller bars: more pairs of a prompt and an expert."
    )
    return _section(
        "Calibration",
        _figure(pictures, "calibration", "observed against expected score", caption),
        _p(
            "The expected calibration error, the mean gap between expected and observed scores, "
            f"is {evaluation.calibration.error:.3f}."
        ),
    )


def _confusion(evaluation: Evaluation, pictures: Pictures) -> str:
    found = evaluation.categories
    column = {name: k for k, name in enumerate(found.predicted)}
    own = [(i, column[name]) for i, name in enumerate(found.names) if name in column]
    if own:
        right = sum(float(found.n[i] * found.confusion[i, k]) for i, k in own)
        known = sum(int(found.n[i]) for i, _ in own)
        said = (
            f"Of the prompts whose category the router knows, {100 * right / max(known, 1):.0f} % "
            "are recognised as theirs."
        )
    else:
        said = (
            "The router's categories have other names than the table's: the rows show how they "
            "map onto each other."
        )
    caption = (
        "Per cent of each row's prompts. A prompt that the router does not recognise is "
        f'"{found.predicted[-1]}". Outlined: the category itself.'
    )
    return _section(
        "What prompts are taken for",
        _figure(pictures, "confusion", "categories of prompts as the router sees them", caption),
        _hidden(confusion_grid(found)),
        _p(said),
    )


def _coverage(evaluation: Evaluation, pictures: Pictures) -> str:
    caption = (
        "Prompts are ordered by the entropy of their category: those to the left of a threshold "
        'are routed by it, the rest get the averages of "general". A rising line says that the '
        "categories are worth following."
    )
    return _section(
        "How sure is sure enough",
        _figure(pictures, "coverage", "mean score against the share routed by category", caption),
        _p(
            f"With the artefact's thresholds {100 * evaluation.coverage.chosen_covered:.0f} % of "
            "the prompts are recognised. They also look at the distance to the training prompts, "
            "which the line does not: the mark may lie a little off what they score."
        ),
    )


def _retrieval(curve: GateCurve | None, pictures: Pictures) -> str:
    heading = "Retrieval"
    if curve is None:
        return _section(
            heading,
            _p(
                "The table has no outcomes with and without retrieval (columns score__EXPERT and "
                "retrieved_score__EXPERT of the same prompt), so there is nothing to show."
            ),
        )
    caption = (
        "The line retrieves for the most promising questions first; along the dashed one they are "
        "picked blindly. The oracle retrieves exactly where it helps."
    )
    said = (
        f"Never retrieving scores {curve.never:.3f}, always {curve.always:.3f}, the oracle "
        f"{curve.oracle[1]:.3f} by retrieving for {100 * curve.oracle[0]:.0f} %."
    )
    if curve.chosen is not None:
        said += (
            f" The gate scores {curve.chosen[1]:.3f} by retrieving for "
            f"{100 * curve.chosen[0]:.0f} %"
        )
        closed = curve.oracle_gap_closed
        said += "." if closed is None else f" and closes {100 * closed:.0f} % of the oracle's lead."
    return _section(
        heading,
        _figure(pictures, "retrieval", "accuracy against the share retrieved for", caption),
        _p(said),
    )


def _limits(evaluation: Evaluation) -> str:
    limits = [
        '"Oracle prompt" picks the best score of every prompt afterwards. Part of its lead is '
        "luck: the more experts, the more often one of them happens to be right. No router can "
        "close the whole gap, even a perfect one.",
        '"Oracle category" knows the true category of every prompt and asks the expert that the '
        "training rows name for it.",
        "The intervals cover which prompts were drawn, not another training, nor answers that "
        "come out differently when asked again. There is one for each arm: of twenty arms without "
        "any difference one is expected to look as if it had one.",
        "Curves are drawn over the prompts that they are judged on: a point picked from one "
        "promises too much.",
        "Arms are judged on an idle system, without queues and failures.",
    ]
    if evaluation.n_left_out:
        limits.append(
            f"{_counted(evaluation.n_left_out, 'prompt was', 'prompts were')} left out, because "
            "some expert has no score there. If those are the hard ones, all scores are too high."
        )
    if any(arm.refused > 0 for arm in evaluation.arms):
        limits.append(
            "A prompt that no expert fits the ceilings for is refused, scores 0 and takes nothing."
        )
    limits += [f"{note}." for note in evaluation.notes]
    items = "".join(f"<li>{text(limit)}</li>" for limit in limits)
    return _section("What this does not say", f"<ul>{items}</ul>")


def _names(evaluation: Evaluation) -> str:
    written = [
        labels(evaluation.expert_ids, EXPERT_CHARS),
        labels(evaluation.expert_ids, NAME_CHARS),
        category_labels(evaluation.categories),
    ]
    pairs = [
        (label, name) for found in written for name, label in found.items() if label != clean(name)
    ]
    if not pairs:
        return ""
    return _section("Names", _details("Shortened names", names_table(list(dict.fromkeys(pairs)))))


def _section(heading: str, *parts: str) -> str:
    return f"<section>\n<h2>{text(heading)}</h2>\n" + "\n".join(filter(None, parts)) + "</section>"


def _figure(pictures: Pictures, name: str, label: str, caption: str) -> str:
    if name not in pictures:
        return ""
    picture = pictures[name]
    return (
        f'<figure><div class="scroll picture" role="region" aria-label="{text(label)}" '
        f'tabindex="0">{picture.inline(label)}</div>'
        f"<figcaption>{text(f'{caption} {picture.note}')}</figcaption></figure>"
    )


def _hidden(grid: Grid) -> str:
    if not grid.n_hidden:
        return ""
    return _p(
        f"The picture shows the {len(grid.rows)} largest categories; "
        f"{_counted(grid.n_hidden, 'smaller one is', 'smaller ones are')} left out of it."
    )


def _details(summary: str, body: str) -> str:
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def _p(sentence: str) -> str:
    return f"<p>{text(sentence)}</p>"


def _counted(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
