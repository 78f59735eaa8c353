"""What requests may choose from on idle experts, many at a time: `coe.candidates` on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.candidates import cap
from coe.core import Budget, ExpertSpec, Policy, Request
from coe.decision import Candidate
from coe.errors.files import SimulationError
from coe.mode import Mode
from coe.offers import Offers
from coe.permitted import permitted
from coe.simulation.outlook import Outlook
from coe.simulation.workload import Workload

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_TIMES = 2
"""The first so many axes are times, which a load stretches."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Requests ``first`` to ``first + n_rows``; axes as in `coe.optimizer.options.AXES`.

    Parameters
    ----------
    able : (n_rows, n_experts) who may answer: the prompt fits its context, the policy admits it,
        and a plan offers it.
    quality : (n_rows, n_experts).
    mean, cautious : (n_rows, n_experts, 4) what answers of mean and of cautious length take.
    tokens, service_s : (2, n_rows, n_experts) how long answers will be, and how long they will
        take; in row 1 of the first axis cut where they exceed what ceilings pay for.
    expected_s : likewise, how long the longest answers that are allowed would take.
    """

    first: int
    able: Bools
    quality: Floats
    mean: Floats
    cautious: Floats
    tokens: Floats
    service_s: Floats
    expected_s: Floats

    @property
    def last(self) -> int:
        """The first request after them."""
        return self.first + len(self.quality)


def foresee(
    outlook: Outlook,
    workload: Workload,
    caps: Caps,
    admission: Admission,
    offered: Offered | None,
    rows: slice,
) -> Foreseen:
    """What is foreseen of the requests of ``rows``, whose ends are given.

    Parameters
    ----------
    offered : what a plan leaves to choose from; ``None``: everyone.
    """
    prompt, lengths = workload.prompt[rows], workload.prompt_tokens[rows]
    contexts = np.array([spec.context_tokens for spec in outlook.specs])
    there = lengths[:, None] < contexts
    expected = outlook.expected
    wanted = outlook.lengths(workload, rows)
    most = caps.tokens[caps.row[rows]]
    tokens = [wanted, np.minimum(wanted, most)]
    usual = np.broadcast_to(outlook.longest_tokens, most.shape)
    longest = [usual, np.where(np.isfinite(most), most, usual)]
    return Foreseen(
        first=rows.start,
        able=admission.among(prompt, there, offered),
        quality=expected.quality[prompt],
        mean=_usages(
            outlook, lengths, np.minimum(expected.mean_tokens[prompt], outlook.answer_tokens)
        ),
        cautious=_usages(
            outlook, lengths, np.minimum(expected.cautious_tokens[prompt], outlook.answer_tokens)
        ),
        tokens=np.stack(tokens),
        service_s=_times_s(outlook, lengths, tokens),
        expected_s=_times_s(outlook, lengths, longest),
    )


@dataclass(frozen=True, slots=True)
class Caps:
    """The longest answers that ceilings on joules and dollars pay for.

    Parameters
    ----------
    tokens : (n_lengths, n_experts) by length of the prompt.
    row : (n_requests,) which of these lengths each request has.
    """

    tokens: Floats
    row: NDArray[np.int64]

    @classmethod
    def of(cls, outlook: Outlook, workload: Workload, budget: Budget) -> Caps:
        """As `coe.candidates.cap` has them, which is asked once about every length."""
        lengths = workload.prompt_tokens
        if budget.energy_j is None and budget.cost_usd is None:
            lengths = np.zeros_like(lengths)  # which no cap then hangs on
        known, row = np.unique(lengths, return_inverse=True)
        asked = [Request((), passages_tokens=int(length)) for length in known]
        caps = [[cap(spec, one, budget) or np.inf for spec in outlook.specs] for one in asked]
        return cls(np.array(caps, dtype=float), row)


@dataclass(frozen=True, slots=True)
class Admission:
    """Whom a policy lets answer alone.

    Parameters
    ----------
    permitted : (n_experts,) neither banned nor, where it is local only, afar.
    forced : (n_experts,) where there are any, one of these answers, and a request that does not
        find them all is refused.
    """

    permitted: Bools
    forced: Bools

    @classmethod
    def of(cls, policy: Policy, outlook: Outlook) -> Admission:
        """The admission of a policy.

        Raises
        ------
        InfeasibleError
            It permits nobody.
        SimulationError
            It forces an expert that is not there or that it does not permit, or several to answer
            together, which is not simulated.
        """
        names = [spec.id for spec in outlook.specs]
        able = permitted(names, {spec.id: spec for spec in outlook.specs}, policy)
        if absent := sorted(policy.force - set(able)):
            raise SimulationError(
                f"policy {policy.name!r} forces {', '.join(absent)}, which may not answer here: "
                f"those who may are {', '.join(able)}"
            )
        alone = policy.combine == "never" or policy.most_experts == 1
        if len(policy.force) > 1 and not alone:
            raise SimulationError(
                f"policy {policy.name!r} forces {', '.join(sorted(policy.force))} to answer "
                "together, and one expert answers in a simulation: force one of them, or let the "
                "policy say `combine: never`"
            )
        return cls(np.isin(names, able), np.isin(names, sorted(policy.force)))

    def among(
        self, prompt: NDArray[np.int64], there: Bools, offered: Offered | None = None
    ) -> Bools:
        """(n_rows, n_experts) who of those that are ``there`` may answer each prompt.

        Parameters
        ----------
        offered : what a plan leaves to choose from; ``None``: everyone.
        """
        able: Bools = there & self.permitted
        if offered is not None:
            able &= offered.resident
        chosen = able if offered is None else offered.among(prompt, able)
        if self.forced.any():
            chosen = chosen & self.forced & np.all(able >= self.forced, axis=1)[:, None]
        return chosen


@dataclass(frozen=True, slots=True)
class Offered:
    """The experts that a plan offers for a prompt, each alone."""

    offers: Offers
    outlook: Outlook
    _known: dict[tuple[int, bytes], Bools]

    @classmethod
    def of(cls, offers: Offers, outlook: Outlook) -> Offered:
        """The offers of a plan to these prompts."""
        return cls(offers, outlook, {})

    @property
    def resident(self) -> Bools:
        """(n_experts,) the experts of the plan."""
        return np.isin([spec.id for spec in self.outlook.specs], self.offers.experts)

    def among(self, prompt: NDArray[np.int64], able: Bools) -> Bools:
        """(n_rows, n_experts) who of ``able``, residents all, is offered for each prompt."""
        rows = zip(prompt.tolist(), able, strict=True)
        return np.array([self._of(row, mask) for row, mask in rows])

    def _of(self, prompt: int, able: Bools) -> Bools:
        key = prompt, able.tobytes()
        if key not in self._known:
            columns = np.flatnonzero(able)
            found = np.zeros_like(able)
            if columns.size:
                alone = [self._candidate(prompt, column) for column in columns.tolist()]
                category = self.outlook.categories[prompt]
                sets, _ = self.offers.sets(category, alone, most_experts=1, top_p=1.0)
                found[columns] = sets.any(axis=0)
            self._known[key] = found
        return self._known[key]

    def _candidate(self, prompt: int, column: int) -> Candidate:
        spec = self.outlook.specs[column]
        estimate = spec.estimate(float(self.outlook.expected.quality[prompt, column]), 0.0, 0.0)
        return Candidate(Mode.single(spec.id), estimate, estimate)


def usage_of(spec: ExpertSpec, prompt_tokens: Floats, output_tokens: Floats) -> Floats:
    """(n_rows, 4) what answers of these lengths take of an idle expert."""
    profile = spec.profile
    ttft_ms = profile.ttft_ms(prompt_tokens)
    latency_ms = ttft_ms + profile.decode_ms(output_tokens)
    energy_j = profile.energy_j(prompt_tokens, output_tokens)
    cost_usd = spec.cost_usd(prompt_tokens, output_tokens)
    return np.stack([latency_ms, ttft_ms, energy_j, cost_usd], axis=1)


def _times_s(outlook: Outlook, prompt_tokens: Floats, output_tokens: Sequence[Floats]) -> Floats:
    """(2, n_rows, n_experts) how long answers of these lengths take."""
    profiles = [spec.profile for spec in outlook.specs]
    prefill_ms = np.stack([profile.ttft_ms(prompt_tokens) for profile in profiles], axis=1)
    token_ms = np.array([profile.decode_ms(1.0) for profile in profiles])
    times_s: Floats = (prefill_ms + np.stack(output_tokens) * token_ms) / 1000.0
    return times_s


def _usages(outlook: Outlook, prompt_tokens: Floats, output_tokens: Floats) -> Floats:
    """(n_rows, n_experts, 4)."""
    columns = zip(outlook.specs, output_tokens.T, strict=True)
    return np.stack([usage_of(spec, prompt_tokens, column) for spec, column in columns], axis=1)
