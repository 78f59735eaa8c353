"""The modes of several experts for one request: learned ones, or one of the kind it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from coe.combine import unmixable
from coe.core import Estimate, ExpertSpec, Request
from coe.decision import Candidate
from coe.errors.callers import RequestError
from coe.load import Load
from coe.mode import Kind, Mode
from coe.optimizer.stages import Stages
from coe.permitted import Circle
from coe.repertoire import Repertoire, Ways, taken_alone

THRESHOLD = 0.8
"""Confidence at which a cascade asks nobody else where no threshold was learned for it."""


def ways(
    request: Request,
    category: str,
    alone: Sequence[Candidate],
    circle: Circle,
    repertoire: Repertoire | None,
    partners: frozenset[str] | None,
    specs: Mapping[str, ExpertSpec],
    loads: Mapping[str, Load],
    missing: Sequence[str] = (),
) -> Ways:
    """The modes of several experts that the request may choose from, all of whom compute.

    Those that were learned; where it asks for a kind, one of that kind, with what was learned of
    it. Where more experts are forced than any learned mode holds, their vote. A mixture is among
    them where its members share a vocabulary and the request asks for nothing that it cannot do.

    Parameters
    ----------
    alone : who is there, in the order of ``circle.names``.
    repertoire : what was learned; ``None``: nothing.
    partners : who may take part in learned modes; ``None``: all.
    missing : who may answer, but has failed or is not there.

    Raises
    ------
    RequestError
        Nothing was learned of how sure answers are, and the kind is a ``rank``, or a ``cascade`` of
        fewer than three; or as `mode_of` and `mixers`.
    """
    computing = [k for k, name in enumerate(circle.names) if name not in request.standing]
    if len(computing) < len(alone):
        alone, circle = [alone[k] for k in computing], circle.among(computing)
    kind = request.mode
    if kind == "mixture" and request.most_experts != 1:
        absent = [specs[name].vocabulary for name in missing]
        kept = mixers(request, circle, alone, absent)
        alone, circle = [alone[k] for k in kept], circle.among(kept)
    if circle.most == 1 or len(alone) <= 1:
        return Ways.none()
    if unmixable(request) is not None:
        circle = replace(circle, vocabularies=(None,) * len(alone))
    if kind is None:
        found = Ways.none()
        if repertoire is not None:
            found = repertoire.ways(category, alone, circle, partners)
        if found.modes or circle.forced.sum() <= 1:
            return found
        kind = "vote"
        circle = replace(circle, most=min(circle.most, int(circle.must.sum())))
    if repertoire is None:
        mode = _unlearned_mode(kind, circle, alone)
        return unlearned(mode, alone, specs, request, loads)
    mode = mode_of(kind, circle, alone)
    found = repertoire.ways(category, alone, circle, like=mode)
    return found if found.modes else unlearned(mode, alone, specs, request, loads)


def mixers(
    request: Request,
    circle: Circle,
    alone: Sequence[Candidate],
    absent: Sequence[str | None] = (),
) -> list[int]:
    """Who of ``alone`` may write a mixture: who shares the vocabulary of the best that can.

    Nobody where one expert is all that may answer, or all that is left without the absent.

    Parameters
    ----------
    alone : in the order of ``circle.names``.
    absent : vocabularies of those who may answer, but have failed or are not there.

    Raises
    ------
    RequestError
        It asks for something that a mixture cannot do, or nobody shares a vocabulary.
    """
    if request.pinned or len(alone) + len(absent) <= 1:
        return []
    if (field := unmixable(request)) is not None:
        raise _no_mixture(f"a mixture of experts cannot do {field!r}")
    if groups := circle.mixable:
        return min(groups, key=lambda group: min(_merit(alone[k]) for k in group))
    known = [*circle.vocabularies, *absent]
    if any(name is not None and known.count(name) > 1 for name in absent):
        return []
    raise _no_mixture("no two experts that may write this answer together share a vocabulary")


def _no_mixture(reason: str) -> RequestError:
    return RequestError(f"{reason}: ask for another mode", "coe.mode", "mode_unavailable")


def _unlearned_mode(kind: Kind, circle: Circle, alone: Sequence[Candidate]) -> Mode:
    """As `mode_of`, where no confidence was learned: a cascade's first stage is of two.

    A single answer tells no more than was expected of its expert before it was asked; two that
    agree do (`coe.combine.posterior`).
    """
    mode = mode_of(kind, circle, alone)
    if mode.kind == "cascade" and len(mode.members) > 2:
        energy_j = {one.expert_id: one.predicted.energy_j for one in alone}
        first, *others = mode.members
        second = min(others, key=lambda name: (energy_j[name], name))
        rest = tuple(name for name in others if name != second)
        return Mode("cascade", ((first, second), rest), mode.threshold)
    if mode.kind in ("cascade", "rank"):
        raise RequestError(
            f"a {kind} needs to know how sure an answer is, which the artefact has not learned: "
            "train it on a table with answers, ask for another mode, or for a cascade of at least "
            "three experts, two of whom may agree",
            "coe.mode",
            "mode_unavailable",
        )
    return mode


def mode_of(kind: Kind, circle: Circle, alone: Sequence[Candidate]) -> Mode:
    """The mode of this kind that asks as many experts as may be asked; of one it is a single.

    Who must take part does, and then who is expected to answer best. A cascade asks the forced,
    else who takes the fewest joules, and then all others; where all are forced it is their vote.
    Of a fusion the best writes. Ties go to fewer joules, then to the id that sorts first.

    Parameters
    ----------
    alone : in the order of ``circle.names``.

    Raises
    ------
    RequestError
        More must take part than may be asked.
    """
    must = circle.must
    if must.sum() > circle.most:
        raise RequestError(
            f"{must.sum()} experts take part whenever several do, "
            f"and {circle.most} at most may be asked",
            "coe.k",
        )

    asked = sorted(range(len(alone)), key=lambda k: (not must[k], _merit(alone[k])))[: circle.most]
    best = sorted(asked, key=lambda k: _merit(alone[k]))
    names = [circle.names[k] for k in best]
    if len(names) == 1:
        return Mode.single(names[0])
    if kind == "cascade":
        frugal = min(best, key=lambda k: (alone[k].predicted.energy_j, not must[k]))
        first = [circle.names[k] for k in best if circle.forced[k]] or [circle.names[frugal]]
        others = tuple(name for name in names if name not in first)
        if not others:
            return Mode("vote", (tuple(names),))
        return Mode(kind, (tuple(first), others), THRESHOLD)
    if kind == "fuse":
        return Mode(kind, (tuple(names[1:]), (names[0],)))
    return Mode(kind, (tuple(names),))


def _merit(candidate: Candidate) -> tuple[float, float, str]:
    """The smaller, the better an expert is expected to answer."""
    predicted = candidate.predicted
    return -predicted.quality, predicted.energy_j, candidate.expert_id


def unlearned(
    mode: Mode,
    alone: Sequence[Candidate],
    specs: Mapping[str, ExpertSpec],
    request: Request,
    loads: Mapping[str, Load],
) -> Ways:
    """A mode of which nothing was learned: worth its best member, and every stage is asked.

    The writer of a fusion reads all other answers beside the prompt.
    """
    by_name = {candidate.expert_id: candidate for candidate in alone}
    members = [by_name[name] for name in mode.members]
    predicted = [member.predicted for member in members]
    cautious = [member.cautious for member in members]
    if mode.kind == "fuse":
        spec, load = specs[mode.members[-1]], loads.get(mode.members[-1])
        for estimates in (predicted, cautious):
            estimates[-1] = _writer(spec, load, request.prompt_tokens, estimates)
    stages = Stages.of([mode], mode.members)
    best = max((member.predicted for member in members), key=lambda one: one.quality)
    return Ways(
        (mode,),
        np.array([best.quality]),
        np.array([best.quality_se]),
        *(
            stages.taken(taken_alone(each), stages.usage, stages.reach)
            for each in (predicted, cautious)
        ),
    )


def _writer(
    spec: ExpertSpec, load: Load | None, prompt_tokens: int, estimates: Sequence[Estimate]
) -> Estimate:
    """What the last of these takes if it reads the answers of the others, too."""
    *others, own = estimates
    read = prompt_tokens + sum(other.output_tokens for other in others)
    return spec.estimate(own.quality, read, own.output_tokens, load)
