"""Experts on a fleet, as a gateway asks them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import httpx

from coe.core import ExpertSpec, Request
from coe.environment import fleet_token
from coe.experts.protocol import Expert
from coe.experts.replicated import ReplicatedExpert
from coe.fleet import FleetSection
from coe.guard.group import Group
from coe.guard.guards import Guards
from coe.http.pool import Pool
from coe.kinds import ExpertSection, HttpSection
from coe.replica import Replica, Snapshot
from coe.services.adapters import hosted
from coe.services.cluster.follower import FleetClient, Follower, following

Say = Callable[[str], None]

# of an answer that nothing caps
_UNBOUNDED_TOKENS = 256
# a profile may say that an answer takes no time
_LEAST_S = 1e-3


@asynccontextmanager
async def following_fleet(
    fleet: FleetSection,
    client: httpx.AsyncClient,
    say: Say,
    noticed: Callable[[Snapshot], None] = lambda snapshot: None,
    kept_on: Mapping[str, str] | None = None,
) -> AsyncIterator[Follower]:
    """What the fleet's supervisor says, as long as the context lasts.

    Parameters
    ----------
    noticed : called with every snapshot.
    kept_on : as in `Follower`.

    Raises
    ------
    ConfigError
        There is no token to ask it with.
    """
    source = FleetClient(client, fleet.url, fleet_token(fleet.token_env))
    async with following(source, say, noticed, kept_on) as follower:
        yield follower


def expert_on_fleet(
    section: ExpertSection,
    spec: ExpertSpec,
    client: Pool,
    follower: Follower,
    guards: Guards,
) -> ReplicatedExpert:
    """An expert by its copies on the fleet."""
    return ReplicatedExpert(
        guards.groups.get(section.id) or Group(section.id),
        partial(follower.ready, section.id),
        partial(_at, section, client),
        partial(_usual_s, spec),
        partial(usual_first_s, spec),
        guards.retries,
    )


def _usual_s(spec: ExpertSpec, request: Request, n_tokens: int | None) -> float:
    """Time that the device profile gives for an answer, of unknown length for the longest."""
    n_tokens = n_tokens or spec.answer_tokens or _UNBOUNDED_TOKENS
    seconds = spec.estimate(0.0, request.prompt_tokens, n_tokens).latency_ms / 1000.0
    return max(seconds, _LEAST_S)


def usual_first_s(spec: ExpertSpec, request: Request) -> float:
    """Seconds to the first token that the device profile gives, positive."""
    return max(spec.profile.ttft_ms(request.prompt_tokens) / 1000.0, _LEAST_S)


def _at(section: ExpertSection, client: Pool, replica: Replica) -> Expert:
    """The expert at the address of a copy."""
    assert not isinstance(section, HttpSection)
    return hosted(section, client, lambda: replica.report.address, replica.key)
