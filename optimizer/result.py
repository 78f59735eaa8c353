"""What `optimize` returns: sets with a certificate, or what would make some possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from coe.optimizer.figures import Bools

Status = Literal["optimal", "feasible", "infeasible", "unknown"]

EXACT = 1e-9
"""A gap that counts as none: what adding floats can cost."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a solver hands back: the best sets it knows, and a bound on all others.

    Parameters
    ----------
    members : (n_categories, n_experts) who is in each category's set; ``None``: nothing found.
    upper : no feasible sets are worth more; ``inf`` where nothing is known.
    nodes : sets, boxes, labels or vertices that were looked at.
    """

    members: Bools | None
    upper: float = np.inf
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """Sets of experts, how good they are and what they use; or what makes any impossible.

    Parameters
    ----------
    status : ``optimal``, proved; ``feasible``: the best that was found, ``upper`` says how much
        better others might be; ``infeasible``, proved; ``unknown``: nothing found in time.
    sets : per category, the indices of its experts, ascending. All the same if shared.
    weights : per category, aligned with ``sets``: each one's mean share in the answer.
    value : mean over the traffic, in the unit of the aggregation; ``-inf`` without sets.
    upper : no feasible sets are worth more.
    energy_j, cost_usd : means over traffic, of the dearest answers.
    latency_ms : per category, overhead included.
    binding : of the ceilings that keep out an expert which is not in the set, the one that
        leaves least in proportion; ``None`` where none keeps anyone out. When infeasible: the
        one that has to be raised least in proportion; if no single one would do, the one that
        the nearest single experts exceed most; ``None`` where nobody is able.
    slack : per present ceiling, what is left of it.
    needed : when infeasible, per present ceiling the smallest value that would do with all
        others kept; ``None`` where no value would. Absent where that was not worked out in time.
    method, why : which solver, and why that one; ``filter`` if no expert could be in any set.
    nodes : sets, boxes, labels or vertices that were looked at.
    solve_ms : time from the question to the answer.
    """

    status: Status
    sets: tuple[tuple[int, ...], ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()
    value: float = -np.inf
    upper: float = -np.inf
    energy_j: float = 0.0
    cost_usd: float = 0.0
    latency_ms: tuple[float, ...] = ()
    binding: str | None = None
    slack: Mapping[str, float] = field(default_factory=dict)
    needed: Mapping[str, float | None] = field(default_factory=dict)
    method: str = ""
    why: str = ""
    nodes: int = 0
    solve_ms: float = 0.0

    @property
    def experts(self) -> tuple[int, ...]:
        """Everyone in some set, ascending."""
        return tuple(sorted({n for chosen in self.sets for n in chosen}))

    @property
    def lower(self) -> float:
        """The optimum is worth at least this much."""
        return self.value

    @property
    def gap(self) -> float:
        """How much better than ``value`` other sets might be; 0 when infeasible."""
        proved = self.status in ("infeasible", "optimal")
        return 0.0 if proved else self.upper - self.value
