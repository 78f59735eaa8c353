"""From configuration to deployments, and on a node from a deployment to its host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydantic import TypeAdapter

from coe.actors import OpenHost, RayCluster, own_address
from coe.config import Config, ExpertSection, HttpSection
from coe.core import ExpertSpec
from coe.fleet import NODE_LABEL, OWN_ADDRESS, FleetSection, private_address
from coe.replica import Deployment, Host
from coe.services.cluster.api import ServedSupervisor
from coe.services.cluster.supervisor import Supervisor
from coe.services.host.experts import LOOPBACK, open_host


@dataclass(frozen=True, slots=True)
class _Engine:
    """What a node has to know to open the host of an expert."""

    section: ExpertSection
    spec: ExpertSpec


_ENGINE = TypeAdapter(_Engine)
# what only gateways and the supervisor need: a change of it is no reason to start another copy
_PRICES = {"params_b", "answer_tokens", "usd_per_mtok_in", "usd_per_mtok_out"}
_GATEWAYS = {*_PRICES, "replicas", "first_token_timeout_s", "idle_timeout_s"}


def deployments(config: Config) -> list[Deployment]:
    """What a fleet is to run: every expert but those that have an address of their own."""
    return [
        _deployment(_Engine(section, config.spec(section)))
        for section in config.experts
        if not isinstance(section, HttpSection)
    ]


def _deployment(engine: _Engine) -> Deployment:
    section, replicas = engine.section, engine.section.replicas
    return Deployment(
        expert_id=section.id,
        engine=_ENGINE.dump_json(engine, exclude={"section": _GATEWAYS, "spec": _PRICES}).decode(),
        resources=section.resources,
        labels={NODE_LABEL: section.node} if section.node else {},
        memory_gb=section.memory_gb,
        least=replicas.min,
        most=replicas.max,
        target_queue=replicas.target_queue,
    )


def host_opener(engines: str) -> OpenHost:
    """Opens hosts on whatever node it is called.

    Parameters
    ----------
    engines : ``loopback``, or ``private``: at the address by which the node joined the cluster.
    """
    return partial(_host, engines)


def _host(engines: str, deployment: Deployment, key: str | None) -> Host:
    engine = _ENGINE.validate_json(deployment.engine)
    bind = LOOPBACK if engines == "loopback" else own_address()
    return open_host(engine.section, engine.spec, bind=bind, key=key)


def supervisor_opener(fleet: FleetSection, token: str) -> Callable[[RayCluster], ServedSupervisor]:
    """Opens the supervisor of a fleet on the head of its cluster."""
    return partial(_supervisor, fleet.host, fleet.port, token)


def _supervisor(host: str, port: int, token: str, cluster: RayCluster) -> ServedSupervisor:
    bind = private_address(own_address()) if host == OWN_ADDRESS else host
    return ServedSupervisor(Supervisor(cluster), bind, port, token)
