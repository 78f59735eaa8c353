"""``coe simulate``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from rich.progress import Progress
from rich.table import Table

from coe.budgets import load_budgets
from coe.config import Config
from coe.core import Policy
from coe.errors.callers import UnknownExpertError
from coe.errors.files import PlanError, SimulationError
from coe.foresight import Foresight, Limits
from coe.offers import Offers
from coe.permitted import permitted
from coe.plan import Plan
from coe.planning import plan
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.services.cli.console import (
    configuration,
    notes,
    print_json,
    progress_bar,
    results,
    say,
    tell,
)
from coe.services.embedding import configured
from coe.services.trace import read_trace
from coe.simulation.arms import ARMS, missing
from coe.simulation.comparison import Comparison, compare
from coe.simulation.figures import QUANTILES, Figures
from coe.simulation.setting import Budgeting, Demand, Setting
from coe.yamlfile import Name, Section, read_yaml

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Wish:
    """The options of the verb that say what is simulated."""

    outcomes: Path
    split: str
    artefact: Path | None
    trace: Path | None
    lengths: bool
    rate_per_s: float | None
    n_requests: int
    replicas: Sequence[str]
    fleet: Path | None
    policies: Sequence[str]
    plan: Path | None
    budget: str
    budgets: Path | None
    seed: int


class FleetFile(Section):
    """A file of replicas by expert."""

    replicas: dict[Name, Annotated[int, Field(gt=0)]]


def run(
    wish: Wish,
    config_path: Path | None,
    out: Path | None,
    plot: Path | None,
    speedup: bool,
    as_json: bool,
) -> None:
    """Simulate every policy, print them side by side, write the result and its picture.

    Raises
    ------
    ConfigError, OutcomesError, ArtefactError, PlanError
        A file is wrong.
    SimulationError
        What is asked for cannot be simulated, or a trace cannot be read.
    RequestError
        A policy, a budget policy or an expert does not exist.
    ReportError
        The picture needs a package that is not installed, or cannot be written.
    """
    # before minutes of simulation, not after
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise SimulationError(f"{plot}: a picture ends in .svg, .png or .pdf")
    if out is not None and not out.absolute().parent.is_dir():
        raise SimulationError(f"{out}: cannot be written: there is no such folder")
    config = configuration(config_path, quiet=True)
    with notes.status("reading prompts"):
        setting = _setting(wish, config)
    names = _names(wish, setting.budgeting)
    with progress_bar() as bar:
        found = compare(setting, names, wish.seed, _follow(bar, names, wish.n_requests))
    said = document(found, wish)
    if out is not None:
        _write(said, out)
        say(f"wrote {out}")
    if plot is not None:
        _draw(found, plot)
    if as_json:
        print_json(said)
    else:
        _print(found, speedup)
    for warning in found.warnings:
        say(f"warning: {warning}")


def document(found: Comparison, wish: Wish) -> dict[str, Any]:
    """The comparison as plain values, numbers rounded to six digits."""
    setting = found.setting
    outlook, workload = setting.outlook, setting.workload
    return {
        "dataset": wish.outcomes.stem,
        "split": wish.split,
        "n_prompts": len(outlook.categories),
        "n_requests": workload.n_requests,
        "rate_per_s": _rounded(workload.rate_per_s),
        "arrivals": "poisson" if wish.trace is None else wish.trace.name,
        "lengths": "outcomes" if workload.output_tokens is None else "trace",
        "seed": wish.seed,
        "budget": setting.budgeting.policy.name,
        "best_single": setting.expert_ids[setting.best_single],
        "fleet": {
            spec.id: {"replicas": int(n), "slots": int(each), "device": spec.profile.name}
            for spec, n, each in zip(
                outlook.specs, outlook.replicas, outlook.slots_each, strict=True
            )
        },
        "policies": [
            {
                **{name: _rounded(value) for name, value in asdict(arm).items()},
                "events_per_s": _rounded(arm.events_per_s),
                "times_real_time": _rounded(arm.times_real_time),
            }
            for arm in found.arms
        ],
        "warnings": list(found.warnings),
    }


def _setting(wish: Wish, config: Config) -> Setting:
    trace = None if wish.trace is None else read_trace(wish.trace)
    outcomes = Outcomes.read(wish.outcomes)
    router = Router.load(wish.artefact or config.artefact, embedder=configured(config.embedder))
    # as configured today; those that are not, as they were when trained
    specs = {name: config.specs.get(name, spec) for name, spec in router.specs.items()}
    router = replace(router, specs=specs)
    budgets = load_budgets(wish.budgets or config.budgets, {**config.specs, **specs})
    policies = budgets.as_policies()
    if wish.budget not in policies:
        raise UnknownExpertError(
            f"no policy {wish.budget!r}; there are {', '.join(policies)}", "budget"
        )
    policy = policies[wish.budget]
    able = permitted(list(specs), specs, policy)
    planned = replace(router, specs={name: specs[name] for name in able})
    if several := _several(router, policy):
        say(f"remark: {several}")
    return Setting.of(
        router,
        outcomes,
        wish.split,
        _replicas(wish),
        Demand(wish.n_requests, wish.rate_per_s, trace, wish.lengths),
        Budgeting(policy, budgets.as_allowances(), _offers(wish, config, planned, policy)),
        np.random.default_rng(wish.seed),
    )


def _several(router: Router, policy: Policy) -> str:
    """What is left out where `coe serve` may ask several experts; empty where it asks one."""
    if router.repertoire is None or policy.combine == "never" or policy.most_experts == 1:
        return ""
    which = "" if policy.combine == "always" else " for answers that are not streamed"
    return f"one expert answers each request here; `coe serve` may ask several{which}"


def _offers(wish: Wish, config: Config, router: Router, policy: Policy) -> Offers | None:
    """Of the plan that is named, else of the configured one, else of one made for the policy."""
    if not any(name.startswith("plan") for name in wish.policies or ARMS):
        return None
    path = wish.plan or config.plan
    found = None if path is None else Plan.load(path)
    try:
        return _offered(found or plan(Foresight.of_table(router, policy, Limits())), policy)
    except PlanError as error:
        if wish.policies:
            raise
        say(f"remark: no plan is compared: {error}")
        return None


def _offered(found: Plan, policy: Policy) -> Offers:
    if found.certificate is None:
        raise PlanError(f"nothing fits policy {policy.name!r}")
    offers = Offers.of(found)
    if absent := sorted(policy.force - set(offers.experts)):
        raise PlanError(f"policy {policy.name!r} forces {', '.join(absent)}, not kept by the plan")
    return offers


def _replicas(wish: Wish) -> Mapping[str, int]:
    found = {} if wish.fleet is None else dict(read_yaml(wish.fleet, FleetFile).replicas)
    for pair in wish.replicas:
        name, _, count = pair.rpartition("=")
        if not name or not count.isdecimal() or int(count) < 1:
            raise SimulationError(
                f"--replicas must be EXPERT=NUMBER with a positive number, not {pair!r}"
            )
        found[name] = int(count)
    return found


def _names(wish: Wish, budgeting: Budgeting) -> Sequence[str]:
    """The policies asked for; all that can be had where none was."""
    return list(dict.fromkeys(wish.policies)) or [n for n in ARMS if not missing(n, budgeting)]


def _follow(bar: Progress, names: Sequence[str], n_requests: int) -> Any:
    tasks = {name: bar.add_task(name, total=n_requests, start=False) for name in names}
    begun = set[str]()

    def follow(name: str, n: int) -> None:
        if name not in begun:
            begun.add(name)
            bar.start_task(tasks[name])
        bar.advance(tasks[name], n)

    return follow


def _write(said: dict[str, Any], path: Path) -> None:
    staging = path.with_name(path.name + ".new")
    try:
        staging.write_text(json.dumps(said, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        staging.replace(path)
    except OSError as error:
        raise SimulationError(f"{path}: cannot be written: {error}") from error


def _draw(found: Comparison, path: Path) -> None:
    from coe.services.report import ReportError

    try:
        from coe.services.report.fleets import write_fleets_picture
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ReportError("a picture needs Matplotlib: pip install 'coe-router[plots]'") from error
    say(f"wrote {write_fleets_picture(found.arms, path)}")


def _print(found: Comparison, speedup: bool) -> None:
    workload, policy = found.setting.workload, found.setting.budgeting.policy
    tell(
        f"{workload.n_requests:,} requests, {workload.rate_per_s:.3g} a second, of "
        f"{len(found.setting.outlook.categories)} prompts; budget policy {policy.name}"
    )
    results.print(_table(found.arms))
    tell(
        "score: refused requests count 0; p50 to p99: seconds from arrival to the end of the "
        "answer; over: answers that took more than a ceiling; busy: slots of the busiest expert"
    )
    if speedup:
        for arm in found.arms:
            tell(
                f"{arm.policy}: {arm.events_per_s:,.0f} events/s, "
                f"{arm.times_real_time:,.0f} times real time"
            )
    for arm in found.arms:
        for one in arm.periods:
            tell(
                f"{arm.policy}: period {one.name} ({one.resource}): {one.n_over} of "
                f"{one.n_windows} windows over, the fullest at {one.fullest:.0%}"
            )


def _table(arms: Sequence[Figures]) -> Table:
    columns: dict[str, list[str]] = {
        "policy": [arm.policy for arm in arms],
        "score": [f"{arm.quality:.3f}" for arm in arms],
        "95 %": ["{:.2f} {:.2f}".format(*arm.quality_ci95) for arm in arms],
        **{name: [_figure(arm.latency_ms[name], 1000.0) for arm in arms] for name in QUANTILES},
        "J": [_figure(arm.energy_j) for arm in arms],
        "USD": [_figure(arm.cost_usd) for arm in arms],
        "over": [f"{arm.n_violations / arm.n_requests:.1%}" for arm in arms],
        "refused": [f"{arm.n_refused / arm.n_requests:.1%}" for arm in arms],
        "busy": [f"{arm.utilisation[arm.busiest] or 0.0:.0%}" for arm in arms],
    }
    if not any(arm.cost_usd for arm in arms):
        del columns["USD"]
    table = Table(box=None, pad_edge=False)
    for heading in columns:
        table.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _figure(value: float | None, unit: float = 1.0) -> str:
    if value is None:
        return ""
    return f"{value / unit:,.0f}" if value >= 1000 * unit else f"{value / unit:.3g}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(part) for part in value]
    return value
