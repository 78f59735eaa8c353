"""Verbs about one tenant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coe.services.cli.console import ConfigOption, JsonOption, errors_explained
from coe.services.cli.options import ArtefactOption


def personalise(
    tenant: Annotated[str, typer.Option(help="Whose gate it becomes.")],
    outcomes: Annotated[Path, typer.Option(help="The tenant's own outcome table (Parquet).")],
    expert: Annotated[str, typer.Option(help="The tenant's own expert, of coe.yaml.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the gate; by default the configured one, else TENANT.gate."),
    ] = None,
    artefact: ArtefactOption = None,
    node: Annotated[
        str | None,
        typer.Option(help="Node of coe.yaml where the gate is kept; the expert must be there."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn when a tenant's own expert is better than everybody's."""
    from coe.services.cli.personalise import Wish, run

    with errors_explained():
        run(Wish(tenant, expert, node), outcomes, out, artefact, config, as_json)
