"""The experts that may answer a request, and how long their answers may get."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from coe.core import Budget, Candidate, Estimate, ExpertSpec, Load, Request, Selection
from coe.optimizer.shortlist import gate, top_k
from coe.optimizer.shortlist import top_p as heaviest
from coe.plan import Plan
from coe.routers.quality import Expected

# what is assumed of an expert that the artefact does not know
_UNTRAINED = (0.0, 0.0, 256.0, 256.0)


def candidates(
    specs: Sequence[ExpertSpec],
    known: Sequence[str],
    expected: Expected,
    request: Request,
    loads: Mapping[str, Load],
) -> list[Candidate]:
    """What an answer of each expert is expected to be worth and to take.

    Parameters
    ----------
    specs : the experts; of one that is not known, nothing is expected.
    known : names of the columns of ``expected``, which has one row.
    loads : how busy each is.
    """
    column = {name: k for k, name in enumerate(known)}
    found = []
    for spec in specs:
        k = column.get(spec.id)
        quality, error, mean, cautious = _UNTRAINED if k is None else _column(expected, k)
        longest = _longest(spec, request) or math.inf
        predicted, bound = (
            spec.estimate(
                quality,
                request.prompt_tokens,
                min(tokens, longest) * request.n_answers,
                loads.get(spec.id),
            )
            for tokens in (mean, cautious)
        )
        predicted, bound = (replace(one, quality_se=error) for one in (predicted, bound))
        found.append(Candidate(spec.id, predicted, bound))
    return found


def offers(
    plan: Plan, category: str, alone: Sequence[Candidate], most_experts: int, top_p: float
) -> list[Candidate]:
    """Those who may answer together, by the menu of a category; sets whose experts are all there.

    Of a set answer the members with the largest gate weights on this prompt: the fewest that
    make up more than ``top_p`` of it, and no more than ``most_experts``. They are worth what the
    best of them is on this prompt, and what the plan expects the others to add to that. Of a
    category that was not planned for, every expert alone.

    Parameters
    ----------
    alone : every expert that may answer, alone.
    """
    menu = plan.menu(category)
    if menu is None:
        return list(alone)
    here = {candidate.expert_id: candidate for candidate in alone}
    worth = {frozenset(one.experts): _points(plan, one.quality) for one in menu}
    found: dict[frozenset[str], Candidate] = {}
    for one in menu:
        if all(name in here for name in one.experts):
            members = _answering([here[name] for name in one.experts], most_experts, top_p)
            names = frozenset(member.expert_id for member in members)
            if names not in found:
                best = max(member.predicted.quality for member in members)
                singly = max(worth.get(frozenset([name]), 0.0) for name in names)
                added = max(worth.get(names, 0.0) - singly, 0.0)
                found[names] = together(members, min(best + added, 1.0))
    return list(found.values())


def _answering(members: list[Candidate], most_experts: int, top_p: float) -> list[Candidate]:
    """The fine level of MoE2's selection: who of a set answers this prompt."""
    weights = gate(np.array([member.predicted.quality for member in members]))
    fewest = len(heaviest(weights, top_p))
    return [members[n] for n in sorted(top_k(weights, min(fewest, most_experts)).tolist())]


def together(members: Sequence[Candidate], quality: float) -> Candidate:
    """Several experts that all answer: as slow as the slowest, as dear as all of them.

    One alone stays as it is.
    """
    if len(members) == 1:
        return members[0]
    names = tuple(member.expert_id for member in members)
    predicted = _together([member.predicted for member in members], quality)
    cautious = _together([member.cautious for member in members], quality)
    return Candidate(" + ".join(names), predicted, cautious, names)


def selection(chosen: Candidate, alone: Sequence[Candidate]) -> Selection:
    """Who answers, and with which weights: the gate of their expected qualities, heaviest first."""
    if not chosen.members:
        return Selection((chosen.expert_id,), (1.0,))
    quality = {candidate.expert_id: candidate.predicted.quality for candidate in alone}
    weights = gate(np.array([quality[name] for name in chosen.members]))
    order = np.argsort(-weights, kind="stable").tolist()
    names = tuple(chosen.members[n] for n in order)
    return Selection(names, tuple(float(weights[n]) for n in order))


def cap(spec: ExpertSpec, request: Request, ceilings: Budget | None) -> int | None:
    """Longest answer that the caller allows and, if they are to hold, the ceilings pay for.

    What they pay for beyond the context is no cap: some servers refuse to be given one.

    Parameters
    ----------
    ceilings : on joules and dollars; ``None``: they do not hold anyway.
    """
    longest = _longest(spec, request)
    caps = [] if longest is None else [float(longest)]
    if ceilings is not None:
        afforded = _affordable(spec, request.prompt_tokens, ceilings)
        each = [tokens / request.n_answers for tokens in afforded]
        room = spec.context_tokens - request.prompt_tokens
        caps += [tokens for tokens in each if tokens < room]
    return max(1, math.floor(min(caps))) if caps else None


def _points(plan: Plan, value: float) -> float:
    """A planned value in points of quality."""
    return math.exp(value) if plan.aggregation == "likelihood" else value


def _together(estimates: Sequence[Estimate], quality: float) -> Estimate:
    best = max(estimates, key=lambda estimate: estimate.quality)
    return Estimate(
        quality=quality,
        ttft_ms=max(estimate.ttft_ms for estimate in estimates),
        latency_ms=max(estimate.latency_ms for estimate in estimates),
        energy_j=sum(estimate.energy_j for estimate in estimates),
        cost_usd=sum(estimate.cost_usd for estimate in estimates),
        output_tokens=sum(estimate.output_tokens for estimate in estimates),
        quality_se=best.quality_se,
    )


def _longest(spec: ExpertSpec, request: Request) -> int | None:
    """The caller's cap on an answer; the expert's own when the caller sets none."""
    return spec.answer_tokens if request.max_tokens is None else request.max_tokens


def _affordable(spec: ExpertSpec, prompt_tokens: int, ceilings: Budget) -> list[float]:
    """Output tokens that each of the joule and dollar ceilings pays for."""
    caps = []
    profile = spec.profile
    if ceilings.energy_j is not None and profile.decode_w > 0:
        left_j = ceilings.energy_j - profile.energy_j(prompt_tokens, 0)
        caps.append(left_j * profile.decode_tokens_per_s / profile.decode_w)
    if ceilings.cost_usd is not None and spec.usd_per_mtok_out > 0:
        left_usd = ceilings.cost_usd - spec.cost_usd(prompt_tokens, 0)
        caps.append(left_usd / spec.usd_per_mtok_out * 1_000_000)
    return caps


def _column(expected: Expected, k: int) -> tuple[float, float, float, float]:
    """Quality and its error, mean and cautious length of the artefact's expert ``k``."""
    rows = (expected.quality, expected.quality_se, expected.mean_tokens, expected.cautious_tokens)
    quality, error, mean, cautious = (float(row[0, k]) for row in rows)
    return quality, error, mean, cautious
