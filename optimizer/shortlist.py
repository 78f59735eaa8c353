"""Who of several experts answers a prompt, by the weights of a gate."""

from __future__ import annotations

import numpy as np

from coe.optimizer.figures import Floats, Integers


def top_k(weights: Floats, k: int) -> Integers:
    """Indices of the ``k`` largest weights, largest first; of equal ones the first.

    Experts without weight are left out, so there may be fewer.

    Parameters
    ----------
    weights : (n_experts,) not negative, not NaN.
    k : at least 1.
    """
    order = np.argsort(-weights, kind="stable")[:k]
    return order[weights[order] > 0]


def top_p(weights: Floats, p: float) -> Integers:
    """Indices of the fewest experts whose weights make up more than ``p`` of all.

    Largest first, as in `top_k`: harder prompts, with a flatter gate, get more experts ("Harder
    Tasks Need More Experts", arXiv 2403.07652). All experts with weight, where ``p`` is 1 or
    more; none where no expert has any.

    Parameters
    ----------
    weights : (n_experts,) not negative, not NaN.
    p : not negative.
    """
    order = top_k(weights, weights.size)
    mass = np.cumsum(weights[order])
    if not order.size or p >= 1:
        return order
    enough = int(np.searchsorted(mass, p * mass[-1], side="right")) + 1
    return order[:enough]


def gate(quality: Floats) -> Floats:
    """(n_experts,) weights that sum to 1, the softmax of the logits of expected qualities.

    The gate of MoE2 trained expert by expert, which stays the same in every set. An expert that
    is sure to be right takes all; several share it; if all are sure to fail, they share alike.

    Parameters
    ----------
    quality : (n_experts,) in [0, 1], n_experts >= 1.
    """
    odds = odds_of(quality)
    total = float(odds.sum())
    weights: Floats = odds / total if total > 0 else np.full(quality.size, 1 / quality.size)
    return weights


def odds_of(quality: Floats) -> Floats:
    """(n_experts,) gate weights up to a factor; of those who are sure 1, of others then 0."""
    sure = quality >= 1
    odds: Floats = quality / np.where(sure, 1.0, 1.0 - quality)
    return sure.astype(float) if sure.any() else odds
