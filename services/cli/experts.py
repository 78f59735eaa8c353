"""The verbs of ``coe experts`` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from coe.services.cli.console import ConfigOption, JsonOption, errors_explained
from coe.switches import Switch

experts_app = typer.Typer(help="Switch experts of a running gateway off, or force them.")

UrlOption = Annotated[str | None, typer.Option(help="A running gateway; else the configured one.")]


@experts_app.command("list")
def show(config: ConfigOption = None, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Every expert: how it is, how it is switched, whether it is local, whether it is shared."""
    from coe.services.cli.switching import show_experts

    with errors_explained():
        show_experts(config, url, as_json)


@experts_app.command()
def switch(
    expert: Annotated[str, typer.Argument(help="An expert's id.")],
    to: Annotated[
        Switch,
        typer.Argument(help="ban: it gets no request; force: it takes part in every answer; on."),
    ],
    config: ConfigOption = None,
    url: UrlOption = None,
) -> None:
    """Switch an expert, from the next request on and until the gateway ends."""
    from coe.services.cli.switching import turn

    with errors_explained():
        turn(config, url, expert, to)
