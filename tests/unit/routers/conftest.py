"""Tables of outcomes made by hand or drawn at random, with an embedder that knows their prompts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from coe.routers.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class LookupEmbedder:
    """The vector that each known text was given; zero for any other."""

    vectors: Mapping[str, NDArray[np.float32]]
    dim: int
    name: str = "lookup"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        unknown = np.zeros(self.dim, dtype=np.float32)
        rows = [self.vectors.get(text, unknown) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.dim)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A random table, its embedder, and the embedding of each of its prompts."""

    outcomes: Outcomes
    embedder: LookupEmbedder
    X: NDArray[np.float32]


def make_outcomes(
    scores: ArrayLike,
    prompts: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    tokens: ArrayLike | None = None,
) -> Outcomes:
    """Outcomes with these (n_prompts, n_experts) scores; what is not given is unknown."""
    scores = np.array(scores, dtype=float)
    named = {"categories": categories, "tasks": tasks, "splits": splits}
    known = {name: np.array(values) for name, values in named.items() if values is not None}
    if tokens is not None:
        known["tokens"] = np.array(tokens, dtype=float)
    return Outcomes.of(
        prompts or [f"prompt {k}" for k in range(len(scores))],
        "abcdefgh"[: scores.shape[1]],
        scores,
        **known,
    )


def draw_outcomes(
    right: ArrayLike,
    seed: int = 0,
    n_train: int = 160,
    n_dev: int = 80,
    dim: int = 8,
    spread: float = 0.4,
) -> Drawn:
    """Scores of 0 and 1 on prompts of categories "c0", "c1", ..., one Gaussian cloud each.

    Parameters
    ----------
    right : (n_categories, n_experts) how probable a score of 1 is.
    spread : length of the noise about a cloud's centre, which is of unit length.
    """
    right = np.array(right, dtype=float)
    rng = np.random.default_rng(seed)
    n = n_train + n_dev
    category = rng.integers(len(right), size=n)
    X = np.eye(dim)[category] + spread * rng.normal(size=(n, dim)) / np.sqrt(dim)
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    outcomes = make_outcomes(
        rng.random((n, right.shape[1])) < right[category],
        categories=[f"c{k}" for k in category],
        splits=["train"] * n_train + ["dev"] * n_dev,
    )
    embedder = LookupEmbedder(dict(zip(outcomes.prompts, X, strict=True)), dim)
    return Drawn(outcomes, embedder, X)


@pytest.fixture(scope="session", name="make_outcomes")
def _make_outcomes() -> Callable[..., Outcomes]:
    return make_outcomes


@pytest.fixture(scope="session", name="draw_outcomes")
def _draw_outcomes() -> Callable[..., Drawn]:
    return draw_outcomes
