"""What a router expects of prompts whose outcomes are recorded, and what was recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.core import ExpertSpec, estimated_tokens
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.routers.quality import Expected
from coe.routers.reading import read
from coe.simulation.workload import Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ALL = slice(None)

_UNBOUNDED_TOKENS = 256.0  # where nothing bounds an answer
_BATCH = 256  # prompts read at once


@dataclass(frozen=True, slots=True)
class Outlook:
    """Prompts and experts, as a router sees them and as they turned out.

    Parameters
    ----------
    specs : (n_experts,) the experts of the artefact, in its order; the ``slots`` of each are those
        of all its replicas together.
    replicas : (n_experts,) how many there are of each.
    categories : (n_prompts,) what the router takes each prompt for.
    expected : per prompt and expert.
    prompt_tokens : (n_prompts,) as a router estimates them.
    scores, tokens : (n_prompts, n_experts) recorded; where no length was, the expected one.
    """

    specs: tuple[ExpertSpec, ...]
    replicas: Integers
    categories: tuple[str, ...]
    expected: Expected
    prompt_tokens: Floats
    scores: Floats
    tokens: Floats

    @classmethod
    def of(cls, router: Router, rows: Outcomes, replicas: Integers) -> Outlook:
        """The outlook of these rows, read as in production, each text once.

        Parameters
        ----------
        rows : columns as the artefact's experts; every score is known.
        replicas : (n_experts,) in the same order, at least 1 each.
        """
        readings = []
        for start in range(0, len(rows.prompts), _BATCH):
            texts = rows.prompts[start : start + _BATCH]
            readings += read(texts, router.embedder, router.artefact)
        names = ("quality", "quality_se", "mean_tokens", "cautious_tokens")
        expected = Expected(
            *(np.vstack([getattr(one.expected, name) for one in readings]) for name in names)
        )
        specs = [router.specs[name] for name in router.artefact.expectation.expert_ids]
        return cls(
            specs=tuple(
                replace(spec, slots=spec.slots * int(n))
                for spec, n in zip(specs, replicas, strict=True)
            ),
            replicas=replicas,
            categories=tuple(one.guess.name for one in readings),
            expected=expected,
            prompt_tokens=np.array([float(estimated_tokens(text)) for text in rows.prompts]),
            scores=rows.scores,
            tokens=np.where(np.isnan(rows.tokens), expected.mean_tokens, rows.tokens),
        )

    @property
    def slots_each(self) -> Integers:
        """(n_experts,) slots of one replica."""
        return np.array([spec.slots for spec in self.specs]) // self.replicas

    @property
    def answer_tokens(self) -> Floats:
        """(n_experts,) each expert's own cap on its answers; ``inf`` where it has none."""
        return np.array([spec.answer_tokens or np.inf for spec in self.specs])

    @property
    def longest_tokens(self) -> Floats:
        """(n_experts,) the longest answer that is expected of each, as a gateway's fleet does."""
        return np.array([spec.answer_tokens or _UNBOUNDED_TOKENS for spec in self.specs])

    def lengths(self, workload: Workload, rows: slice = ALL) -> Floats:
        """(n_rows, n_experts) tokens of everyone's answers to these requests, within their caps."""
        told = workload.output_tokens
        tokens = self.tokens[workload.prompt[rows]] if told is None else told[rows, None]
        lengths: Floats = np.minimum(tokens, self.answer_tokens)
        return lengths

    def lengths_of(self, workload: Workload, requests: Integers, expert: int) -> Floats:
        """(n,) the same of some requests and one expert."""
        told = workload.output_tokens
        if told is None:
            tokens = self.tokens[workload.prompt[requests], expert]
        else:
            tokens = told[requests]
        lengths: Floats = np.minimum(tokens, self.answer_tokens[expert])
        return lengths
