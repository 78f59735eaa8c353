"""Gates over experts, trained on recorded outcomes: logits linear in a prompt's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Loss = Callable[[Floats, Floats], tuple[float, Floats]]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
N_DIMENSIONS = 64
_N_ITERATIONS = 300


@dataclass(frozen=True, slots=True)
class Reduction:
    """The principal components of embeddings, scaled alike, and a column of ones."""

    mean: Floats
    directions: Floats

    @classmethod
    def of(cls, X: Floats) -> Reduction:
        """The first `N_DIMENSIONS` components of (n_prompts, dim) embeddings."""
        mean = X.mean(axis=0)
        variances, vectors = np.linalg.eigh(np.cov(X - mean, rowvar=False))
        kept = vectors[:, ::-1][:, :N_DIMENSIONS]
        scale = np.sqrt(variances[::-1][:N_DIMENSIONS].mean())
        return cls(mean, kept / scale)

    def features(self, X: Floats) -> Floats:
        """(n_prompts, n_features), the last of them 1."""
        return with_ones((X - self.mean) @ self.directions)


def with_ones(Z: Floats) -> Floats:
    """The same features and a last column of ones."""
    return np.column_stack([Z, np.ones(len(Z))])


def mixture_loss(logits: Floats, outcome: Floats) -> tuple[float, Floats]:
    """Cross-entropy of the mixture, and its gradient: the gate less the posterior."""
    joint = logits + np.log(outcome)
    gate, total = _softmax(logits)
    posterior, joint_total = _softmax(joint)
    return float(np.mean(total - joint_total)), (gate - posterior) / len(logits)


def expert_loss(logits: Floats, outcome: Floats) -> tuple[float, Floats]:
    """Binary cross-entropy of "the expert is right", a sum over experts, and its gradient."""
    right = 1.0 / (1.0 + np.exp(-logits))
    loss = np.logaddexp(0.0, logits) - outcome * logits
    return float(loss.sum(axis=1).mean()), (right - outcome) / len(logits)


def objective(loss: Loss, Z: Floats, outcome: Floats, weights: Floats, penalty: float) -> float:
    """What training minimises: the loss, and the penalty on all weights but the intercepts."""
    return loss(Z @ weights, outcome)[0] + 0.5 * penalty * float(np.sum(weights[:-1] ** 2))


def trained(
    loss: Loss, Z: Floats, outcome: Floats, penalty: float, starts: tuple[Floats, ...] = ()
) -> Floats:
    """(n_features, n_experts) weights by L-BFGS from zero and from ``starts``; the best is kept."""
    shape = (Z.shape[1], outcome.shape[1])

    def of(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        value, slope = loss(Z @ weights, outcome)
        gradient = Z.T @ slope
        gradient[:-1] += penalty * weights[:-1]
        return value + 0.5 * penalty * float(np.sum(weights[:-1] ** 2)), gradient.ravel()

    found = [
        minimize(of, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _N_ITERATIONS})
        for start in (np.zeros(shape), *starts)
    ]
    best: Floats = min(found, key=lambda run: run.fun).x.reshape(shape)
    return best


def best_penalty(loss: Loss, Z: Floats, outcome: Floats, rng: np.random.Generator) -> float:
    """The one of `PENALTIES` with the least loss on a fifth of the prompts, trained on the rest."""
    held_out = rng.random(len(Z)) < 0.2
    losses = [
        loss(
            Z[held_out] @ trained(loss, Z[~held_out], outcome[~held_out], penalty),
            outcome[held_out],
        )[0]
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(losses))]


def _softmax(logits: Floats) -> tuple[Floats, Floats]:
    """Softmax of every row, and the logarithm of its denominator."""
    top = logits.max(axis=1, keepdims=True)
    weight = np.exp(logits - top)
    total = weight.sum(axis=1, keepdims=True)
    return weight / total, (np.log(total) + top).ravel()
