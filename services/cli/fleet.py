"""The verbs of ``coe fleet`` and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from coe.services.cli.console import ConfigOption, JsonOption, errors_explained

fleet_app = typer.Typer(help="Run experts on a Ray cluster of many machines.")


@fleet_app.command()
def up(
    config: ConfigOption = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Make a cluster of this machine alone, until this command is ended."
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0, help="Place experts by the plan, for so many requests per second: `place`."
        ),
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for the experts.")
    ] = 120.0,
) -> None:
    """Start the supervisor, or tell it what coe.yaml says now; wait until the experts are ready."""
    from coe.services.cli.fleet_control import bring_up

    with errors_explained():
        bring_up(config, local, rate, wait_s)


@fleet_app.command()
def place(
    rate: Annotated[float, typer.Option(min=0, help="Requests per second.")] = 1.0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where the plan's experts would go: the least waiting that memory and slots of nodes allow."""
    from coe.services.cli.fleet_placement import show

    with errors_explained():
        show(config, rate, as_json)


@fleet_app.command()
def status(
    config: ConfigOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print it once, also on a terminal.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Every copy of every expert: where it is, how it is, how busy. Live on a terminal."""
    from coe.services.cli.fleet_control import show

    with errors_explained():
        show(config, once, as_json)


@fleet_app.command()
def scale(
    expert: Annotated[str, typer.Argument(help="An expert of the fleet.")],
    replicas: Annotated[str, typer.Argument(help="Number of copies, or auto.")],
    config: ConfigOption = None,
) -> None:
    """Run so many copies of an expert; auto: as its load has it."""
    from coe.services.cli.fleet_control import scale_to

    with errors_explained():
        scale_to(config, expert, replicas)


@fleet_app.command()
def drain(
    node: Annotated[str, typer.Argument(help="A node, as `coe fleet status` names it.")],
    undo: Annotated[bool, typer.Option("--undo", help="Use the node again.")] = False,
    config: ConfigOption = None,
) -> None:
    """Move everything off a node, without losing a request."""
    from coe.services.cli.fleet_control import empty

    with errors_explained():
        empty(config, node, not undo)


@fleet_app.command()
def down(config: ConfigOption = None) -> None:
    """Drain and end every copy and the supervisor. The cluster itself goes on."""
    from coe.services.cli.fleet_control import take_down

    with errors_explained():
        take_down(config)
