"""One decision: a request and a budget in, a selection and its reason out. No I/O."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from coe.core import (
    GENERAL,
    Alternative,
    Budget,
    Candidate,
    CategoryGuess,
    Decision,
    ExpertSpec,
    Load,
    Request,
    Selection,
)
from coe.errors import InfeasibleError, UnknownExpertError
from coe.explain import refusal, why, why_not
from coe.optimizer.problem import Problem
from coe.optimizer.result import Result
from coe.optimizer.select import select, slack, violated
from coe.routers.artefact import Artefact
from coe.routers.embed import Embedder, load_default
from coe.routers.quality import Expected

# what is assumed of an expert that the artefact does not know
_UNTRAINED = (0.0, 256.0, 256.0)


@dataclass(frozen=True, slots=True)
class Router:
    """Embed, categorise, expect, select.

    Parameters
    ----------
    embedder : must be the one the artefact was trained on; `Artefact.check_canaries` checks.
    artefact : category router and quality table.
    specs : experts that may answer. One that the artefact does not know can only be pinned.
    now : monotonic seconds.
    """

    embedder: Embedder
    artefact: Artefact
    specs: Mapping[str, ExpertSpec]
    now: Callable[[], float] = time.perf_counter
    new_id: Callable[[], str] = field(default=lambda: f"dec-{secrets.token_hex(12)}")

    @classmethod
    def load(cls, path: str | Path, specs: Sequence[ExpertSpec] | None = None) -> Router:
        """The router of a trained artefact, its canary prompts answered.

        Parameters
        ----------
        path : the artefact's folder.
        specs : the experts of today; by default those recorded in the artefact.

        Raises
        ------
        ArtefactError
            The artefact or the embedder is absent, altered, or fails a canary.
        """
        artefact = Artefact.load(Path(path))
        embedder = load_default()
        artefact.check_canaries(embedder)
        chosen = artefact.experts if specs is None else specs
        return cls(embedder, artefact, {spec.id: spec for spec in chosen})

    def decide(
        self,
        request: Request,
        budget: Budget | None = None,
        loads: Mapping[str, Load] | None = None,
        excluded: frozenset[str] = frozenset(),
    ) -> Decision:
        """The decision for ``request``.

        Parameters
        ----------
        budget : further ceilings beside the request's and its policy's.
        loads : how busy each expert is.
        excluded : experts that must not be chosen, such as those that have just failed.

        Raises
        ------
        UnknownExpertError
            A pinned, allowed or denied expert does not exist.
        InfeasibleError
            No candidate fits the ceilings and the policy rejects that, or none is left.
        """
        started = self.now()
        self._check_names(request)
        ceilings = request.ceilings.tightened(budget) if budget else request.ceilings
        guess, expected = self._read(request.text)
        ids = self._eligible(request, excluded)
        candidates = self._candidates(ids, expected, request, loads or {})
        problem = Problem.of(
            [c.predicted for c in candidates],
            [c.cautious for c in candidates],
            ceilings,
            request.policy.prices,
        )
        result = select(problem)
        index = _choice(result, request, ceilings)
        chosen = candidates[index]
        return Decision(
            decision_id=self.new_id(),
            policy=request.policy.name,
            status=_status(result, request),
            category=guess,
            selection=Selection((chosen.expert_id,), (1.0,)),
            predicted=chosen.predicted,
            cautious=chosen.cautious,
            alternatives=_alternatives(candidates, problem, index),
            budget=ceilings,
            binding=result.binding,
            slack=slack(problem, index),
            max_tokens=self._cap(chosen.expert_id, request, ceilings, result),
            why=why(candidates, problem, result, index, guess, request),
            decide_ms=(self.now() - started) * 1000.0,
        )

    def _read(self, text: str) -> tuple[CategoryGuess, Expected]:
        """Category and expected answers of a prompt. One that says nothing is "general"."""
        found = self.artefact.category.assess(self.embedder.embed([text]))
        best = int(np.argmax(found.probabilities[0]))
        likeliest = str(self.artefact.category.classes_[best])
        uncertain = bool(found.uncertain[0])
        guess = CategoryGuess(
            name=GENERAL if uncertain else likeliest,
            likeliest=likeliest,
            probability=float(found.probabilities[0, best]),
            entropy=float(found.entropy[0]),
            distance=float(found.distance[0]),
            uncertain=uncertain,
        )
        return guess, self.artefact.quality.expected(found.probabilities[0], uncertain)

    def _check_names(self, request: Request) -> None:
        named = {
            "model": {request.pinned} if request.pinned else set(),
            "coe.experts.allow": request.allow or frozenset(),
            "coe.experts.deny": request.deny,
        }
        for param, names in named.items():
            for name in sorted(names - self.specs.keys()):
                raise UnknownExpertError(
                    f"no expert is called {name!r}; there are {', '.join(sorted(self.specs))}",
                    param,
                )

    def _eligible(self, request: Request, excluded: frozenset[str]) -> list[str]:
        """Experts that may answer and have room for the prompt.

        Raises
        ------
        InfeasibleError
            There are none.
        """
        if request.pinned:
            named = [request.pinned]
        else:
            trained = [name for name in self.artefact.quality.expert_ids if name in self.specs]
            allowed = self.specs.keys() if request.allow is None else request.allow
            named = [name for name in trained if name in allowed and name not in request.deny]
            if not trained:
                raise InfeasibleError(
                    "the artefact knows none of the configured experts: train one with "
                    "`coe train`, or name an expert as model",
                    "model",
                    "no_expert",
                )
        able = [name for name in named if name not in excluded]
        if not able:
            raise InfeasibleError("every expert is excluded", "coe.experts", "no_expert")
        roomy = [n for n in able if request.prompt_tokens < self.specs[n].context_tokens]
        if not roomy:
            longest = max(self.specs[name].context_tokens for name in able)
            raise InfeasibleError(
                f"the prompt has about {request.prompt_tokens} tokens, "
                f"more than any candidate's context of {longest}",
                "messages",
                "context_length_exceeded",
            )
        return roomy

    def _candidates(
        self, ids: Sequence[str], expected: Expected, request: Request, loads: Mapping[str, Load]
    ) -> list[Candidate]:
        known = {name: k for k, name in enumerate(self.artefact.quality.expert_ids)}
        candidates = []
        for name in ids:
            k, spec = known.get(name), self.specs[name]
            quality, mean, cautious = _UNTRAINED if k is None else _column(expected, k)
            longest = _longest(spec, request) or math.inf
            predicted, bound = (
                spec.estimate(
                    quality,
                    request.prompt_tokens,
                    min(tokens, longest) * request.n_answers,
                    loads.get(name),
                )
                for tokens in (mean, cautious)
            )
            candidates.append(Candidate(name, predicted, bound))
        return candidates

    def _cap(
        self, expert_id: str, request: Request, ceilings: Budget, result: Result
    ) -> int | None:
        """Longest answer that the caller allows and, if kept, the joules and dollars afford.

        What they afford beyond the context is no cap: some servers refuse to be given one.
        """
        spec = self.specs[expert_id]
        longest = _longest(spec, request)
        caps = [] if longest is None else [float(longest)]
        if result.status == "optimal":
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


def _choice(result: Result, request: Request, ceilings: Budget) -> int:
    """The chosen index, or an error that says what budget would do."""
    if result.index is not None:
        return result.index
    if request.policy.on_infeasible == "nearest" and result.nearest is not None:
        return result.nearest
    raise refusal(result, ceilings.ceilings())


def _status(result: Result, request: Request) -> Literal["optimal", "nearest", "pinned"]:
    if request.pinned:
        return "pinned"
    return "optimal" if result.status == "optimal" else "nearest"


def _alternatives(
    candidates: Sequence[Candidate], problem: Problem, index: int
) -> tuple[Alternative, ...]:
    utility = problem.utility
    others = [int(k) for k in np.argsort(-utility, kind="stable") if k != index]
    return tuple(
        Alternative(
            expert_id=candidates[k].expert_id,
            estimate=candidates[k].predicted,
            cautious=candidates[k].cautious,
            utility=float(utility[k]),
            violated=violated(problem, k),
            why_not=why_not(problem, k, index),
        )
        for k in others
    )


def _column(expected: Expected, k: int) -> tuple[float, float, float]:
    """Quality, mean and cautious length of the answer of the artefact's expert ``k``."""
    figures = (expected.quality[k], expected.mean_tokens[k], expected.cautious_tokens[k])
    quality, mean, cautious = map(float, figures)
    return quality, mean, cautious
