"""What a category router makes of many prompts: how often each category comes, and how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL, estimated_tokens
from coe.routers.head import CategoryHead

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Share of the prompts that each category has, and the mean length of those.

    Shares are those after one more prompt of every category, so that none is taken to be
    impossible.

    Parameters
    ----------
    categories : (n_categories,) names, the last one for prompts that the router is unsure of.
    shares : (n_categories,) summing to 1.
    prompt_tokens : (n_categories,) mean estimated length; that of all where there are none.
    """

    categories: tuple[str, ...]
    shares: Floats
    prompt_tokens: Floats

    @classmethod
    def of(cls, head: CategoryHead, names: NDArray[np.str_], prompts: Sequence[str]) -> Traffic:
        """The traffic of these prompts, at least one.

        Parameters
        ----------
        names : (n_prompts,) what ``head`` calls them, as from `CategoryHead.named`.
        """
        tokens = np.array([estimated_tokens(prompt) for prompt in prompts], dtype=float)
        categories = (*head.classes_.tolist(), GENERAL)
        rows = [names == name for name in categories]
        counts = np.array([row.sum() + 1.0 for row in rows])
        lengths = [tokens[row].mean() if row.any() else tokens.mean() for row in rows]
        return cls(
            categories=categories,
            shares=counts / counts.sum(),
            prompt_tokens=np.array(lengths),
        )

    def document(self) -> dict[str, dict[str, float]]:
        """As plain values, rounded, for a manifest."""
        rows = zip(self.categories, self.shares, self.prompt_tokens, strict=True)
        return {
            name: {"share": round(float(share), 4), "prompt_tokens": round(float(tokens), 1)}
            for name, share, tokens in rows
        }

    @classmethod
    def read(cls, document: Mapping[str, Mapping[str, Any]]) -> Traffic:
        """What `document` said; shares are made to sum to 1 again.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is something else.
        """
        shares = np.array([float(row["share"]) for row in document.values()])
        tokens = np.array([float(row["prompt_tokens"]) for row in document.values()])
        if not (np.all(shares >= 0) and shares.sum() > 0 and np.all(tokens > 0)):
            raise ValueError("shares must be non-negative, some positive, and tokens positive")
        return cls(tuple(document), shares / shares.sum(), tokens)
