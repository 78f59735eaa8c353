"""The experts that may answer a request, and how long their answers may get."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from coe.core import Budget, ExpertSpec, Request
from coe.decision import Candidate
from coe.load import Load
from coe.mode import Mode
from coe.routers.quality import Expected, Figures

UNTRAINED = Figures(0.0, 0.0, 256.0, 256.0)
"""What is assumed of an expert that the artefact does not know, unless its answer stands ready."""


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
    specs : the experts; of one that is not known, nothing is expected but of the answer that
        stands ready for the request.
    known : names of the columns of ``expected``, which has one row.
    loads : how busy each is.
    """
    column = {name: k for k, name in enumerate(known)}
    prompt_tokens, found = request.prompt_tokens, []
    for spec in specs:
        k, ready = column.get(spec.id), request.standing.get(spec.id)
        figures = UNTRAINED if k is None else _column(expected, k)
        if ready is not None:
            n_tokens = float(ready.n_tokens)
            figures = Figures(ready.quality, ready.quality_se, n_tokens, n_tokens)
        found.append(candidate(spec, figures, request, prompt_tokens, loads.get(spec.id)))
    return found


def candidate(
    spec: ExpertSpec, figures: Figures, request: Request, prompt_tokens: int, load: Load | None
) -> Candidate:
    """What an answer of one expert takes, if it is as the figures say.

    Parameters
    ----------
    prompt_tokens : those of the request.
    """
    longest = _longest(spec, request) or math.inf
    quality, error, n_answers = figures.quality, figures.quality_se, request.n_answers
    mean = min(figures.mean_tokens, longest) * n_answers
    cautious = min(figures.cautious_tokens, longest) * n_answers
    predicted = spec.estimate(quality, prompt_tokens, mean, load, error)
    if cautious == mean:  # both are as long as the cap
        return Candidate(Mode.single(spec.id), predicted, predicted)
    longer = spec.estimate(quality, prompt_tokens, cautious, load, error)
    return Candidate(Mode.single(spec.id), predicted, longer)


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


def _column(expected: Expected, k: int) -> Figures:
    """What is expected of the artefact's expert ``k``."""
    return Figures(
        float(expected.quality[0, k]),
        float(expected.quality_se[0, k]),
        float(expected.mean_tokens[0, k]),
        float(expected.cautious_tokens[0, k]),
    )
