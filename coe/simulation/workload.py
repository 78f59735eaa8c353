"""Which requests arrive, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded requests, each (n_rows,), n_rows >= 2.

    Parameters
    ----------
    prompt_tokens, output_tokens : lengths of prompts and answers.
    at_s : arrivals, ascending from 0, not all 0; ``None``: only lengths were recorded.
    """

    prompt_tokens: Floats
    output_tokens: Floats
    at_s: Floats | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order of their arrival.

    Parameters
    ----------
    at_s : (n_requests,) ascending from 0.
    prompt : (n_requests,) row of the table of outcomes that each one asks.
    draws : (n_requests, 3) uniform in [0, 1): two for the choice among replicas, one for a policy
        that chooses at random. Every policy gets the same.
    prompt_tokens : (n_requests,) lengths.
    output_tokens : (n_requests,) lengths of answers, whoever answers; ``None``: those recorded of
        prompt and expert.
    """

    at_s: Floats
    prompt: Integers
    draws: Floats
    prompt_tokens: Floats
    output_tokens: Floats | None = None

    @classmethod
    def poisson(cls, n_requests: int, prompt_tokens: Floats, rng: np.random.Generator) -> Workload:
        """Arrivals without memory, one a second on average, of prompts drawn at random.

        Parameters
        ----------
        prompt_tokens : (n_prompts,) lengths of the table's prompts.

        Raises
        ------
        ValueError
            ``n_requests`` is not positive.
        """
        if n_requests < 1:
            raise ValueError(f"n_requests must be at least 1, not {n_requests!r}")
        gaps_s = rng.exponential(1.0, n_requests)
        gaps_s[0] = 0.0
        prompt = rng.integers(prompt_tokens.size, size=n_requests)
        draws = rng.random((n_requests, 3))
        return cls(np.cumsum(gaps_s), prompt, draws, prompt_tokens[prompt])

    def along(self, trace: Trace, lengths: bool, rng: np.random.Generator) -> Workload:
        """The same prompts at the arrivals of a trace, and with its lengths if wanted.

        From a row drawn at random, and from the first one again at its end, so that arrivals keep
        their bursts, and lengths their neighbours. Where the trace has no arrivals, they stay.
        """
        n_rows = trace.prompt_tokens.size
        rows = (int(rng.integers(n_rows)) + np.arange(self.n_requests)) % n_rows
        at_s = self.at_s
        if trace.at_s is not None:
            # from the last row to the first it takes as long as between two rows on average
            gaps_s = np.append(np.diff(trace.at_s), trace.at_s[-1] / (n_rows - 1))
            at_s = np.concatenate([[0.0], np.cumsum(gaps_s[rows[:-1]])])
        if not lengths:
            return replace(self, at_s=at_s)
        told = trace.prompt_tokens[rows], trace.output_tokens[rows]
        return replace(self, at_s=at_s, prompt_tokens=told[0], output_tokens=told[1])

    def at_rate(self, rate_per_s: float) -> Workload:
        """The same arrivals, stretched to so many a second on average.

        Those of a single moment stay.

        Raises
        ------
        ValueError
            ``rate_per_s`` is not positive and finite.
        """
        if not 0 < rate_per_s < np.inf:
            raise ValueError(f"rate_per_s must be positive and finite, not {rate_per_s!r}")
        return replace(self, at_s=self.at_s * (self.rate_per_s / rate_per_s))

    @property
    def n_requests(self) -> int:
        """How many arrive."""
        return self.at_s.size

    @property
    def rate_per_s(self) -> float:
        """How many arrive in a second on average; 1 where all come at once."""
        span_s = float(self.at_s[-1])
        return (self.n_requests - 1) / span_s if span_s > 0 else 1.0
