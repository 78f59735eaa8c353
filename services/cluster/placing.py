"""Where a fleet runs the experts of its plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from coe.config import Config
from coe.errors.files import PlanError
from coe.fleet import NODE_LABEL
from coe.kinds import HttpSection
from coe.optimizer.place import PlacementResult, place
from coe.plan import Plan
from coe.replica import Deployment
from coe.siting import Site, siting


@dataclass(frozen=True, slots=True)
class Sites:
    """The nodes of every expert, and how that was found."""

    of: Mapping[str, tuple[Site, ...]]
    result: PlacementResult


def sites(config: Config, rate_per_s: float) -> Sites:
    """Where the residents of the configured plan go, for so many requests per second.

    Everybody stays in memory: a fleet does not load on demand.

    Raises
    ------
    PlanError
        There is no plan, there are no nodes, the rate is infinite, or the experts do not fit; the
        message says what would do.
    """
    if not math.isfinite(rate_per_s):
        raise PlanError(f"rate must be a finite number of requests per second, not {rate_per_s}")
    if config.plan is None:
        raise PlanError("placing experts needs a plan: make one with `coe plan`, name it in plan:")
    plan = Plan.load(config.plan)
    hosted = [e.id for e in config.computing if not isinstance(e, HttpSection)]
    copies = {e.id: e.replicas.min for e in config.computing}
    asked = siting(plan, config, rate_per_s, set(hosted) & set(plan.experts), copies)
    found = place(replace(asked.problem, switch_s=None))
    if found.placement is None:
        needed = {asked.named_limit(n): v for n, v in found.needed.items() if v is not None}
        would = " or ".join(f"{name}={value:.3g}" for name, value in needed.items())
        would = would or "no larger node alone"
        raise PlanError(f"the experts do not fit on the nodes: {would} would do")
    return Sites(asked.named(found.placement), found)


def placed(deployments: Sequence[Deployment], where: Sites) -> list[Deployment]:
    """The deployments of placed experts, each for its nodes, with as many copies at least."""
    return [
        _placed(d, [site.node for site in where.of[d.expert_id]])
        for d in deployments
        if d.expert_id in where.of
    ]


def _placed(deployment: Deployment, nodes: Sequence[str]) -> Deployment:
    name = nodes[0] if len(nodes) == 1 else f"in({','.join(sorted(nodes))})"
    least = max(deployment.least, len(nodes))
    return replace(
        deployment,
        labels={**deployment.labels, NODE_LABEL: name},
        least=least,
        most=max(deployment.most, least),
    )
