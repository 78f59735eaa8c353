"""How many copies an expert gets, by how busy its copies say they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coe.optimizer.scaling import Demand, Scaled, Scaling, scaled
from coe.replica import Deployment, HostReport

Target = Callable[[Deployment, Sequence[HostReport], float], int]
"""Copies wanted of an expert: by its deployment, the reports of its copies, and the time in s."""

MEMORY_S = 10.0
"""Time constant of the mean of busy slots: a moment's gap between requests is no less load."""


@dataclass(slots=True)
class _Seen:
    """What is remembered of an expert's load."""

    busy: float
    at_s: float
    scaled: Scaled


@dataclass(slots=True)
class LoadTargets:
    """As many copies as keep the queue of each short: `coe.optimizer.scaling`. A `Target`.

    Busy slots are what arrivals per second times seconds per answer come to (Little's law), so
    neither need be known.

    Parameters
    ----------
    stable_s : how long fewer copies must have sufficed before there are fewer.
    """

    stable_s: float = 300.0
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def __call__(self, deployment: Deployment, reports: Sequence[HostReport], now_s: float) -> int:
        """Copies wanted now."""
        if deployment.least == deployment.most:
            return deployment.least
        n_running = sum(report.n_running for report in reports)
        seen = self._seen.get(deployment.expert_id)
        if seen is None:
            seen = _Seen(n_running, now_s, Scaled(max(len(reports), deployment.least)))
        kept = math.exp((seen.at_s - now_s) / MEMORY_S)
        busy = kept * seen.busy + (1.0 - kept) * n_running
        rule = Scaling(
            deployment.target_queue,
            deployment.least,
            deployment.most,
            max((report.slots for report in reports), default=1),
            self.stable_s,
        )
        demand = Demand(busy, 1.0, sum(report.n_waiting for report in reports))
        found = scaled(rule, demand, seen.scaled, now_s)
        self._seen[deployment.expert_id] = _Seen(busy, now_s, found)
        return found.n_replicas
