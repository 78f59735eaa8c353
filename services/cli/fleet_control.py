"""``coe fleet up | status | scale | drain | down``."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx
from rich.live import Live

from coe.config import Config
from coe.environment import fleet_token
from coe.errors.files import ConfigError
from coe.errors.gateway import FleetError
from coe.fleet import FleetSection
from coe.replica import Deployment, Snapshot
from coe.services.cli.console import configuration, print_json, results, say, tell
from coe.services.cli.fleet_table import fleet_table, print_fleet
from coe.services.cluster.follower import FleetClient

_REFRESH_S = 1.0
_T = TypeVar("_T")


def bring_up(
    config_path: Path | None, local: bool, rate_per_s: float | None, wait_s: float
) -> None:
    """Make the fleet what the configuration says.

    Parameters
    ----------
    rate_per_s : place experts by the plan, for so many requests; ``None``: Ray does.

    Raises
    ------
    ConfigError
        The configuration is wrong, Ray is not installed, or no expert is to run on the fleet.
    PlanError
        As `coe.services.cluster.placing.sites`.
    FleetError
        There is no cluster, or the experts are not ready in time.
    """
    _need_ray()
    from coe import actors
    from coe.services.cluster.hosting import deployments, host_opener, supervisor_opener
    from coe.services.cluster.placing import placed, sites

    config = configuration(config_path)
    fleet = config.fleet or FleetSection()
    wanted = deployments(config)
    if not wanted:
        raise ConfigError("every expert has an address of its own: a fleet has nothing to run")
    if rate_per_s is not None:
        resident = placed(wanted, sites(config, rate_per_s))
        if left := {d.expert_id for d in wanted} - {d.expert_id for d in resident}:
            say(f"the plan does without {', '.join(sorted(left))}: not started")
        wanted = resident
    token = fleet_token(fleet.token_env, create=True)
    actors.connect("local" if local else fleet.ray_address, fleet.namespace)
    try:
        found = actors.RemoteSupervisor.found()
        supervisor = found or actors.RemoteSupervisor.opened(
            supervisor_opener(fleet, token), host_opener(fleet.engines)
        )
        try:
            asyncio.run(supervisor.want(wanted))
        except FleetError:
            if found is None:
                asyncio.run(supervisor.down())
            raise
        snapshot = _asked(config, lambda client: _until_ready(client, wanted, wait_s))
        print_fleet(snapshot)
        say(f"the fleet is up; gateways follow it with `fleet: {{{_place(fleet)}}}` in coe.yaml")
        if local:
            say("this cluster ends with this command (Ctrl-C)")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
            asyncio.run(supervisor.down())
    finally:
        actors.disconnect()


def show(config_path: Path | None, once: bool, as_json: bool) -> None:
    """Print the fleet, or keep printing it.

    Raises
    ------
    ConfigError, FleetError
        As `scale_to`.
    """
    config = configuration(config_path, quiet=True)
    if as_json:
        print_json(_public(seen(config)))
    elif once or not results.is_terminal:
        print_fleet(seen(config))
    else:
        _asked(config, _live)


def seen(config: Config) -> Snapshot:
    """What the supervisor says now.

    Raises
    ------
    ConfigError, FleetError
        As `scale_to`.
    """
    return _asked(config, FleetClient.snapshot)


def scale_to(config_path: Path | None, expert_id: str, replicas: str) -> None:
    """Set how many copies of an expert run.

    Raises
    ------
    ConfigError
        ``replicas`` is neither a number nor auto; or there is no token.
    FleetError
        The supervisor does not answer, or knows no such expert.
    """
    if replicas != "auto" and not replicas.isdecimal():
        raise ConfigError(f"replicas must be a number or auto, not {replicas!r}")
    n = None if replicas == "auto" else int(replicas)
    config = configuration(config_path, quiet=True)
    _asked(config, lambda client: client.scale(expert_id, n))
    tell(f"{expert_id}: {'as its load has it' if n is None else f'{n} copies wanted'}")


def empty(config_path: Path | None, node: str, drained: bool) -> None:
    """Drain a node, or use it again.

    Raises
    ------
    ConfigError, FleetError
        As `scale_to`.
    """
    config = configuration(config_path, quiet=True)
    _asked(config, lambda client: client.drain(node, drained))
    tell(f"{node}: {'drains; `coe fleet status` shows when it is empty' if drained else 'used'}")


def take_down(config_path: Path | None) -> None:
    """End everything that `bring_up` started, but not the cluster.

    Raises
    ------
    ConfigError
        Ray is not installed.
    FleetError
        There is no cluster, or no fleet on it.
    """
    _need_ray()
    from coe import actors

    config = configuration(config_path, quiet=True)
    fleet = config.fleet or FleetSection()
    actors.connect(fleet.ray_address, fleet.namespace)
    try:
        supervisor = actors.RemoteSupervisor.found()
        if supervisor is None:
            raise FleetError("no fleet is up")
        asyncio.run(supervisor.down())
    finally:
        actors.disconnect()
    tell("the fleet is down")


def _place(fleet: FleetSection) -> str:
    """What a gateway's section needs to say of where the supervisor is."""
    if fleet.address is not None:
        return f'address: "{fleet.address}"'
    return f"host: {fleet.host}, port: {fleet.port}"


def _need_ray() -> None:
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed: pip install 'coe-router[fleet]'")


def _asked(config: Config, ask: Callable[[FleetClient], Awaitable[_T]]) -> _T:
    fleet = config.fleet or FleetSection()
    token = fleet_token(fleet.token_env)

    async def asked() -> _T:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await ask(FleetClient(client, fleet.url, token))

    return asyncio.run(asked())


async def _until_ready(client: FleetClient, wanted: list[Deployment], wait_s: float) -> Snapshot:
    """The snapshot once every expert has the copies that it needs at least.

    Raises
    ------
    FleetError
        It takes longer than ``wait_s``; the message says what each copy waits for.
    """
    found: Snapshot | None = None
    unheard: FleetError | None = None
    try:
        async with asyncio.timeout(wait_s):
            while found is None or not _ready(found, wanted):
                try:
                    found = await client.snapshot(found, _REFRESH_S)
                except FleetError as error:
                    if error.__cause__ is None:  # it has answered, and refuses
                        raise
                    unheard = error
                    await asyncio.sleep(_REFRESH_S / 4)
    except TimeoutError:
        if found is None:
            raise unheard or FleetError(f"no word within {wait_s:g} s") from None
        waiting = [r for r in found.replicas.values() if r.report.state != "ready"]
        reasons = "; ".join(f"{r.replica_id}: {r.report.reason or 'starting'}" for r in waiting)
        raise FleetError(f"not ready within {wait_s:g} s: {reasons}") from None
    return found


def _ready(found: Snapshot, wanted: list[Deployment]) -> bool:
    return all(
        sum(r.report.state == "ready" for r in found.of(d.expert_id)) >= d.least for d in wanted
    )


async def _live(client: FleetClient) -> None:
    found = await client.snapshot()
    with Live(fleet_table(found), console=results, screen=False, auto_refresh=False) as live:
        while True:
            found = await client.snapshot(found, _REFRESH_S)
            live.update(fleet_table(found), refresh=True)


def _public(found: Snapshot) -> Mapping[str, object]:
    """The snapshot without the keys of engines."""
    document = found.document()
    for replica in document["replicas"].values():
        del replica["key"]
    return document
