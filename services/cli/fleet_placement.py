"""``coe fleet place``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from coe.services.cli.console import configuration, print_json, tell
from coe.services.cluster.placing import sites


def show(config_path: Path | None, rate_per_s: float, as_json: bool) -> None:
    """Print where the plan's experts would go.

    Raises
    ------
    ConfigError
        The configuration is wrong.
    PlanError
        As `coe.services.cluster.placing.sites`.
    """
    found = sites(configuration(config_path, quiet=as_json), rate_per_s)
    result = found.result
    if as_json:
        print_json(
            {
                "sites": {name: [asdict(site) for site in of] for name, of in found.of.items()},
                "status": result.status,
                "cost_ms_per_s": result.cost.total,
                "gap_ms_per_s": result.gap,
                "method": result.method,
                "why": result.why,
            }
        )
        return
    for name, of in found.of.items():
        where = ", ".join(f"{site.node} ({site.share:.0%})" for site in of)
        tell(f"{name}: {where}")
    proof = "proved best" if result.gap == 0 else f"at most {result.gap:.3g} ms/s from the best"
    tell(f"{result.cost.total:.3g} ms of answers a second, {proof} ({result.method}: {result.why})")
