"""What texts say: to which category they belong, and what is expected of every expert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL
from coe.decision import CategoryGuess
from coe.routers.artefact import Artefact
from coe.routers.embed import Embedder
from coe.routers.quality import Expected
from coe.steps import untimed


@dataclass(frozen=True, slots=True, eq=False)
class TextReading:
    """What one text says: vector (1, dim), category, expected answers (1, n_experts)."""

    text: str
    vectors: NDArray[np.float32]
    guess: CategoryGuess
    expected: Expected


def read(
    texts: Sequence[str],
    embedder: Embedder,
    artefact: Artefact,
    lap: Callable[[str], None] = untimed,
) -> list[TextReading]:
    """The reading of each text, all embedded at once. A text that says nothing is "general".

    Parameters
    ----------
    lap : told when each part of it is done: ``embed``, ``category``, ``quality``.
    """
    vectors = embedder.embed(texts)
    lap("embed")
    found = artefact.category.assess(vectors)
    # the thresholds of an artefact may let a zero vector pass
    found = replace(found, uncertain=found.uncertain | ~vectors.any(axis=1))
    lap("category")
    expected = artefact.expectation.of(vectors, found)
    columns = found.probabilities.argmax(axis=1)
    readings = []
    for k, (text, column) in enumerate(zip(texts, columns, strict=True)):
        likeliest = str(artefact.category.classes_[column])
        uncertain = bool(found.uncertain[k])
        guess = CategoryGuess(
            name=GENERAL if uncertain else likeliest,
            likeliest=likeliest,
            probability=float(found.probabilities[k, column]),
            entropy=float(found.entropy[k]),
            distance=float(found.distance[k]),
            uncertain=uncertain,
        )
        readings.append(TextReading(text, vectors[k : k + 1], guess, _row(expected, k)))
    lap("quality")
    return readings


def _row(expected: Expected, k: int) -> Expected:
    return Expected(
        quality=expected.quality[k : k + 1],
        quality_se=expected.quality_se[k : k + 1],
        mean_tokens=expected.mean_tokens[k : k + 1],
        cautious_tokens=expected.cautious_tokens[k : k + 1],
    )
