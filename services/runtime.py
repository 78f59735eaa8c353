"""What serves requests: a fleet, a router over it, and the budget policies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from coe.config import Config, load_policies
from coe.core import Policy
from coe.engine import Engine
from coe.router import Router
from coe.services.fleet import Fleet, Say, running


@dataclass(frozen=True, slots=True)
class Runtime:
    """A configuration brought to life."""

    config: Config
    policies: Mapping[str, Policy]
    engine: Engine
    fleet: Fleet


@asynccontextmanager
async def serving(config: Config, say: Say = lambda line: None) -> AsyncIterator[Runtime]:
    """The runtime of ``config``, which ends with the context. Engines may still be starting.

    Raises
    ------
    ConfigError
        As `coe.services.fleet.running`.
    ArtefactError
        The artefact is absent, altered, or fails a canary prompt.
    """
    policies = load_policies(config.budgets)
    async with running(config, say) as fleet:
        router = Router.load(config.artefact, list(fleet.specs.values()))
        for name in fleet.specs.keys() - set(router.artefact.quality.expert_ids):
            say(f"expert {name}: not in the artefact, so it only answers when asked for by name")
        yield Runtime(config, policies, Engine(router, fleet.experts), fleet)
