"""From configuration to deployments, and on a node from a deployment to its host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pydantic import TypeAdapter

from coe.actors import OpenHost, RayCluster, own_address
from coe.config import Config, MeteringSection
from coe.core import ExpertSpec
from coe.errors import CoeError
from coe.fleet import NODE_LABEL, OWN_ADDRESS, FleetSection, private_address
from coe.kinds import ExpertSection, HttpSection, ReplaySection, VllmSection
from coe.replica import Card, Deployment, Host
from coe.services.cluster.api import ServedSupervisor
from coe.services.cluster.supervisor import Supervisor
from coe.services.host.experts import LOOPBACK, open_host
from coe.services.host.metered import MeteredHost
from coe.services.host.unopened import UnopenedHost
from coe.services.metering.detect import ALL, ON_CPU
from coe.services.metering.machine import chosen


@dataclass(frozen=True, slots=True)
class _Engine:
    """What a node has to know to open the host of an expert.

    Parameters
    ----------
    metering : by node; one that is not named is metered as by default.
    """

    section: ExpertSection
    spec: ExpertSpec
    metering: Mapping[str, MeteringSection] = field(default_factory=dict)


_ENGINE = TypeAdapter(_Engine)
# what only gateways and the supervisor need: a change of it is no reason to start another copy
_PRICES = {"params_b", "answer_tokens", "usd_per_mtok_in", "usd_per_mtok_out"}
_DECIDING = {*_PRICES, "local", "shared"}
_TIMEOUTS = {"first_token_timeout_s", "idle_timeout_s", "answer_timeout_s"}
_GATEWAYS = {*_PRICES, *_TIMEOUTS, "shared", "replicas"}


def deployments(config: Config) -> list[Deployment]:
    """What a fleet is to run: every expert but those that have an address of their own."""
    return [
        _deployment(_Engine(section, config.spec(section), _metering(config, section)))
        for section in config.computing
        if not isinstance(section, HttpSection)
    ]


def _deployment(engine: _Engine) -> Deployment:
    section, replicas = engine.section, engine.section.replicas
    return Deployment(
        expert_id=section.id,
        engine=_ENGINE.dump_json(
            engine, exclude={"section": _GATEWAYS, "spec": _DECIDING}
        ).decode(),
        resources=section.resources,
        labels={NODE_LABEL: section.node} if section.node else {},
        memory_gb=section.memory_gb,
        least=replicas.min,
        most=replicas.max,
        target_queue=replicas.target_queue,
    )


def _metering(config: Config, section: ExpertSection) -> dict[str, MeteringSection]:
    if isinstance(section, ReplaySection):  # it draws nothing anywhere
        return {}
    # idle power is for gateways, as prices are
    stated = {
        n: node.metering.model_copy(update={"idle_w": 0.0}) for n, node in config.nodes.items()
    }
    return {name: metering for name, metering in stated.items() if metering != MeteringSection()}


def host_opener(engines: str) -> OpenHost:
    """Opens hosts on whatever node it is called.

    Parameters
    ----------
    engines : ``loopback``, or ``private``: at the address by which the node joined the cluster.
    """
    return partial(_host, engines)


def _host(engines: str, deployment: Deployment, card: Card) -> Host:
    engine = _ENGINE.validate_json(deployment.engine)
    section = engine.section
    try:
        bind = LOOPBACK if engines == "loopback" else private_address(own_address())
        host = open_host(section, engine.spec, bind=bind, key=card.key)
    except (CoeError, ValueError) as error:
        return UnopenedHost(str(error))
    if isinstance(section, ReplaySection):
        return host
    metering = engine.metering.get(card.node, MeteringSection())
    # of an engine that may be on a GPU, its meter is the narrowest that sees it
    auto = ALL if isinstance(section, VllmSection) else ON_CPU
    return MeteredHost(host, partial(chosen, metering, auto))


def supervisor_opener(fleet: FleetSection, token: str) -> Callable[[RayCluster], ServedSupervisor]:
    """Opens the supervisor of a fleet on the head of its cluster."""
    return partial(_supervisor, fleet.host, fleet.port, token)


def _supervisor(host: str, port: int, token: str, cluster: RayCluster) -> ServedSupervisor:
    bind = private_address(own_address()) if host == OWN_ADDRESS else host
    return ServedSupervisor(Supervisor(cluster), bind, port, token)
