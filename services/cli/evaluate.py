"""``coe evaluate``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from coe.budgets import load_policies
from coe.config import Config
from coe.evaluation import ArmResult, Evaluation, evaluate
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.routers.retrieval_training import Lessons, curve, measured, paired
from coe.routers.train import embed_all
from coe.services.cli.console import configuration, notes, print_json, results, say, tell
from coe.services.draft import retriever_of
from coe.services.embedding import configured
from coe.services.report import GateCurve, write_report

_DIGITS = 5
_HIDDEN = ("oracle",)


def run(
    outcomes_path: Path,
    artefact_path: Path | None,
    split: str,
    report: Path | None,
    stored_params_b: float | None,
    seed: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Evaluate, write the report, and print every arm.

    Raises
    ------
    ConfigError, OutcomesError, ArtefactError
        A file is wrong, or the artefact's experts are not those of the table.
    ReportError
        The pictures need a package that is not installed.
    """
    config = configuration(config_path, quiet=True)
    folder = artefact_path or config.artefact
    outcomes = Outcomes.read(outcomes_path, answers=True)
    router = Router.load(folder, embedder=configured(config.embedder))
    # as configured today; those that are not, as they were when trained
    specs = {name: config.specs.get(name, spec) for name, spec in router.specs.items()}
    router = replace(router, specs=specs)
    with notes.status("evaluating") as status:
        found = evaluate(
            router,
            outcomes,
            outcomes_path.stem,
            split,
            load_policies(config.budgets, {**config.specs, **specs}),
            stored_params_b,
            seed,
            progress=status.update,
        )
    if report is not None:
        for path in write_report(found, report, _gate_curve(router, outcomes, split, config)):
            say(f"wrote {path}")
    for note in found.notes:
        say(f"note: {note}")
    if as_json:
        print_json(document(found))
    else:
        _print(found)


def document(found: Evaluation) -> dict[str, Any]:
    """The evaluation as plain values, numbers rounded to five digits."""
    return {
        "dataset": found.dataset,
        "n_prompts": found.n_prompts,
        "n_left_out": found.n_left_out,
        "best_single": found.best_single,
        "seed": found.seed,
        "n_resamples": found.n_resamples,
        "calibration_error": _rounded(found.calibration.error),
        "coverage": _rounded(found.coverage.chosen_covered),
        "notes": list(found.notes),
        "arms": [_row(arm) for arm in found.arms],
        "pareto": [{"axis": axis, "arms": names} for axis, names in found.pareto.items() if names],
        "ladder": [{k: _rounded(v) for k, v in asdict(rung).items()} for rung in found.ladder],
        "curves": {
            axis: [{k: _rounded(v) for k, v in asdict(point).items()} for point in points]
            for axis, points in found.curves.items()
        },
    }


def _gate_curve(router: Router, outcomes: Outcomes, split: str, config: Config) -> GateCurve | None:
    """What the artefact's gate does with the answers given with and without passages, if any."""
    artefact = router.artefact
    rows = outcomes.columns(artefact.expectation.expert_ids).rows(outcomes.splits == split)
    if artefact.gate is None or not paired(rows).any():
        return None
    X = embed_all(router.embedder, rows.prompts)
    found = artefact.category.assess(X)
    retriever = retriever_of(config.retrieval, router.embedder)
    index = None if retriever is None else retriever.index
    lessons = Lessons.of(rows, X, found.entropy, artefact.expectation.of(X, found).quality, index)
    figures, (share, score) = measured(artefact.gate, lessons), curve(artefact.gate, lessons)
    both = paired(rows)
    helps = float((rows.retrieved_scores > rows.scores)[both].mean())
    return GateCurve(
        share_retrieved=share,
        accuracy=score,
        never=figures["score_never"],
        always=figures["score_always"],
        oracle=(helps, figures["score_oracle"]),
        chosen=(figures["share_retrieved"], figures["score_gate"]),
    )


def _row(arm: ArmResult) -> dict[str, Any]:
    values = {name: value for name, value in asdict(arm).items() if name not in _HIDDEN}
    return {name: _rounded(value) for name, value in values.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        # significant digits: dollars per prompt are small
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, tuple):
        return [_rounded(part) for part in value]
    return value


def _print(found: Evaluation) -> None:
    tell(
        f"{found.dataset}: {found.n_prompts} prompts, best single expert {found.best_single}"
        + (f", {found.n_left_out} prompts without every score left out" if found.n_left_out else "")
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("arm", "score", "gain", "95 %", "USD", "J"):
        table.add_column(heading, justify="left" if heading == "arm" else "right", no_wrap=True)
    for arm in found.arms:
        table.add_row(
            arm.name,
            f"{arm.score:.3f}",
            f"{arm.delta_best_single:+.3f}",
            f"{arm.delta_ci95[0]:+.3f} {arm.delta_ci95[1]:+.3f}",
            _figure(arm.cost_usd),
            _figure(arm.energy_j),
        )
    results.print(table)
    tell("gain: over the best single expert of the training split, with its 95 % interval")
    tell(
        f"calibration error {found.calibration.error:.3f}, "
        f"{found.coverage.chosen_covered:.0%} of the prompts recognised"
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
