"""The verbs of ``coe keys`` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from coe.access.caller import Role
from coe.services.cli.console import ConfigOption, JsonOption, errors_explained

keys_app = typer.Typer(help="API keys: who may ask a gateway, for what, and how much per minute.")

RateOption = Annotated[float | None, typer.Option(min=0.001, help="Ceiling per minute.")]


@keys_app.command()
def create(
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    tenant: Annotated[str, typer.Option(help="Whose requests are made with it.")] = "",
    role: Annotated[
        Role, typer.Option(help="user asks experts, viewer reads what happens, admin does all.")
    ] = "user",
    models: Annotated[
        str | None, typer.Option(help="Experts that it may ask: a,b,c. By default all.")
    ] = None,
    overrides: Annotated[
        bool,
        typer.Option(
            "--overrides/--no-overrides", help="May it choose experts and modes, or policies only?"
        ),
    ] = True,
    expires: Annotated[
        str | None, typer.Option(help="90d, 12h, or a time such as 2027-01-31T00:00Z.")
    ] = None,
    requests_per_minute: RateOption = None,
    tokens_per_minute: RateOption = None,
    joules_per_minute: RateOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key, and show it this once."""
    from coe.services.cli.keys_table import make

    wish = {
        "name": name,
        "tenant": tenant,
        "role": role,
        "models": models.split(",") if models else None,
        "overrides": overrides,
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "joules_per_minute": joules_per_minute,
    }
    with errors_explained():
        make(config, wish, expires, as_json)


@keys_app.command("list")
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """All keys, without their secrets, which nobody knows."""
    from coe.services.cli.keys_table import show

    with errors_explained():
        show(config, as_json)


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as in `coe keys list`.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a key back for good; gateways that run follow within a second."""
    from coe.services.cli.keys_table import take_back

    with errors_explained():
        take_back(config, key_id, as_json)
