"""What answers cost: recorded where it was, else reckoned from the experts' figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.core import ExpertSpec, estimated_tokens
from coe.routers.outcomes import Outcomes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Usage:
    """Dollars, joules and milliseconds of each expert's answer, (n_prompts, n_experts).

    NaN where neither a record nor the expert's figures tell: an expert without prices has
    unknown dollars, one without a device profile unknown joules and milliseconds.
    """

    cost_usd: Floats
    energy_j: Floats
    latency_ms: Floats

    @classmethod
    def expected(
        cls, prompts: Sequence[str], experts: Sequence[ExpertSpec], tokens: Floats
    ) -> Usage:
        """Reckoned from answers of ``tokens`` (n_prompts, n_experts)."""
        cells = [
            [_reckoned(spec, n, float(m)) for spec, m in zip(experts, row, strict=True)]
            for n, row in zip(map(estimated_tokens, prompts), tokens, strict=True)
        ]
        figures = np.array(cells).reshape(len(prompts), len(experts), 3)
        return cls(figures[..., 0], figures[..., 1], figures[..., 2])

    @classmethod
    def of(cls, rows: Outcomes, experts: Sequence[ExpertSpec], tokens: Floats) -> Usage:
        """Recorded, else reckoned from recorded lengths, else from answers of ``tokens``."""
        told = np.where(np.isnan(rows.tokens), tokens, rows.tokens)
        return cls.expected(rows.prompts, experts, told).recorded(rows)

    def recorded(self, rows: Outcomes) -> Usage:
        """The same with what ``rows`` recorded in place of what was reckoned."""
        return Usage(
            np.where(np.isnan(rows.cost_usd), self.cost_usd, rows.cost_usd),
            np.where(np.isnan(rows.energy_j), self.energy_j, rows.energy_j),
            np.where(np.isnan(rows.latency_ms), self.latency_ms, rows.latency_ms),
        )


def _reckoned(spec: ExpertSpec, prompt_tokens: float, tokens: float) -> tuple[float, float, float]:
    priced = spec.usd_per_mtok_in > 0 or spec.usd_per_mtok_out > 0
    profiled = spec.profile.decode_w > 0
    answer = spec.estimate(0.0, prompt_tokens, tokens)
    return (
        answer.cost_usd if priced else np.nan,
        answer.energy_j if profiled else np.nan,
        answer.latency_ms if profiled else np.nan,
    )
