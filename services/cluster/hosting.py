"""From configuration to deployments, and on a node from a deployment to its host."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pydantic import TypeAdapter

from coe.actors import NODE_LABEL, OpenHost, RayCluster, own_address
from coe.config import Config, EmbeddedSection, ExpertSection, FleetSection, HttpSection
from coe.replica import Deployment, Host
from coe.services.cluster.api import ServedSupervisor
from coe.services.cluster.supervisor import Supervisor
from coe.services.host.experts import LOOPBACK, open_host

_SECTION: TypeAdapter[ExpertSection] = TypeAdapter(ExpertSection)


def deployments(config: Config) -> list[Deployment]:
    """What a fleet is to run: every expert but those that have an address of their own."""
    return [
        _deployment(section) for section in config.experts if not isinstance(section, HttpSection)
    ]


def _deployment(section: ExpertSection) -> Deployment:
    replicas = section.replicas
    return Deployment(
        expert_id=section.id,
        engine=section.model_dump_json(exclude={"replicas"}),
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
    section = _SECTION.validate_json(deployment.engine)
    assert isinstance(section, EmbeddedSection)
    bind = LOOPBACK if engines == "loopback" else own_address()
    return open_host(section, bind=bind, key=key)


def supervisor_opener(fleet: FleetSection, token: str) -> Callable[[RayCluster], ServedSupervisor]:
    """Opens the supervisor of a fleet on the head of its cluster."""
    return partial(_supervisor, fleet.host, fleet.port, token)


def _supervisor(host: str, port: int, token: str, cluster: RayCluster) -> ServedSupervisor:
    return ServedSupervisor(Supervisor(cluster), host, port, token)
