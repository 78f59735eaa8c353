"""A hard stop, and requests that go through it."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from world import RESOURCES, World

from coe.optimizer.pacing import Allowance

REFUSED = -1


@dataclass(slots=True)
class Account:
    """What is spent and held of each allowance, per window of arrival."""

    allowances: Sequence[Allowance]
    used: dict[tuple[int, int], float] = field(default_factory=dict)

    def reserve(self, at_s: float, tenant: str, amounts: Sequence[float]) -> bool:
        """Hold ``amounts`` of `RESOURCES`, on every allowance that counts or on none."""
        keys = self._keys(at_s, tenant)
        for key in keys:
            allowance = self.allowances[key[0]]
            more = amounts[RESOURCES.index(allowance.resource)]
            if self.used.get(key, 0.0) + more > allowance.amount:
                return False
        for key in keys:
            more = amounts[RESOURCES.index(self.allowances[key[0]].resource)]
            self.used[key] = self.used.get(key, 0.0) + more
        return True

    def settle(
        self, at_s: float, tenant: str, held: Sequence[float], spent: Sequence[float]
    ) -> None:
        """Give back what was held of the request that arrived ``at_s`` beyond what it took."""
        for key in self._keys(at_s, tenant):
            column = RESOURCES.index(self.allowances[key[0]].resource)
            self.used[key] -= held[column] - spent[column]

    def _keys(self, at_s: float, tenant: str) -> list[tuple[int, int]]:
        return [
            (k, int(at_s // a.window_s))
            for k, a in enumerate(self.allowances)
            if a.tenant is None or a.tenant == tenant
        ]


class Policy(Protocol):
    """Ranks the experts for request ``t`` of the world, the one it wants first."""

    def ranking(self, t: int) -> Sequence[int]:
        """Experts that may answer; none declines."""

    def settle(self, t: int, choice: int) -> None:
        """The answer has ended."""


def simulate(
    world: World, allowances: Sequence[Allowance], policy: Policy
) -> tuple[NDArray[np.int64], float]:
    """(T,) who answers each request, and seconds spent in the policy.

    The first of the policy's experts whose longest answer the account can hold answers;
    `REFUSED` where there is none.
    """
    account = Account(allowances)
    tenants, arrivals, ends = world.tenant.tolist(), world.at_s.tolist(), world.ends_s.tolist()
    upper, spent = world.upper.tolist(), world.spent.tolist()
    choices = np.full(len(arrivals), REFUSED)
    in_flight: list[tuple[float, int]] = []
    policy_s = 0.0

    def settle_until(now_s: float) -> float:
        taken_s = 0.0
        while in_flight and in_flight[0][0] <= now_s:
            _, t = heapq.heappop(in_flight)
            k = int(choices[t])
            account.settle(arrivals[t], tenants[t], upper[t][k], spent[t][k])
            started = time.perf_counter()
            policy.settle(t, k)
            taken_s += time.perf_counter() - started
        return taken_s

    for t, now_s in enumerate(arrivals):
        policy_s += settle_until(now_s)
        started = time.perf_counter()
        ranking = policy.ranking(t)
        policy_s += time.perf_counter() - started
        for k in ranking:
            if account.reserve(now_s, tenants[t], upper[t][k]):
                choices[t] = k
                heapq.heappush(in_flight, (ends[t], t))
                break
    settle_until(np.inf)
    return choices, policy_s


def fullest(world: World, allowances: Sequence[Allowance], choices: NDArray[np.int64]) -> float:
    """The largest share of an allowance that any of its windows used, counted anew."""
    answered = choices != REFUSED
    here = np.arange(choices.size)
    shares = []
    for allowance in allowances:
        counts = answered & ((allowance.tenant is None) | (world.tenant == allowance.tenant))
        spent = world.spent[here, choices, RESOURCES.index(allowance.resource)]
        window = (world.at_s // allowance.window_s).astype(int)
        shares.append(
            np.bincount(window[counts], spent[counts], minlength=1).max() / allowance.amount
        )
    return float(max(shares))
