"""What every set becomes with one more expert: its worth and usage, for all experts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coe.kernels.mixture import relative_weights
from coe.optimizer.figures import Floats, Integers
from coe.optimizer.problem import Problem
from coe.optimizer.rows import Rows

WORTHLESS = -1e9
"""Stands for ``-inf``, which would leave no difference between sums."""

Set = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Landscape:
    """The categories that share one set.

    Parameters
    ----------
    categories : indices of rows.
    gates : with prompts: of the group's, what each expert adds.
    """

    problem: Problem
    rows: Rows
    categories: Integers
    gates: Gates | None = None

    @classmethod
    def of(cls, problem: Problem, rows: Rows, categories: Integers) -> Landscape:
        """The landscape of these categories."""
        gates = None
        if problem.aggregation not in ("best", "sum"):
            gates = Gates.of(problem, categories)
        return cls(problem, rows, categories, gates)

    def worth(self, base: Set) -> Floats:
        """(n_experts,) weighed worth of the set and one expert; of the set, for its members."""
        shares, here = self.problem.shares[self.categories], list(base)
        if self.gates is not None:
            worth = self.gates.worth(base)
        else:
            assert self.problem.quality is not None
            quality = self.problem.quality[self.categories]
            if self.problem.aggregation == "best":
                top = np.max(quality[:, here], axis=1, initial=0.0, keepdims=True)
                worth = shares @ np.maximum(quality, top)
            else:
                alone = shares @ quality
                worth = alone + alone[here].sum()
                worth[here] -= alone[here]
        return np.maximum(worth, WORTHLESS)

    def usage(self, base: Set) -> Floats:
        """(n_means, n_experts) joules or dollars of the set and one expert."""
        figures = self.rows.taken[:, self.categories]
        here, k = list(base), self.problem.k
        if k is None or k >= self.problem.n_experts:
            alone = figures.sum(axis=1)
            total: Floats = alone + alone[:, here].sum(axis=1, keepdims=True)
            total[:, here] -= alone[:, here]
            return total
        dearest = -np.sort(-figures[:, :, here], axis=2)[:, :, :k]
        own = dearest.sum(axis=(1, 2))
        if len(base) < k:
            total = (dearest.sum(axis=2, keepdims=True) + figures).sum(axis=1)
        else:
            rest = dearest[:, :, : k - 1].sum(axis=2, keepdims=True)
            total = (rest + np.maximum(dearest[:, :, k - 1 :], figures)).sum(axis=1)
        total[:, here] = own[:, None]
        return total


@dataclass(frozen=True, slots=True)
class Gates:
    """Gates over recorded prompts, and what each expert adds to a mixture.

    Parameters
    ----------
    logits, weight, product : (n_prompts, n_experts); the product is weight times outcome.
    row_weight : (n_prompts,) share of the traffic.
    k : experts that answer.
    log : the logarithm of the mixture counts.
    """

    logits: Floats
    weight: Floats
    product: Floats
    row_weight: Floats
    k: int
    log: bool

    @classmethod
    def of(cls, problem: Problem, categories: Integers) -> Gates:
        """Those of the prompts of these categories."""
        assert problem.prompts is not None
        prompts = problem.prompts
        counts = np.bincount(prompts.category, minlength=problem.n_categories)
        row_weight = (problem.shares / counts)[prompts.category]
        here = np.isin(prompts.category, categories) & (row_weight > 0)
        weight = relative_weights(prompts.logits[here])
        k = 1 if problem.aggregation == "choose" else problem.k or problem.n_experts
        log = problem.aggregation == "likelihood"
        product = weight * prompts.outcome[here]
        return cls(prompts.logits[here], weight, product, row_weight[here], k, log)

    def worth(self, base: Set) -> Floats:
        """(n_experts,) mean mixture of the set and one expert."""
        members = np.array(base, dtype=np.intp)
        if len(base) < self.k:
            parts = [figures[:, members].sum(axis=1) for figures in (self.product, self.weight)]
            mixed = (parts[0][:, None] + self.product) / (parts[1][:, None] + self.weight)
            own = parts[0] / np.where(parts[1] > 0, parts[1], 1.0)
        else:
            order = np.argsort(-self.logits[:, members], axis=1, kind="stable")[:, : self.k]
            top = members[order]
            product = np.take_along_axis(self.product, top, axis=1)
            weight = np.take_along_axis(self.weight, top, axis=1)
            own = product.sum(axis=1) / weight.sum(axis=1)
            last = top[:, -1:]
            threshold = np.take_along_axis(self.logits, last, axis=1)
            first = np.arange(self.logits.shape[1]) < last
            beats = (self.logits > threshold) | ((self.logits == threshold) & first)
            joined = product[:, :-1].sum(axis=1, keepdims=True) + self.product
            joined /= weight[:, :-1].sum(axis=1, keepdims=True) + self.weight
            mixed = np.where(beats, joined, own[:, None])
        mixed[:, members] = own[:, None]
        if self.log:
            with np.errstate(divide="ignore"):
                mixed = np.log(mixed)
        worth: Floats = self.row_weight @ mixed
        return worth
