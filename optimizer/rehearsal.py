"""What a node would do with requests that are known beforehand: its policy, event by event."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coe.optimizer.figures import Floats
from coe.optimizer.residency import Residency


@dataclass(frozen=True, slots=True)
class Call:
    """A request: when it comes, whose it is, and how long its answer takes."""

    at_s: float
    expert_id: str
    service_s: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """When every request started and ended, and what was loaded.

    Parameters
    ----------
    starts_s, ends_s : (n_requests,) on the clock of the calls.
    n_loads : experts that were loaded, ahead or not.
    missed : share of the requests whose expert was not in memory when they came; 0 without any.
        What `PlacementProblem.miss` asks for.
    """

    starts_s: Floats
    ends_s: Floats
    n_loads: int
    missed: float


def rehearse(node: Residency, calls: Sequence[Call]) -> Rehearsal:
    """What becomes of the calls on an empty node, all the way to the last answer.

    Parameters
    ----------
    calls : in any order; of one moment, the first one listed comes first.

    Raises
    ------
    RuntimeError
        The policy leaves requests waiting when nothing happens any more.
    """
    stage = _Stage(node, calls)
    while stage.events or node.due_s(stage.now_s) < float("inf"):
        stage.step()
    if np.isnan(stage.starts_s).any():
        raise RuntimeError("the policy left requests waiting")
    missed = stage.n_missed / max(len(calls), 1)
    return Rehearsal(stage.starts_s, stage.ends_s, node.n_loads, missed)


class _Stage:
    """The calls, the clock, and what is still to happen."""

    def __init__(self, node: Residency, calls: Sequence[Call]) -> None:
        self.node, self.calls, self.now_s = node, calls, 0.0
        # moment, place in the order of what is simultaneous, what, who
        self.events = [(call.at_s, n, "wait", str(n)) for n, call in enumerate(calls)]
        heapq.heapify(self.events)
        self.starts_s = np.full(len(calls), np.nan)
        self.ends_s = np.full(len(calls), np.nan)
        self.n_missed = 0
        self._n_events = len(calls)

    def step(self) -> None:
        """What happens next, and what the node does about it."""
        node, due_s = self.node, self.node.due_s(self.now_s)
        if self.events and self.events[0][0] <= due_s:
            self.now_s, _, what, who = heapq.heappop(self.events)
            self._happen(what, who)
        else:
            self.now_s = due_s
        for request_id, expert_id in node.start(self.now_s):
            n = int(request_id)
            self.starts_s[n] = self.now_s
            self.ends_s[n] = self.now_s + self.calls[n].service_s
            self._later(self.ends_s[n], "end", expert_id)
        load = node.order(self.now_s)
        if load is not None:
            done_s = self.now_s + node.experts[load.expert_id].load_s
            self._later(done_s, "loaded", load.expert_id)

    def _happen(self, what: str, who: str) -> None:
        if what == "wait":
            n = int(who)
            expert_id = self.calls[n].expert_id
            self.n_missed += self.node.occupants[expert_id].phase != "in"
            self.node.wait(who, expert_id, self.now_s)
        elif what == "loaded":
            self.node.loaded(who, self.now_s)
        else:
            self.node.end(who, self.now_s)

    def _later(self, at_s: float, what: str, who: str) -> None:
        self._n_events += 1
        heapq.heappush(self.events, (float(at_s), self._n_events, what, who))
