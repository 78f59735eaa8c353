"""Learning, from recorded answers, how far answers of several experts can be believed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np
from sklearn.linear_model import LogisticRegression

from coe.routers.confidence import SILENT, TRAITS, Answers, Confidence, Floats, Integers, traits

_FEWEST_PAIRS = 20
_MOST_OPTIONS = 100.0
_PENALTY = 1.0


def numbered(verdicts: Sequence[Sequence[Hashable | None]]) -> Integers:
    """(n_prompts, n_experts) verdicts as numbers, equal in a row where they are equal.

    They are numbered in the order of their ``repr``, by which a vote breaks its last ties;
    ``None`` is `SILENT`.
    """
    rows = []
    for row in verdicts:
        order = sorted({said for said in row if said is not None}, key=repr)
        number = {said: n for n, said in enumerate(order)}
        rows.append([SILENT if said is None else number[said] for said in row])
    return np.array(rows, dtype=np.int64)


def effective_options(said: Integers, scores: Floats) -> float:
    """How many options questions seem to have: one more than wrong answers that differ.

    Two experts that are wrong agree with probability ``1 / (k - 1)`` if wrong answers spread
    evenly over k options; k is solved from how often they do agree, over all pairs of experts. In
    [2, 100]; 2 where hardly any pair was wrong together.

    Parameters
    ----------
    said, scores : (n_prompts, n_experts) of training prompts.
    """
    wrong = (scores < 0.5) & (said != SILENT)
    together = agreeing = 0
    for a, b in combinations(range(said.shape[1]), 2):
        both = wrong[:, a] & wrong[:, b]
        together += int(both.sum())
        agreeing += int((said[both, a] == said[both, b]).sum())
    if together < _FEWEST_PAIRS:
        return 2.0
    return float(np.clip(1.0 + together / max(agreeing, 1), 2.0, _MOST_OPTIONS))


def fit_confidence(answers: Answers, scores: Floats) -> Confidence:
    """The confidence learned from every answer, with every set of others that may be in hand.

    Each set counts alike, however many answers it has. Where all answers are right, or all wrong,
    the confidence is their expected quality.

    Parameters
    ----------
    scores : (n_prompts, n_experts), all known; at least 0.5 is right. At most ten experts or so:
        there are ``2 ** n_experts`` sets.
    """
    n_experts = scores.shape[1]
    right = scores >= 0.5
    if right.all() or not right.any():
        return Confidence(np.eye(len(TRAITS))[0], 0.0)
    X, y, weight = [], [], []
    for size in range(1, n_experts + 1):
        for chosen in map(list, combinations(range(n_experts), size)):
            asked = np.isin(np.arange(n_experts), chosen)
            X.append(traits(answers, asked)[:, chosen].reshape(-1, len(TRAITS)))
            y.append(right[:, chosen].ravel())
            weight.append(np.full(right[:, chosen].size, 1.0 / size))
    regression = LogisticRegression(C=1.0 / _PENALTY, max_iter=1000)
    regression.fit(np.vstack(X), np.concatenate(y), sample_weight=np.concatenate(weight))
    return Confidence(regression.coef_[0].astype(float), float(regression.intercept_[0]))
