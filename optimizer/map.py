"""The problem of giving every category its expert, as arrays, and what comes of it.

Step two of CoE's two-step routing (arXiv 2412.01868; reconstruction, equations ours).
`coe.optimizer.milp` solves it; nothing here knows how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coe.optimizer.figures import ROUNDING, Floats, check, check_pairs, check_shares

MapStatus = Literal["optimal", "feasible", "infeasible", "unknown"]

_CEILINGS = ("stored_params_b", "max_experts", "active_params_b", "max_energy_j", "max_cost_usd")
_CATEGORY = re.compile(r"max_latency_ms\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class MapProblem:
    """Give every category one expert: most value over the traffic, no ceiling exceeded.

    Ceilings that are ``None`` or infinite do not exist. A total equal to its ceiling fits.

    Parameters
    ----------
    value : (n_categories, n_experts) expected score in [0, 1], shrunk.
    shares : (n_categories,) of the traffic; they sum to 1.
    params_b : (n_experts,) parameters in billions.
    stored_params_b : ceiling on the parameters of all experts that serve some category.
    active_params_b : ceiling on the parameters run per prompt, the mean over traffic.
    max_experts : ceiling on the number of experts that serve some category.
    latency_ms : (n_categories, n_experts) of one answer.
    max_latency_ms : ceiling on it in every category, or (n_categories,), one for each.
    energy_j, cost_usd : (n_categories, n_experts) of one answer.
    max_energy_j, max_cost_usd : ceilings on their means over traffic.

    Raises
    ------
    ValueError
        Shapes disagree, there is no category or no expert, a figure is NaN, negative or
        infinite, shares do not sum to 1, or a ceiling lacks its figures; the field is named.
    """

    value: Floats
    shares: Floats
    params_b: Floats
    stored_params_b: float | None = None
    active_params_b: float | None = None
    max_experts: int | None = None
    latency_ms: Floats | None = None
    max_latency_ms: float | Floats | None = None
    energy_j: Floats | None = None
    max_energy_j: float | None = None
    cost_usd: Floats | None = None
    max_cost_usd: float | None = None

    def __post_init__(self) -> None:
        check_pairs("value", self.value)
        pairs = n_categories, n_experts = self.value.shape
        check("value", self.value, pairs, 1.0)
        check_shares(self.shares, len(self.value))
        check("params_b", self.params_b, (n_experts,))
        for name in ("latency_ms", "energy_j", "cost_usd"):
            figures, ceiling = getattr(self, name), getattr(self, f"max_{name}")
            if figures is not None:
                check(name, figures, pairs)
            elif ceiling is not None:
                raise ValueError(f"max_{name} is a ceiling on {name}, which is absent")
        for name in _CEILINGS:
            check(name, np.asarray(getattr(self, name) or 0.0), (), np.inf)
        limits = np.asarray(0.0 if self.max_latency_ms is None else self.max_latency_ms)
        by_category = isinstance(self.max_latency_ms, np.ndarray)
        check("max_latency_ms", limits, (n_categories,) if by_category else (), np.inf)
        if self.max_experts is not None and not self.max_experts >= 1:
            raise ValueError(f"max_experts must be at least 1, not {self.max_experts!r}")

    def ceilings(self) -> dict[str, float]:
        """Present ceilings by the name of their field.

        A latency ceiling that differs by category c is called ``max_latency_ms[c]``.
        """
        found = {name: getattr(self, name) for name in _CEILINGS}
        if isinstance(self.max_latency_ms, np.ndarray):
            found |= {f"max_latency_ms[{c}]": x for c, x in enumerate(self.max_latency_ms)}
        else:
            found["max_latency_ms"] = self.max_latency_ms
        return {name: float(x) for name, x in found.items() if x is not None and x < np.inf}

    def with_ceiling(self, name: str, ceiling: float | None) -> MapProblem:
        """The same problem with another value for one ceiling; ``None`` removes it.

        Raises
        ------
        ValueError
            There is no ceiling of this name.
        """
        category = _CATEGORY.fullmatch(name)
        limits = np.array(self.max_latency_ms, dtype=float)
        if category and limits.ndim and int(category[1]) < limits.size:
            limits[int(category[1])] = np.inf if ceiling is None else ceiling
            return replace(self, max_latency_ms=limits)
        if name not in (*_CEILINGS, "max_latency_ms"):
            raise ValueError(f"no ceiling is called {name!r}; present are {[*self.ceilings()]}")
        changed: dict[str, Any] = {name: ceiling}
        return replace(self, **changed)

    @property
    def loss(self) -> Floats:
        """(n_categories, n_experts) share of the traffic times what a score lacks of 1."""
        missing: Floats = self.shares[:, None] * (1.0 - self.value)
        return missing

    @property
    def in_time(self) -> NDArray[np.bool_]:
        """(n_categories, n_experts) whether the expert keeps the category's latency ceiling."""
        if self.latency_ms is None or self.max_latency_ms is None:
            return np.ones(self.value.shape, dtype=bool)
        limits = np.broadcast_to(self.max_latency_ms, self.shares.shape)[:, None]
        kept: NDArray[np.bool_] = self.latency_ms <= limits * (1 + ROUNDING)
        return kept


@dataclass(frozen=True, slots=True)
class MapResult:
    """A map, and how good it is; or what makes one impossible.

    Parameters
    ----------
    status : ``optimal``, proved; ``feasible``: the best map found when time ran out, at least
        the best one of a single expert; ``infeasible``, proved; ``unknown``: nothing found,
        nothing proved.
    assignment : (n_categories,) index of the expert; empty when there is none.
    chosen : the experts of ``assignment``, ascending.
    value : mean value over the traffic; ``-inf`` without a map.
    bound : no map is worth more; ``-inf`` when infeasible.
    stored_params_b : parameters of ``chosen``; 0 without a map.
    active_params_b : parameters run per prompt, the mean over traffic; 0 without a map.
    conflict : when infeasible, ceilings that cannot hold together, none of which can be left
        out; first the one whose ``needed`` is nearest in proportion.
    needed : when infeasible, per present ceiling the smallest value that would admit a map
        with all other ceilings kept; ``None`` where no value would. A ceiling is absent when
        time ran out over it.
    """

    status: MapStatus
    assignment: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()
    value: float = -np.inf
    bound: float = -np.inf
    stored_params_b: float = 0.0
    active_params_b: float = 0.0
    conflict: tuple[str, ...] = ()
    needed: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def gap(self) -> float:
        """How much better than ``value`` a map might be; 0 when infeasible."""
        return 0.0 if self.status == "infeasible" else self.bound - self.value
