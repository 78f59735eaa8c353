"""``coe plan``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import typer
from rich.table import Table

from coe.budgets import load_policies
from coe.config import Config
from coe.core import Policy
from coe.errors.callers import UnknownExpertError
from coe.errors.files import PlanError
from coe.explain import round_up
from coe.foresight import Foresight, Limits
from coe.optimizer.optimize import Method
from coe.optimizer.problem import Aggregation
from coe.plan import MODES, Certificate, Plan, PlannedCategory, PlannedStep
from coe.planning import plan
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.services.cli.console import configuration, notes, print_json, results, say, tell
from coe.services.embedding import configured

_SHOWN = 12  # steps of a staircase on a screen


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of the verb."""

    policy: str
    outcomes: Path | None
    split: str
    aggregation: str
    k: int | None
    mean_energy_j: float | None
    mean_cost_usd: float | None
    method: str
    time_limit_s: float | None


def run(
    wish: Wish,
    config_path: Path | None,
    artefact_path: Path | None,
    budgets_path: Path | None,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Plan, write the plan and its picture, print it; exit code 1 when nothing fits.

    Raises
    ------
    ConfigError, OutcomesError, ArtefactError
        A file is wrong.
    RequestError
        The policy does not exist.
    PlanError
        What is asked for cannot be planned.
    ReportError
        The picture needs a package that is not installed, or cannot be written.
    """
    config = configuration(config_path, quiet=True)
    policies = load_policies(budgets_path or config.budgets, config.specs)
    if wish.policy not in policies:
        raise UnknownExpertError(
            f"no policy {wish.policy!r}; there are {', '.join(policies)}", "budget"
        )
    specs = list(config.specs.values())
    router = Router.load(artefact_path or config.artefact, specs, configured(config.embedder))
    with notes.status("planning"):
        foresight = _foresight(wish, config, router, policies[wish.policy])
        try:
            found = plan(foresight, _one_of(Method, "method", wish.method), wish.time_limit_s)
        except ValueError as error:
            raise PlanError(f"{wish.method}: {error}") from error
    fits = found.certificate is not None
    if out is not None and fits:
        found.save(out)
        say(f"wrote {out}")
    if plot is not None and fits:
        _draw(found, plot)
    if as_json:
        print_json(found.document())
    else:
        _print(found)
    if not fits:
        raise typer.Exit(1)


def _foresight(wish: Wish, config: Config, router: Router, policy: Policy) -> Foresight:
    limits = Limits(
        energy_j=wish.mean_energy_j,
        cost_usd=wish.mean_cost_usd,
        memory_gb={expert.id: expert.memory_gb for expert in config.computing},
        nodes={expert.id: expert.node or "" for expert in config.computing},
        node_gb={name: node.memory_gb for name, node in config.nodes.items()},
    )
    if wish.aggregation == MODES:
        if wish.outcomes is not None or wish.k is not None:
            raise PlanError("modes are planned as the artefact has them: without --outcomes or --k")
        return Foresight.of_modes(router, policy, limits)
    aggregation: Aggregation = _one_of(Aggregation, "aggregation", wish.aggregation)
    if wish.outcomes is None:
        if aggregation != "best" or wish.k not in (None, 1):
            raise PlanError(
                f"{aggregation} of {wish.k or 'several'} experts is planned on recorded answers: "
                "give --outcomes, or plan best with --k 1"
            )
        return Foresight.of_table(router, policy, limits)
    outcomes = Outcomes.read(wish.outcomes)
    rows = outcomes.rows(outcomes.splits == wish.split)
    if aggregation in ("best", "sum"):
        raise PlanError(
            f"{aggregation} is planned on the artefact's table: leave out --outcomes, or choose "
            "--aggregation mixture, choose or likelihood"
        )
    return Foresight.of_outcomes(router, rows, policy, limits, aggregation, wish.k)


def _one_of(allowed: Any, option: str, value: str) -> Any:
    if value not in get_args(allowed):
        names = ", ".join((*get_args(allowed), *([MODES] if allowed is Aggregation else [])))
        raise PlanError(f"--{option} must be one of {names}, not {value!r}")
    return value


def _draw(found: Plan, path: Path) -> None:
    if path.suffix not in (".png", ".svg"):
        raise PlanError(f"{path}: a picture ends in .png or .svg")
    from coe.services.report import ReportError

    try:
        from coe.services.report.staircase import write_plan_picture
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ReportError("a picture needs Matplotlib: pip install 'coe-router[plots]'") from error
    say(f"wrote {write_plan_picture(found, path)}")


def _print(found: Plan) -> None:
    tell(f"{found.status}: policy {found.policy}, {found.aggregation}; {found.method}, {found.why}")
    if found.certificate is None:
        _print_shortfall(found)
        return
    _print_point(found, found.certificate)
    categories = _table("category", "share", "experts")
    for planned in found.categories:
        categories.add_row(planned.name, f"{planned.share:.0%}", _weighted(planned))
    results.print(categories)
    tell("\nwhat a mean of so many joules per request buys:")
    steps = _table("joules", "slowest", "dollars", "quality", "experts")
    stairs = found.staircases["energy_j"]
    shown = _evenly(stairs)
    for step in shown:
        steps.add_row(*_figures(step))
    results.print(steps)
    if len(stairs) > len(shown):
        tell(f"{len(shown)} of {len(stairs)} steps, evenly by quality (--json has all)")


def _evenly(stairs: Sequence[PlannedStep]) -> list[PlannedStep]:
    """Some steps of a staircase, the first and the last among them, about equally far apart."""
    if len(stairs) <= _SHOWN:
        return list(stairs)
    low, high = stairs[0].quality, stairs[-1].quality
    wanted = [low + (high - low) * k / (_SHOWN - 1) for k in range(_SHOWN - 1)]
    found = [next(step for step in stairs if step.quality >= quality) for quality in wanted]
    return [*dict.fromkeys(found), stairs[-1]]


def _print_shortfall(found: Plan) -> None:
    if found.status == "unknown":
        tell("found nothing that fits, and no proof that nothing does")
        return
    enough = {name: value for name, value in found.needed.items() if value is not None}
    remedy = " or ".join(f"{name} {round_up(value):g}" for name, value in enough.items())
    tell(
        f"nothing fits {found.binding or 'all of it'}" + (f": {remedy} would do" if remedy else "")
    )


def _print_point(found: Plan, certificate: Certificate) -> None:
    tell(
        f"quality {found.quality:.4f} for {_joules(found.energy_j)} J and {found.cost_usd:.2g} USD "
        f"per request, {found.latency_ms:,.0f} ms in the slowest category"
    )
    paid = abs(certificate.lower - found.quality) > 1e-6
    value = f"{certificate.lower:.4f} once that is paid for" if paid else "that"
    bound = "proved to be the most"
    if found.status != "optimal":
        bound = f"where no more than {certificate.upper:.4f} is possible"
    tell(f"{value}, {bound} ({certificate.nodes} looked at in {certificate.solve_ms:.1f} ms)")
    if found.binding is not None:
        tell(f"binding: {found.binding}, {found.slack.get(found.binding, 0.0):.3g} left of it")
    for node, names in found.resident.items():
        if node or len(found.resident) > 1:
            tell(f"resident on {node or 'no node'}: {', '.join(names)}")


def _weighted(planned: PlannedCategory) -> str:
    if planned.mode is not None:
        return planned.mode.name
    if len(planned.experts) == 1:
        return str(planned.experts[0])
    pairs = zip(planned.experts, planned.weights, strict=True)
    return ", ".join(f"{name} {weight:.0%}" for name, weight in pairs)


def _joules(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 1000 else f"{amount:.3g}"


def _figures(step: PlannedStep) -> tuple[str, ...]:
    return (
        _joules(step.energy_j),
        f"{step.latency_ms:,.0f} ms",
        f"{step.cost_usd:.2g}",
        f"{step.quality:.3f}",
        "; ".join(dict.fromkeys(step.modes)) or ", ".join(step.experts),
    )


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        justify: Any = "left" if heading in ("category", "experts") else "right"
        table.add_column(heading, justify=justify)
    return table
