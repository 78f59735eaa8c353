"""What is foreseen of the traffic: experts, their answers' worth and usage, as a problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.core import Estimate, ExpertSpec, Policy
from coe.errors import PlanError
from coe.optimizer.footprint import allowed
from coe.optimizer.problem import Aggregation, Memory, Problem, Prompts
from coe.router import Router
from coe.routers.head import Assessment
from coe.routers.outcomes import Outcomes
from coe.routers.quality import Expected
from coe.routers.traffic import Traffic
from coe.routers.train import embed_all

Floats = NDArray[np.float64]

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
    paid : (n_categories, n_experts) points of quality that an answer of mean length costs at the
        policy's prices.
    cautious : by each ceiling of the policy, (n_categories, n_experts) what a cautious answer
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

    @classmethod
    def of_table(cls, router: Router, policy: Policy, limits: Limits) -> Foresight:
        """As the artefact's table has it: the best member of a set answers, one per prompt.

        Raises
        ------
        PlanError
            The artefact does not say what its traffic was, knows none of the experts, or an
            expert has no device profile.
        """
        artefact = router.artefact
        try:
            traffic = Traffic.read(artefact.training["traffic"])
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                "the artefact does not say what traffic it was trained on: train it again"
            ) from error
        n = len(traffic.categories)
        certain = Assessment(
            probabilities=np.eye(n)[:, :-1],
            entropy=np.zeros(n),
            distance=np.zeros(n),
            uncertain=np.arange(n) == n - 1,
        )
        table = replace(artefact.expectation, residual=None, lengths=None)
        expected = table.of(np.zeros((n, 0), dtype=np.float32), certain)
        columns = _columns(router)
        return cls._of(router, traffic, _some(expected, columns), policy, limits, "best", 1, None)

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
        columns = _columns(router)
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
        expected = _some(router.artefact.expectation.of(X, found), columns)
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
        specs = [router.specs[known[column]] for column in _columns(router)]
        mean = _estimates(specs, traffic, expected.mean_tokens)
        cautious = _estimates(specs, traffic, expected.cautious_tokens)
        ceilings = policy.budget.ceilings()
        taken = {axis: _figures(cautious, axis) for axis in ceilings}
        able = np.ones(expected.quality.shape, dtype=bool)
        for axis, ceiling in ceilings.items():
            if axis != "latency_ms":  # which the problem has a ceiling for
                able &= taken[axis] <= ceiling
        problem = Problem(
            aggregation=aggregation,
            shares=traffic.shares,
            energy_j=_figures(mean, "energy_j"),
            latency_ms=_figures(cautious, "latency_ms"),
            cost_usd=_figures(mean, "cost_usd"),
            quality=expected.quality if prompts is None else None,
            prompts=prompts,
            k=k,
            sets="per_category",
            max_energy_j=limits.energy_j,
            max_cost_usd=limits.cost_usd,
            max_latency_ms=policy.budget.latency_ms,
            memory=_memory([spec.id for spec in specs], limits),
            able=able,
        )
        ids = tuple(spec.id for spec in specs)
        nodes = tuple(limits.nodes.get(name, "") for name in ids)
        prices = policy.prices
        paid = (
            prices.per_second * _figures(mean, "latency_ms") / 1000.0
            + prices.per_joule * problem.energy_j
            + prices.per_usd * problem.costs_usd
        )
        node_names = ("", *limits.node_gb)
        return cls(problem, traffic.categories, ids, nodes, node_names, policy, paid, taken)

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


def _columns(router: Router) -> list[int]:
    """Columns of the artefact's experts that are configured."""
    known = router.artefact.expectation.expert_ids
    columns = [column for column, name in enumerate(known) if name in router.specs]
    if not columns:
        raise PlanError("the artefact knows none of the configured experts: train one")
    for column in columns:
        spec = router.specs[known[column]]
        if spec.profile.decode_tokens_per_s == np.inf or spec.profile.ttft_ms(100) <= 0:
            raise PlanError(f"expert {spec.id!r} has no device profile: planning needs its speed")
    return columns


def _some(expected: Expected, columns: Sequence[int]) -> Expected:
    return Expected(
        expected.quality[:, columns],
        expected.quality_se[:, columns],
        expected.mean_tokens[:, columns],
        expected.cautious_tokens[:, columns],
    )


def _estimates(
    specs: Sequence[ExpertSpec], traffic: Traffic, tokens: Floats
) -> list[list[Estimate]]:
    """(n_categories, n_experts) answers of these lengths, no longer than an expert's own cap."""
    return [
        [
            spec.estimate(0.0, float(length), min(float(n), spec.answer_tokens or np.inf))
            for spec, n in zip(specs, row, strict=True)
        ]
        for length, row in zip(traffic.prompt_tokens, tokens, strict=True)
    ]


def _figures(estimates: Sequence[Sequence[Any]], axis: str) -> Floats:
    return np.array([[getattr(estimate, axis) for estimate in row] for row in estimates])


def _memory(expert_ids: Sequence[str], limits: Limits) -> Memory | None:
    if not limits.node_gb:
        return None
    names = ["", *limits.node_gb]
    return Memory(
        expert_gb=np.array([limits.memory_gb.get(name, 0.0) for name in expert_ids]),
        node=np.array([names.index(limits.nodes.get(name, "")) for name in expert_ids]),
        node_gb=np.array([np.inf, *limits.node_gb.values()]),
    )
