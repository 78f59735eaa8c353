"""``coe route``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from coe.budgets import load_policies
from coe.core import Budget, Message, Request
from coe.decision import Decision
from coe.errors.callers import UnknownExpertError
from coe.free import FreeSection, stock_of
from coe.mode import Kind
from coe.personal import as_wished, personal
from coe.services.cli.console import configuration, print_json, results, say, tell
from coe.services.draft import router_of
from coe.services.embedding import check_local, configured
from coe.services.mixable import served
from coe.services.personal import tenants_of
from coe.services.runnable import runnable
from coe.services.wire.chat import AUTO, decision_document


def run(
    prompt: str,
    policy: str,
    ceilings: Mapping[str, float | None],
    mode: Literal["auto", Kind] | None,
    k: int | None,
    tenant: str,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Print the decision for one prompt, whose answer is not streamed; no expert is started.

    Raises
    ------
    ConfigError, ArtefactError, PlanError
        The configuration, the artefact, a tenant's gate, the index or the plan is wrong, or no
        expert can run here.
    RequestError
        The policy does not exist, no expert fits the budget, or the mode cannot be had.
    EmbeddingError
        The configured endpoint gives no vectors.
    """
    config = configuration(config_path, quiet=True)
    policies = load_policies(config.budgets, config.specs)
    if policy not in policies:
        raise UnknownExpertError(f"no policy {policy!r}; there are {', '.join(policies)}", "budget")
    check_local(config.embedder, policies, config.tenants)
    stocks = {e.id: stock_of(e) for e in config.experts if isinstance(e, FreeSection)}
    specs = {section.id: served(section, config) for section in runnable(config, say)}
    specs |= {name: config.specs[name] for name in stocks}
    router = router_of(config, specs, configured(config.embedder), stocks)
    tenants = tenants_of(config, router.embedder)
    asked = Request(
        (Message("user", prompt),),
        policies[policy],
        Budget(**ceilings),
        mode=None if mode == AUTO else mode,
        most_experts=k,
        tenant=tenant,
    )
    decision = personal(router, tenants).decide(as_wished(asked, tenants))
    if as_json:
        print_json(decision_document(decision))
    else:
        _print(decision)


def _print(decision: Decision) -> None:
    """Why, and a row for everyone considered; verdicts stand below, so that rows stay short."""
    table = Table(box=None, pad_edge=False)
    table.add_column("expert", overflow="fold")
    for heading in ("quality", "first token", "answer", "energy", "cost"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = [(decision.selection.mode.name, decision.predicted, "chosen")]
    rows += [(other.expert_id, other.estimate, other.why_not) for other in decision.alternatives]
    for name, estimate, verdict in rows:
        table.add_row(
            Group(Text(name), Padding(Text(verdict, style="dim"), (0, 0, 0, 2))),
            f"{estimate.quality:.2f}",
            f"{estimate.ttft_ms:,.0f} ms",
            f"{estimate.latency_ms:,.0f} ms",
            f"{estimate.energy_j:.3g} J",
            f"${estimate.cost_usd:.2g}",
        )
    tell(decision.why)
    results.print(table)
