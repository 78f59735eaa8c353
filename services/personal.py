"""The tenants of ``coe.yaml`` with the gates that were trained for them."""

from __future__ import annotations

from collections.abc import Mapping

from coe.config import Config
from coe.errors.files import ConfigError
from coe.personal import Personal
from coe.routers.embed import Embedder
from coe.routers.folder import identity
from coe.routers.personal import PersonalGate


def tenants_of(config: Config, embedder: Embedder) -> Mapping[str, Personal]:
    """Every configured tenant, its gate read and checked.

    Raises
    ------
    ArtefactError
        A gate is absent, altered or malformed; or it was trained for another tenant or expert, or
        with another embedder or artefact.
    ConfigError
        As `ensure_kept_together`, with the node on which the gate is kept.
    """
    found = {}
    for name, section in config.tenants.items():
        gate = None
        if section.gate is not None:
            gate = PersonalGate.load(section.gate)
            artefact = identity(config.artefact)
            gate.check(name, section.expert, embedder.name, embedder.dim, artefact)
            ensure_kept_together(config, section.expert, gate.premise.node)
        found[name] = Personal(section.expert, gate, section.local_only)
    return found


def ensure_kept_together(config: Config, expert_id: str, node: str | None) -> None:
    """Nothing, where an expert is on the node, or local; or where no node was named.

    Raises
    ------
    ConfigError
        There is no such node or expert, or the expert is elsewhere.
    """
    expert = next((one for one in config.computing if one.id == expert_id), None)
    if expert is None:
        known = ", ".join(one.id for one in config.computing)
        raise ConfigError(f"no expert is called {expert_id!r}; there are {known}")
    if node is None:
        return
    if node not in config.nodes:
        known = ", ".join(sorted(config.nodes)) or "none"
        raise ConfigError(f"no node is called {node!r}; under nodes of coe.yaml there are: {known}")
    if expert.node != node and not config.spec(expert).local:
        raise ConfigError(
            f"expert {expert_id!r} is neither on node {node!r} nor local: what is learned from a "
            f"tenant's prompts stays where they are; give the expert `node: {node}`"
        )
