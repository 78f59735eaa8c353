"""Options that several verbs have, or that are long to tell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from coe.core import MOST_EXPERTS
from coe.mode import Kind

BudgetOption = Annotated[
    str, typer.Option("--budget", "-b", help="A policy of budgets.yaml: fast, eco, best, ...")
]
EnergyOption = Annotated[float | None, typer.Option(help="Ceiling in joules.")]
LatencyOption = Annotated[float | None, typer.Option(help="Ceiling in milliseconds.")]
CostOption = Annotated[float | None, typer.Option(help="Ceiling in US dollars.")]
ArtefactOption = Annotated[Path | None, typer.Option(help="By default the configured one.")]
BudgetsOption = Annotated[
    Path | None, typer.Option(help="A budgets.yaml; by default the configured one.")
]
PoliciesOption = Annotated[
    list[str] | None,
    typer.Option(
        help="best-single, single:EXPERT, random, round-robin, coe, auto, plan, auto+pacing, "
        "plan+pacing; may repeat. By default all that can be had."
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(help="CSV with TIMESTAMP, ContextTokens, GeneratedTokens; may be gzipped."),
]
TenantOption = Annotated[
    str, typer.Option(help="Whose request it is; by default nobody's with an expert of its own.")
]
ModeOption = Annotated[
    Literal["auto", Kind] | None,
    typer.Option(help="How several experts make one answer; by default the best way there is."),
]
KOption = Annotated[
    int | None,
    typer.Option("-k", "--k", min=1, max=MOST_EXPERTS, help="Most experts asked for the answer."),
]
PromptArgument = Annotated[str, typer.Argument(help="The prompt.")]
