"""What is foreseen of the traffic: experts, their answers' worth and usage, as a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from coe.core import Policy
from coe.errors.files import PlanError
from coe.mode import Mode
from coe.optimizer.footprint import allowed
from coe.optimizer.options import AXES, prices_of
from coe.optimizer.problem import Aggregation, Memory, Problem, Prompts
from coe.optimizer.stages import Stages
from coe.prospect import among, by_category, columns_of, traffic_of, used
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.routers.quality import Expected
from coe.routers.traffic import Traffic
from coe.routers.train import embed_all

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LIKELY = 0.05
"""How far scores that are taken as probabilities of the right answer are kept from 0 and 1."""

_DOUBT = 1e-3  # a gate is never surer of an answer than 1 less this


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan must keep beside its policy.

    Parameters
    ----------
    energy_j, cost_usd : ceilings on the means over the traffic.
    memory_gb : by expert, what it takes where it is resident; absent: nothing.
    nodes : by expert, the node it would be resident on; absent: "".
    node_gb : by node, what it has; absent: without end.
    """

    energy_j: float | None = None
    cost_usd: float | None = None
    memory_gb: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    node_gb: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Foresight:
    """A policy's problem over the foreseen traffic, and the names of its rows and columns.

    Parameters
    ----------
    categories, expert_ids : names of rows and columns.
    nodes : (n_experts,) the node of each expert, "" for none.
    node_names : names of the nodes of ``problem.memory``, in its order.
    policy : its ceilings are in the problem, its prices are not.
    modes : where learned modes are planned, the columns of the problem; ``None``: these are the
        experts. What modes need of ``memory`` is not in the problem.
    memory : what experts take on their nodes; ``None`` where nodes have no end.
    paid : (n_categories, n_columns) points of quality that an answer of mean length costs at the
        policy's prices.
    cautious : by each ceiling of the policy, (n_categories, n_columns) what a cautious answer
        takes.
    """

    problem: Problem
    categories: tuple[str, ...]
    expert_ids: tuple[str, ...]
    nodes: tuple[str, ...]
    node_names: tuple[str, ...]
    policy: Policy
    paid: Floats
    cautious: Mapping[str, Floats]
    modes: tuple[Mode, ...] | None = None
    memory: Memory | None = None

    @classmethod
    def of_table(cls, router: Router, policy: Policy, limits: Limits) -> Foresight:
        """As the artefact's table has it: the best member of a set answers, one per prompt.

        Raises
        ------
        PlanError
            The artefact does not say what its traffic was, knows none of the experts, or an
            expert has no device profile.
        """
        traffic = traffic_of(router)
        expected = among(by_category(router, len(traffic.categories)), columns_of(router))
        return cls._of(router, traffic, expected, policy, limits, "best", 1, None)

    @classmethod
    def of_modes(cls, router: Router, policy: Policy, limits: Limits) -> Foresight:
        """As the artefact's table of modes has it: one mode, a single or of several, per category.

        A mode of several counts with one standard error less than its quality, as it does when a
        request chooses.

        Raises
        ------
        PlanError
            The artefact learned no modes, or none of the configured experts; or as `of_table`.
        """
        learned = router.artefact.modes
        if learned is None:
            raise PlanError(
                "the artefact has learned no modes: train it on outcomes with answers "
                "(answer__ columns), or plan another aggregation"
            )
        table, traffic, columns = learned.table, traffic_of(router), columns_of(router)
        ids = [table.expert_ids[column] for column in columns]
        kept = [m for m, mode in enumerate(table.modes) if set(mode.members) <= set(ids)]
        if not kept:
            raise PlanError("every learned mode asks an expert that is not configured")
        modes = tuple(table.modes[m] for m in kept)
        several = np.array([len(mode.members) > 1 for mode in modes])
        less = np.where(several, table.quality_se[:, kept], 0.0)
        expected = among(by_category(router, len(traffic.categories)), columns)
        mean, cautious = used(router, traffic, expected)
        stages = Stages.of(modes, ids)
        rows = zip(table.usage[:, kept][:, :, columns], table.reach[:, kept], strict=True)
        n_stages = len(stages.asked)
        mean = np.stack(
            [
                stages.taken(each, usage.T, reach[:, :n_stages].T)
                for each, (usage, reach) in zip(mean, rows, strict=True)
            ]
        )
        cautious = np.stack([stages.taken(each, stages.usage, stages.reach) for each in cautious])
        quality = np.maximum(table.quality[:, kept] - less, 0.0)
        return cls._made(
            traffic, ids, mean, cautious, quality, policy, limits, "best", 1, None, modes
        )

    @classmethod
    def of_outcomes(
        cls,
        router: Router,
        rows: Outcomes,
        policy: Policy,
        limits: Limits,
        aggregation: Aggregation,
        k: int | None,
    ) -> Foresight:
        """As recorded outcomes have it: the gate is the logit of each prompt's expected quality.

        The alternative gate of MoE2, trained per expert, so that it is the same in every set.

        Parameters
        ----------
        rows : prompts that the router did not learn from, each scored by every expert.

        Raises
        ------
        PlanError
            No prompt was scored by every expert; or as `of_table`.
        """
        columns = columns_of(router)
        expert_ids = [router.artefact.expectation.expert_ids[k] for k in columns]
        missing = sorted(set(expert_ids) - set(rows.expert_ids))
        if missing:
            raise PlanError(f"the outcomes lack {', '.join(missing)}")
        rows = rows.columns(expert_ids)
        rows = rows.rows(np.all(~np.isnan(rows.scores), axis=1))
        if not rows.prompts:
            raise PlanError("no prompt of the outcomes was scored by every expert")
        X = embed_all(router.embedder, rows.prompts)
        found = router.artefact.category.assess(X)
        expected = among(router.artefact.expectation.of(X, found), columns)
        names = router.artefact.category.named(found)
        traffic = Traffic.of(router.artefact.category, names, rows.prompts)
        seen = [c for c, name in enumerate(traffic.categories) if np.any(names == name)]
        of = [names == traffic.categories[c] for c in seen]
        sure = np.clip(expected.quality, _DOUBT, 1 - _DOUBT)
        scores = rows.scores
        if aggregation == "likelihood":  # a score of 0 does not make an answer impossible
            scores = np.clip(scores, LIKELY, 1 - LIKELY)
        prompts = Prompts(
            logits=np.log(sure / (1 - sure)),
            outcome=scores,
            category=np.argmax(of, axis=0),
        )
        means = Expected(
            *(
                np.stack([figures[row].mean(axis=0) for row in of])
                for figures in (
                    expected.quality,
                    expected.quality_se,
                    expected.mean_tokens,
                    expected.cautious_tokens,
                )
            )
        )
        traffic = Traffic(
            tuple(traffic.categories[c] for c in seen),
            np.array([row.mean() for row in of]),
            traffic.prompt_tokens[seen],
        )
        return cls._of(router, traffic, means, policy, limits, aggregation, k, prompts)

    @classmethod
    def _of(
        cls,
        router: Router,
        traffic: Traffic,
        expected: Expected,
        policy: Policy,
        limits: Limits,
        aggregation: Aggregation,
        k: int | None,
        prompts: Prompts | None,
    ) -> Foresight:
        known = router.artefact.expectation.expert_ids
        ids = [known[column] for column in columns_of(router)]
        quality = expected.quality
        mean, cautious = used(router, traffic, expected)
        return cls._made(
            traffic, ids, mean, cautious, quality, policy, limits, aggregation, k, prompts
        )

    @classmethod
    def _made(
        cls,
        traffic: Traffic,
        ids: Sequence[str],
        mean: Floats,
        cautious: Floats,
        quality: Floats,
        policy: Policy,
        limits: Limits,
        aggregation: Aggregation,
        k: int | None,
        prompts: Prompts | None,
        modes: tuple[Mode, ...] | None = None,
    ) -> Foresight:
        """The foresight of answers that take ``mean`` and ``cautious``, by category and column."""
        ceilings = policy.budget.ceilings()
        most = {axis: cautious[..., AXES.index(axis)] for axis in ceilings}
        able = np.ones(quality.shape, dtype=bool)
        for axis, ceiling in ceilings.items():
            if axis != "latency_ms":  # which the problem has a ceiling for
                able &= most[axis] <= ceiling
        energy_j, cost_usd = (mean[..., AXES.index(axis)] for axis in ("energy_j", "cost_usd"))
        memory = _memory(ids, limits)
        problem = Problem(
            aggregation=aggregation,
            shares=traffic.shares,
            energy_j=energy_j,
            latency_ms=cautious[..., AXES.index("latency_ms")],
            cost_usd=cost_usd,
            quality=quality if prompts is None else None,
            prompts=prompts,
            k=k,
            sets="per_category",
            max_energy_j=limits.energy_j,
            max_cost_usd=limits.cost_usd,
            max_latency_ms=policy.budget.latency_ms,
            memory=memory if modes is None else None,
            able=able,
        )
        return cls(
            problem=problem,
            categories=traffic.categories,
            expert_ids=tuple(ids),
            nodes=tuple(limits.nodes.get(name, "") for name in ids),
            node_names=("", *limits.node_gb),
            policy=policy,
            paid=mean @ prices_of(policy.prices),
            cautious=most,
            modes=modes,
            memory=memory,
        )

    def named(self, columns: Sequence[int]) -> tuple[str, ...]:
        """The experts behind columns of the problem, each once, in order of appearance."""
        if self.modes is None:
            return tuple(self.expert_ids[n] for n in columns)
        return tuple(dict.fromkeys(name for n in columns for name in self.modes[n].members))

    def mode_of(self, columns: Sequence[int]) -> Mode | None:
        """The mode that is the one column of a category's set; ``None`` without modes."""
        return None if self.modes is None else self.modes[columns[0]]

    def columns_among(self, experts: Bools) -> Bools:
        """(n_columns,) those that ask nobody but these experts, (n_experts,)."""
        if self.modes is None:
            return experts
        there = {name for name, here in zip(self.expert_ids, experts, strict=True) if here}
        return np.array([there.issuperset(mode.members) for mode in self.modes])

    @property
    def needed(self) -> dict[str, float | None]:
        """What the policy would have to allow so that every category has an expert; empty if so.

        Per ceiling the smallest value that would do with the others kept, ``None`` if none would.
        """
        if np.all(np.any(allowed(self.problem), axis=1)):
            return {}
        ceilings, least = self.policy.budget.ceilings(), dict[str, float | None]()
        for axis, taken in self.cautious.items():
            others = np.ones(taken.shape, dtype=bool)
            for other, ceiling in ceilings.items():
                others &= (other == axis) | (self.cautious[other] <= ceiling)
            most = np.where(others, taken, np.inf).min(axis=1).max()
            least[axis] = float(most) if np.isfinite(most) else None
        return least

    @property
    def priced(self) -> Problem:
        """The problem with quality less what answers cost at the policy's prices, scaled."""
        low = self._low
        if low is None:
            return self.problem
        return replace(self.problem, quality=(self._utility - low) / (1.0 - low))

    def unscaled(self, value: float) -> float:
        """In points of quality, a value of `priced`."""
        low = self._low
        return value if low is None else value * (1.0 - low) + low

    @property
    def _low(self) -> float | None:
        """The least that an answer is worth once it is paid; ``None`` where nothing is."""
        if self.problem.aggregation != "best" or not self.paid.any():
            return None
        return min(float(self._utility.min()), 0.0)

    @property
    def _utility(self) -> Floats:
        assert self.problem.quality is not None
        worth: Floats = self.problem.quality - self.paid
        return worth


def _memory(expert_ids: Sequence[str], limits: Limits) -> Memory | None:
    if not limits.node_gb:
        return None
    names = ["", *limits.node_gb]
    return Memory(
        expert_gb=np.array([limits.memory_gb.get(name, 0.0) for name in expert_ids]),
        node=np.array([names.index(limits.nodes.get(name, "")) for name in expert_ids]),
        node_gb=np.array([np.inf, *limits.node_gb.values()]),
    )
