"""What a policy and a request permit: which experts may be asked, and which of them together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.core import MOST_EXPERTS, ExpertSpec, Policy, Request
from coe.errors.callers import InfeasibleError, RequestError, UnknownExpertError
from coe.stock import declining

Bools = NDArray[np.bool_]

# what the payload asks of one expert's own answer
_OF_ONE = ("tools", "functions", "logprobs")


def permitted(ids: Sequence[str], specs: Mapping[str, ExpertSpec], policy: Policy) -> list[str]:
    """The experts of ``ids`` that the policy neither bans nor, if it is local only, finds afar.

    Raises
    ------
    InfeasibleError
        There are none.
    """
    allowed = [name for name in ids if name not in policy.ban]
    if not allowed:
        raise InfeasibleError("every expert is excluded", "coe.experts", "no_expert")
    if not policy.local_only:
        return allowed
    near = [name for name in allowed if specs[name].local]
    if not near:
        raise InfeasibleError(
            f"policy {policy.name!r} is local_only, and no expert that may answer is local",
            "coe.experts",
            "no_expert",
        )
    return near


def incapable(
    ids: Collection[str], specs: Mapping[str, ExpertSpec], request: Request
) -> dict[str, str]:
    """What those of ``ids`` lack that lack something and have no answer ready, by expert."""
    if not (request.needs or request.extras):
        return {}
    lacks = {n: _lacking(specs[n], request) for n in sorted(ids) if n not in request.standing}
    return {name: what for name, what in lacks.items() if what}


def capable(ids: Sequence[str], specs: Mapping[str, ExpertSpec], request: Request) -> list[str]:
    """The experts of ``ids`` that lack nothing, or have an answer ready.

    Raises
    ------
    RequestError
        There are none: ``capability_missing``, or ``unknown_parameter`` for a field that OpenAI's
        interface does not have; ``param`` names the first that asks for what the most capable
        lack.
    """
    lacks = incapable(ids, specs, request)
    able = [name for name in ids if name not in lacks]
    if able:
        return able
    for need, param in request.needs.items():
        if all(need not in specs[name].capabilities for name in ids):
            raise RequestError(
                f"{param} needs an expert with {need!r} among its capabilities, "
                "and none that may answer has it",
                param,
                "capability_missing",
            )
    for name in sorted(request.extras):
        if all(name not in specs[expert_id].extras for expert_id in ids):
            raise RequestError(f"no expert that may answer takes {name}", name, "unknown_parameter")
    asked = [*request.needs, *sorted(request.extras)]
    raise RequestError(
        f"no expert that may answer has all of {', '.join(asked)}",
        next(iter([*request.needs.values(), *sorted(request.extras)])),
        "capability_missing",
    )


def roomy(ids: Sequence[str], specs: Mapping[str, ExpertSpec], request: Request) -> list[str]:
    """The experts of ``ids`` (not empty) whose context holds the prompt and the longest answer.

    The prompt's length is an estimate; the answer's is what the caller asks for.

    Raises
    ------
    RequestError
        No context would hold such an answer to an empty prompt.
    InfeasibleError
        None holds both.
    """
    longest = max(specs[name].context_tokens for name in ids)
    prompt, answer = request.prompt_tokens, request.max_tokens or 1
    if answer > longest:
        raise RequestError(
            f"max_tokens {answer} is more than any candidate's context of {longest}", "max_tokens"
        )
    found = [name for name in ids if prompt + answer <= specs[name].context_tokens]
    if not found:
        raise InfeasibleError(
            f"the prompt has about {prompt} tokens, with {answer} for the answer more than any "
            f"candidate's context of {longest}",
            "messages",
            "context_length_exceeded",
        )
    return found


def named_are_known(request: Request, specs: Mapping[str, ExpertSpec]) -> None:
    """Nothing, where every expert that the request names is one of these.

    Raises
    ------
    UnknownExpertError
        One is not; ``param`` says where it stands.
    """
    named = (
        ("model", (request.pinned,) if request.pinned else ()),
        ("coe.experts.allow", request.allow or ()),
        ("coe.experts.deny", request.deny),
    )
    for param, names in named:
        if unknown := [name for name in names if name not in specs]:
            raise UnknownExpertError(
                f"no expert is called {min(unknown)!r}; there are {', '.join(sorted(specs))}", param
            )


def eligible(
    named: Sequence[str],
    specs: Mapping[str, ExpertSpec],
    request: Request,
    excluded: frozenset[str],
) -> list[str]:
    """Those of the ``named`` experts that may answer, can, and have room for the prompt.

    Those that decline stand in for nobody who failed, or cannot read so much: that is an error.

    Raises
    ------
    InfeasibleError
        There are none.
    RequestError
        As `capable` and `roomy`.
    """
    declines = declining(request, named)
    last = [name for name in declines if name not in request.policy.ban]
    if last and set(named) == set(declines):
        return last
    others = [name for name in named if name not in excluded and name not in declines]
    able = capable(permitted(others, specs, request.policy), specs, request)
    return [*roomy(able, specs, request), *last]


def why_one(request: Request) -> str:
    """Why answers to the request cannot be combined; "": they can."""
    if request.n_answers > 1:
        return "several answers were asked for"
    asked = [name for name in _OF_ONE if request.payload.get(name)]
    return f"{asked[0]} cannot be combined" if asked else ""


def most_asked(request: Request) -> int:
    """How many experts may be asked for one answer, at least 1.

    A stream, which several experts would begin late, gets one, unless the policy combines always or
    the request itself asks for several.

    Raises
    ------
    RequestError
        It asks for several by ``mode``, and its policy does not permit that.
    """
    policy, wanted = request.policy, request.mode not in (None, "single")
    most = 1 if policy.combine == "never" else policy.most_experts or MOST_EXPERTS
    if request.pinned or request.mode == "single" or why_one(request):
        return 1
    if wanted and most == 1:
        raise RequestError(
            f"policy {policy.name!r} asks one expert for an answer: "
            "leave coe.mode out, or choose another policy",
            "coe.mode",
            "mode_unavailable",
        )
    asked = request.most_experts
    if request.stream and policy.combine == "whole" and not wanted and asked in (None, 1):
        return 1
    return min(most, asked or most)


@dataclass(frozen=True, slots=True)
class Circle:
    """Who may be asked for one answer.

    Parameters
    ----------
    names : (n_experts,) all who may.
    most : so many at most, at least 1.
    forced : (n_experts,) who must be among them; where ``most`` is 1, it must be one of these.
    shared : (n_experts,) who must be among them if they are several.
    vocabularies : (n_experts,) whose experts can write a mixture; ``None``: of none.
    """

    names: tuple[str, ...]
    most: int
    forced: Bools
    shared: Bools
    vocabularies: tuple[str | None, ...]

    @classmethod
    def of(cls, request: Request, specs: Sequence[ExpertSpec]) -> Circle:
        """The circle of experts that are there, under a request and its policy.

        A request for an expert by name gets it, whoever is forced.

        Raises
        ------
        InfeasibleError
            A forced expert is not there, or more are forced than may be asked.
        RequestError
            As `most_asked`.
        """
        names, most = tuple(spec.id for spec in specs), most_asked(request)
        force = frozenset[str]() if request.pinned else request.policy.force
        if missing := sorted(force - set(names)):
            raise InfeasibleError(
                f"policy {request.policy.name!r} forces {', '.join(missing)}, "
                "which may not answer this",
                "coe.experts",
                "no_expert",
            )
        if 1 < most < len(force):
            raise InfeasibleError(
                f"policy {request.policy.name!r} forces {len(force)} experts, "
                f"and {most} at most may be asked",
                "coe.k",
                "no_expert",
            )
        return cls(
            names,
            most,
            np.array([name in force for name in names]),
            np.array([spec.shared for spec in specs]),
            tuple(spec.vocabulary for spec in specs),
        )

    @property
    def must(self) -> Bools:
        """(n_experts,) who takes part whenever several do."""
        return self.forced | self.shared

    def among(self, kept: Sequence[int]) -> Circle:
        """The circle of these experts only, in this order."""
        return replace(
            self,
            names=tuple(self.names[k] for k in kept),
            forced=self.forced[kept],
            shared=self.shared[kept],
            vocabularies=tuple(self.vocabularies[k] for k in kept),
        )

    @property
    def mixable(self) -> list[list[int]]:
        """Who can write a mixture that may be asked for: those of a vocabulary, two at least."""
        groups: dict[str, list[int]] = {}
        for k, name in enumerate(self.vocabularies):
            if name is not None:
                groups.setdefault(name, []).append(k)
        must = set(np.flatnonzero(self.must).tolist())
        return [group for group in groups.values() if len(group) > 1 and must <= set(group)]

    def admits(self, members: Bools) -> Bools:
        """(n_sets,) which sets may be asked.

        Parameters
        ----------
        members : (n_sets, n_experts) none of them empty.
        """
        size = members.sum(axis=1)
        admitted: Bools = size <= self.most
        if self.forced.any():
            forced = members & self.forced
            least = 1 if self.most == 1 else int(self.forced.sum())
            admitted &= forced.sum(axis=1) >= least
        if self.shared.any():
            admitted &= (size == 1) | np.all(members >= self.shared, axis=1)
        return admitted

    def mixes(self, members: Bools) -> Bools:
        """(n_sets,) which sets share a vocabulary.

        Parameters
        ----------
        members : as in `admits`.
        """
        shares = np.zeros(len(members), dtype=bool)
        for group in self.mixable:
            own = np.isin(np.arange(len(self.names)), group)
            shares |= ~np.any(members & ~own, axis=1)
        return shares


def _lacking(spec: ExpertSpec, request: Request) -> str:
    """What the request needs and the expert lacks, in words; "": nothing."""
    lacks: list[str] = [need for need in request.needs if need not in spec.capabilities]
    return ", ".join([*lacks, *sorted(request.extras - spec.extras)])
