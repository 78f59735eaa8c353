"""What sets of experts are worth, category by category.

With gate weights ``g_n(x; S)``, the softmax of the logits over the ``k`` members of the set S
whose logits are largest (MoE2, arXiv 2501.09410; reconstruction, equations ours)::

    best        max_{n in S} q_cn                       the category's best member answers
    sum         sum_{n in S} q_cn                       every member adds its share
    mixture     mean_x sum_n g_n(x; S) y_n(x)           expected score of a member drawn by weight
    choose      mean_x y_{argmax g}(x)                  score of the member of the largest weight
    likelihood  mean_x ln sum_n g_n(x; S) y_n(x)        of the right answer under the mixture

Only the first two are sure to grow with the set. For the others a larger set may be worth less;
what bounds all subsets of S is the `majorant`, in which every prompt has its best member.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from coe.kernels.mixture import (
    gate_weights,
    mixtures_of_subsets,
    relative_weights,
    top_of_subsets,
)
from coe.kernels.staircase import best_of_subsets, sums_of_subsets
from coe.optimizer.figures import Bools, Floats, Integers
from coe.optimizer.problem import Problem, Prompts


class Value(Protocol):
    """What sets are worth in each category."""

    def of(self, members: Bools) -> Floats:
        """(n_categories, n_sets) worth of (n_sets, n_experts) sets; ``-inf`` for an empty one."""
        ...

    def totals(self, shares: Floats) -> Floats:
        """(2 ** n_experts,) mean worth of every set; bit n of an index is expert n.

        ``shares``: (n_categories,) weight of each category; one of weight 0 does not count.
        """
        ...

    def weights(self, members: Bools) -> Floats:
        """(n_categories, n_experts) mean share of each expert in the answers of one set."""
        ...


@dataclass(frozen=True, slots=True)
class Best(Value):
    """Facility location: the mean over rows of the best member's score. Monotone, submodular.

    Parameters
    ----------
    scores : (n_rows, n_experts).
    category : (n_rows,) category of each row.
    row_weight : (n_rows,) positive; those of a category sum to 1.
    n_categories : number of categories.
    """

    scores: Floats
    category: Integers
    row_weight: Floats
    n_categories: int

    def of(self, members: Bools) -> Floats:
        """As `Value.of`."""
        worth = np.zeros((self.n_categories, len(members)))
        for row, c, weight in zip(self.scores, self.category, self.row_weight, strict=True):
            worth[c] += weight * np.max(
                np.broadcast_to(row, members.shape), axis=1, where=members, initial=-np.inf
            )
        return worth

    def totals(self, shares: Floats) -> Floats:
        """As `Value.totals`."""
        weight = shares[self.category] * self.row_weight
        return best_of_subsets(self.scores[weight > 0], weight[weight > 0])

    def weights(self, members: Bools) -> Floats:
        """As `Value.weights`: the best member, of equals the first, answers."""
        scores = np.where(members, self.scores, -np.inf)
        share = np.zeros((self.n_categories, members.size))
        np.add.at(share, (self.category, scores.argmax(axis=1)), self.row_weight)
        return share


@dataclass(frozen=True, slots=True)
class Sum(Value):
    """The sum of the members' (n_categories, n_experts) qualities. Additive."""

    quality: Floats

    def of(self, members: Bools) -> Floats:
        """As `Value.of`."""
        return np.where(members.any(axis=1), self.quality @ members.T, -np.inf)

    def totals(self, shares: Floats) -> Floats:
        """As `Value.totals`."""
        worth = sums_of_subsets(shares @ self.quality)
        worth[0] = -np.inf
        return worth

    def weights(self, members: Bools) -> Floats:
        """As `Value.weights`: all members alike."""
        return np.tile(members / members.sum(), (len(self.quality), 1))


@dataclass(frozen=True, slots=True)
class Mixture(Value):
    """What the gate makes of recorded prompts; with ``log``, the mean logarithm of that."""

    prompts: Prompts
    n_categories: int
    k: int | None
    log: bool

    def of(self, members: Bools) -> Floats:
        """As `Value.of`."""
        empty = ~members.any(axis=1)
        k = self.k if self.k is not None and self.k < members.shape[1] else None
        if k is None:
            weight = relative_weights(self.prompts.logits)
            total = weight @ members.T
            mixed = np.divide(
                (weight * self.prompts.outcome) @ members.T, total, where=total > 0, out=total
            )
        else:
            mixed = np.stack(
                [
                    np.sum(gate_weights(self.prompts.logits, row, k) * self.prompts.outcome, axis=1)
                    for row in members
                ],
                axis=1,
            )
        if self.log:
            with np.errstate(divide="ignore"):
                mixed = np.log(mixed)
        worth = np.stack([mixed[self.prompts.category == c].mean(axis=0) for c in self._rows])
        worth[:, empty] = -np.inf
        return worth

    def totals(self, shares: Floats) -> Floats:
        """As `Value.totals`."""
        worth = np.zeros(1 << self.prompts.logits.shape[1])
        for c in np.flatnonzero(shares):
            here = self.prompts.category == c
            worth += shares[c] * self._totals(self.prompts.logits[here], self.prompts.outcome[here])
        return worth

    def _totals(self, logits: Floats, outcome: Floats) -> Floats:
        if self.k is None or self.k >= logits.shape[1]:
            return mixtures_of_subsets(logits, outcome, self.log)
        return top_of_subsets(logits, outcome, self.k, self.log)

    def weights(self, members: Bools) -> Floats:
        """As `Value.weights`."""
        gates = gate_weights(self.prompts.logits, members, self.k or members.size)
        return np.stack([gates[self.prompts.category == c].mean(axis=0) for c in self._rows])

    @property
    def _rows(self) -> range:
        return range(self.n_categories)


def value_of(problem: Problem) -> Best | Sum | Mixture:
    """The aggregation of the problem, as a function of sets."""
    if problem.aggregation in ("best", "sum"):
        assert problem.quality is not None
        if problem.aggregation == "sum":
            return Sum(problem.quality)
        rows = np.arange(problem.n_categories)
        return Best(problem.quality, rows, np.ones(rows.size), rows.size)
    assert problem.prompts is not None
    k = 1 if problem.aggregation == "choose" else problem.k
    return Mixture(problem.prompts, problem.n_categories, k, problem.aggregation == "likelihood")


def majorant(problem: Problem) -> Best | Sum:
    """A monotone, submodular value that no subset of a set exceeds; the value itself if it is so.

    A mixture is worth no more than its best member, prompt by prompt.
    """
    own = value_of(problem)
    if not isinstance(own, Mixture):
        return own
    prompts = own.prompts
    with np.errstate(divide="ignore"):
        scores = np.log(prompts.outcome) if own.log else prompts.outcome
    counts = np.bincount(prompts.category, minlength=own.n_categories)
    return Best(scores, prompts.category, 1.0 / counts[prompts.category], own.n_categories)


def over_traffic(shares: Floats, worth: Floats) -> Floats:
    """(n_sets,) mean of (n_categories, n_sets); a category without traffic does not count."""
    busy = shares > 0
    mean: Floats = shares[busy] @ worth[busy]
    return mean
