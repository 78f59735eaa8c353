"""The problem of choosing the sets of experts that answer, as arrays with units in their names.

MoE2's selection step (arXiv 2501.09410; reconstruction, equations ours), with CoE's
category-to-expert map as the case of one expert per category. `coe.optimizer.optimize` solves it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from coe.kernels.mixture import FLOOR
from coe.optimizer.figures import (
    Bools,
    Floats,
    Integers,
    check,
    check_flags,
    check_indices,
    check_pairs,
    check_shares,
)

Aggregation = Literal["best", "sum", "mixture", "choose", "likelihood"]
"""What several answers are worth together; see `coe.optimizer.value`."""

Sets = Literal["shared", "per_category"]

PLAUSIBLE_W = (0.5, 20_000.0)
"""Joules over seconds of one answer: below, joules per token were given; above, seconds as ms."""

Kind = Literal["max_energy_j", "max_cost_usd", "max_latency_ms", "node_gb"]

MEANS: tuple[Kind, ...] = ("max_energy_j", "max_cost_usd")
"""Ceilings on means over traffic."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What may not be exceeded.

    Parameters
    ----------
    kind : the field that sets it.
    index : of the category, for a latency of its own, or of the node; ``None``: for all.
    limit : in the unit of the field.
    """

    kind: Kind
    index: int | None
    limit: float

    @property
    def name(self) -> str:
        """The field, with the index in brackets."""
        return self.kind if self.index is None else f"{self.kind}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Prompts:
    """Recorded prompts: what the gate says of every expert, and what its answer was worth.

    Parameters
    ----------
    logits : (n_prompts, n_experts) finite, those of a prompt within `FLOOR` of each other; the
        gate of a set is their softmax over the set.
    outcome : (n_prompts, n_experts) in [0, 1]: score, or probability of the right answer.
    category : (n_prompts,) row of ``shares`` that the prompt belongs to.
    """

    logits: Floats
    outcome: Floats
    category: Integers

    def keep(self, experts: Integers) -> Prompts:
        """The same prompts, seen by these experts only."""
        return Prompts(self.logits[:, experts], self.outcome[:, experts], self.category)


@dataclass(frozen=True, slots=True)
class Memory:
    """What each expert takes on the node it would be resident on, and what the nodes have.

    Parameters
    ----------
    expert_gb : (n_experts,) of one resident copy.
    node : (n_experts,) index of the node.
    node_gb : (n_nodes,) ceilings.
    """

    expert_gb: Floats
    node: Integers
    node_gb: Floats

    def taken(self, node: int) -> Floats:
        """(n_experts,) what each takes of one node; 0 of those that would be on another."""
        return np.where(self.node == node, self.expert_gb, 0.0)

    def keep(self, experts: Integers) -> Memory:
        """The same nodes, for these experts only."""
        return replace(self, expert_gb=self.expert_gb[experts], node=self.node[experts])


@dataclass(frozen=True, slots=True)
class Problem:
    """Give every category a set of experts: most value over the traffic, no ceiling exceeded.

    A set uses, in a category, the joules and dollars of the ``k`` dearest of its members (the
    worst case of who answers; of all members without ``k``) and the time of its slowest member.
    So every ceiling that holds for a set holds for all its subsets. A set is never empty. A total
    equal to its ceiling fits.

    Parameters
    ----------
    aggregation : what several answers are worth together.
    shares : (n_categories,) of the traffic; they sum to 1.
    energy_j : (n_categories, n_experts) of one whole answer, not of a token.
    latency_ms : (n_categories, n_experts) of one answer, at the quantile that is to hold; > 0.
    cost_usd : (n_categories, n_experts) of one answer; by default nothing costs anything.
    quality : (n_categories, n_experts) expected score in [0, 1], for ``best`` and ``sum``.
    prompts : for ``mixture``, ``choose`` and ``likelihood``; every category has some.
    k : experts that answer one prompt, those of the largest logits; ``None``: the whole set.
    sets : one set for all categories, or one each.
    max_energy_j, max_cost_usd : ceilings on the means over traffic.
    max_latency_ms : ceiling in every category, or (n_categories,), one for each.
    overhead_ms : time beside the experts', such as transmission and aggregation.
    memory : ceilings on what is resident, the union of the sets.
    able : (n_categories, n_experts) who may serve which category, for reasons of its own; by
        default everyone.

    Raises
    ------
    ValueError
        Shapes disagree, a figure is NaN, negative or infinite, a latency is 0, the watts that
        joules and milliseconds of an expert imply are not those of any device, logits lie too
        far apart, or what the aggregation needs
        is absent; the field is named.
    """

    aggregation: Aggregation
    shares: Floats
    energy_j: Floats
    latency_ms: Floats
    cost_usd: Floats | None = None
    quality: Floats | None = None
    prompts: Prompts | None = None
    k: int | None = None
    sets: Sets = "shared"
    max_energy_j: float | None = None
    max_cost_usd: float | None = None
    max_latency_ms: float | Floats | None = None
    overhead_ms: float = 0.0
    memory: Memory | None = None
    able: Bools | None = None

    def __post_init__(self) -> None:
        if self.aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation must be one of {get_args(Aggregation)}")
        if self.sets not in get_args(Sets):
            raise ValueError(f"sets must be one of {get_args(Sets)}, not {self.sets!r}")
        check_pairs("energy_j", self.energy_j)
        self._check_figures()
        self._check_value()
        self._check_ceilings()

    @property
    def n_categories(self) -> int:
        """Rows of the figures."""
        return int(self.energy_j.shape[0])

    @property
    def n_experts(self) -> int:
        """Columns of the figures."""
        return int(self.energy_j.shape[1])

    @property
    def costs_usd(self) -> Floats:
        """(n_categories, n_experts) dollars of one answer; zeros where none were given."""
        return np.zeros_like(self.energy_j) if self.cost_usd is None else self.cost_usd

    @property
    def _latency_by_category(self) -> bool:
        return np.ndim(0.0 if self.max_latency_ms is None else self.max_latency_ms) > 0

    @property
    def latency_limits_ms(self) -> Floats:
        """(n_categories,) what an expert may take; ``inf`` without a ceiling."""
        limit = np.inf if self.max_latency_ms is None else self.max_latency_ms
        limits: Floats = np.broadcast_to(np.asarray(limit, dtype=float), self.shares.shape)
        return limits - self.overhead_ms

    def limits(self) -> tuple[Ceiling, ...]:
        """Present ceilings: joules, dollars, latency and memory, those that are not infinite."""
        found: list[tuple[Kind, int | None, Any]] = [(k, None, getattr(self, k)) for k in MEANS]
        if self._latency_by_category:
            each = np.asarray(self.max_latency_ms)
            found += [("max_latency_ms", c, limit) for c, limit in enumerate(each)]
        else:
            found.append(("max_latency_ms", None, self.max_latency_ms))
        if self.memory is not None:
            found += [("node_gb", v, limit) for v, limit in enumerate(self.memory.node_gb)]
        present = [one for one in found if one[2] is not None and one[2] < np.inf]
        return tuple(Ceiling(kind, index, float(limit)) for kind, index, limit in present)

    def ceilings(self) -> dict[str, float]:
        """Present ceilings by name; those by category c or node v end in ``[c]`` or ``[v]``."""
        return {ceiling.name: ceiling.limit for ceiling in self.limits()}

    def with_ceiling(self, ceiling: Ceiling, limit: float) -> Problem:
        """The same problem with another value of a present ceiling; ``inf`` for none."""
        if ceiling.kind == "node_gb" and self.memory is not None:
            node_gb = np.array(self.memory.node_gb, dtype=float)
            node_gb[ceiling.index] = limit
            return replace(self, memory=replace(self.memory, node_gb=node_gb))
        if ceiling.index is not None:
            limits = np.array(self.max_latency_ms, dtype=float)
            limits[ceiling.index] = limit
            return replace(self, max_latency_ms=limits)
        changed: Any = {ceiling.kind: limit}
        return replace(self, **changed)

    def figures(self, mean: Kind) -> Floats:
        """(n_categories, n_experts) joules or dollars: what a ceiling on a mean is about."""
        return self.energy_j if mean == "max_energy_j" else self.costs_usd

    def keep(self, experts: Integers) -> Problem:
        """The same problem with only these experts, in this order."""
        return replace(
            self,
            energy_j=self.energy_j[:, experts],
            latency_ms=self.latency_ms[:, experts],
            cost_usd=None if self.cost_usd is None else self.cost_usd[:, experts],
            quality=None if self.quality is None else self.quality[:, experts],
            prompts=None if self.prompts is None else self.prompts.keep(experts),
            memory=None if self.memory is None else self.memory.keep(experts),
            able=None if self.able is None else self.able[:, experts],
        )

    def _check_figures(self) -> None:
        pairs = self.energy_j.shape
        check_shares(self.shares, len(self.energy_j))
        check("energy_j", self.energy_j, pairs)
        check("latency_ms", self.latency_ms, pairs)
        if not np.all(self.latency_ms > 0):
            raise ValueError("latency_ms must be positive: no answer takes no time")
        if self.cost_usd is not None:
            check("cost_usd", self.cost_usd, pairs)
        self._check_watts()

    def _check_watts(self) -> None:
        drawn = self.energy_j > 0
        watts = 1000.0 * self.energy_j / self.latency_ms
        most = np.max(watts, axis=0, where=drawn, initial=-np.inf)
        least = np.min(watts, axis=0, where=drawn, initial=np.inf)
        for n in np.flatnonzero(drawn.any(axis=0)).tolist():
            if most[n] < PLAUSIBLE_W[0]:
                raise ValueError(
                    f"energy_j over latency_ms of expert {n} is at most {most[n]:.3g} W: energy_j "
                    "must be joules of a whole answer, not of a token"
                )
            if least[n] > PLAUSIBLE_W[1]:
                raise ValueError(
                    f"energy_j over latency_ms of expert {n} is at least {least[n]:.3g} W: "
                    "latency_ms must be milliseconds, not seconds"
                )

    def _check_value(self) -> None:
        whole = isinstance(self.k, int | np.integer) and not isinstance(self.k, bool)
        if self.k is not None and not (whole and self.k >= 1):
            raise ValueError(f"k must be a whole number of at least 1, not {self.k!r}")
        if self.aggregation in ("best", "sum"):
            if self.quality is None:
                raise ValueError(f"quality is needed for the aggregation {self.aggregation!r}")
            check("quality", self.quality, self.energy_j.shape, 1.0)
            return
        if self.prompts is None:
            raise ValueError(f"prompts are needed for the aggregation {self.aggregation!r}")
        of_experts = (len(self.prompts.category), self.n_experts)
        check("prompts.outcome", self.prompts.outcome, of_experts, 1.0)
        logits = self.prompts.logits
        if logits.shape != of_experts or not np.all(np.isfinite(logits)):
            raise ValueError(f"prompts.logits must be finite and have shape {of_experts}")
        spread = float(np.max(np.ptp(logits, axis=1)))
        if spread > FLOOR:  # weights would depend on who is not in the set
            raise ValueError(
                f"prompts.logits of a prompt must lie within {FLOOR:g} of each other, "
                f"not {spread:.6g}"
            )
        check_indices("prompts.category", self.prompts.category, of_experts[0], self.n_categories)
        seen = np.unique(self.prompts.category)
        if not np.array_equal(seen, np.arange(self.n_categories)):
            raise ValueError(
                f"prompts.category must name each of {self.n_categories} categories, "
                f"it names {seen.tolist()}"
            )

    def _check_ceilings(self) -> None:
        limits: dict[str, Any] = {name: getattr(self, name) for name in MEANS}
        limits["max_latency_ms"] = self.max_latency_ms
        for name, limit in limits.items():
            by_category = name == "max_latency_ms" and self._latency_by_category
            shape = self.shares.shape if by_category else ()
            check(name, np.asarray(0.0 if limit is None else limit), shape, np.inf)
        check("overhead_ms", np.asarray(self.overhead_ms), ())
        if self.able is not None:
            check_flags("able", self.able, self.energy_j.shape)
        if self.memory is not None:
            if np.ndim(self.memory.node_gb) != 1:
                raise ValueError("memory.node_gb must have shape (n_nodes,)")
            check("memory.expert_gb", self.memory.expert_gb, (self.n_experts,))
            check("memory.node_gb", self.memory.node_gb, self.memory.node_gb.shape, np.inf)
            check_indices("memory.node", self.memory.node, self.n_experts, len(self.memory.node_gb))
