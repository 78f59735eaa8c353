"""The sets that a plan offers for a request: arrays made once, filtered for every prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.core import Estimate
from coe.decision import Candidate, Selection
from coe.mode import Mode
from coe.optimizer.shortlist import gate, odds_of
from coe.plan import MODES, Plan

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Menu:
    """The sets of one category: (n_sets, n_experts) members, (n_sets,) points of quality.

    ``single`` (n_sets,) are those of one expert. ``code`` (n_sets,) numbers the sets, where there
    are others: there are then no more experts than bits.
    """

    members: Bools
    quality: Floats
    single: Bools
    code: NDArray[np.int64]

    @classmethod
    def of(cls, members: Bools, quality: Floats) -> Menu:
        """The menu of these sets, each of them once."""
        single = members.sum(axis=1) == 1
        if single.all():
            return cls(members, quality, single, np.zeros(0, dtype=np.int64))
        code = _code(members)
        order = np.argsort(code)
        return cls(members[order], quality[order], single[order], code[order])

    def answering(self, worth: Floats, most_experts: int, top_p: float) -> tuple[Bools, Floats]:
        """Who answers of each set whose experts are all there, and what they are worth.

        Parameters
        ----------
        worth : (n_experts,) quality expected on this prompt, -1 of those who are not there.
        """
        offered = self.members[self.single] if most_experts == 1 else self.members
        members = offered[~np.any(offered & (worth < 0), axis=1)]
        if most_experts == 1 or not self.code.size or not members.size:
            return members, np.max(np.where(members, worth, 0.0), axis=1, initial=0.0)
        heaviest = _heaviest(members, worth, most_experts, top_p)
        code, first = np.unique(_code(heaviest), return_index=True)
        answering = heaviest[first]
        place = np.minimum(np.searchsorted(self.code, code), self.code.size - 1)
        planned = np.where(self.code[place] == code, self.quality[place], -np.inf)
        singly = np.full(worth.size, -np.inf)
        singly[self.members[self.single].argmax(axis=1)] = self.quality[self.single]
        best_alone = np.max(np.where(answering, singly, -np.inf), axis=1)
        added = np.where(planned > best_alone, planned - best_alone, 0.0)
        best = np.max(np.where(answering, worth, 0.0), axis=1)
        return answering, np.minimum(best + added, 1.0)


@dataclass(frozen=True, slots=True)
class Offers:
    """A plan, as a router asks it.

    Parameters
    ----------
    experts : (n_experts,) residents, the columns of the menus.
    menus : by category.
    means : whether the plan keeps means over the traffic, so that who is in no set of a category
        is not asked there.
    modes : by category, the modes of several experts that a plan of modes leaves; ``None``: the
        plan is of sets, and says nothing of modes.
    """

    experts: tuple[str, ...]
    menus: Mapping[str, Menu]
    means: bool = False
    modes: Mapping[str, frozenset[Mode]] | None = None

    @classmethod
    def of(cls, plan: Plan) -> Offers:
        """The offers of a plan.

        Where it keeps means over the traffic, its own sets and their subsets are all there is;
        else the whole menus. Of a plan of modes, that is its own mode and each of its members.
        """
        column = {name: k for k, name in enumerate(plan.experts)}
        menus, modes = {}, dict[str, frozenset[Mode]]()
        for category in plan.categories:
            kept = [
                one
                for one in category.menu
                if not plan.means or set(one.experts) <= set(category.experts)
            ]
            if plan.aggregation == MODES:
                planned = [category.mode] if plan.means else [one.mode for one in kept]
                modes[category.name] = frozenset(mode for mode in planned if mode is not None)
                kept = [one for one in kept if len(one.experts) == 1]
            members = np.zeros((len(kept), len(column)), dtype=bool)
            for row, one in enumerate(kept):
                members[row, [column[name] for name in one.experts]] = True
            quality = np.array([_points(plan, one.quality) for one in kept])
            menus[category.name] = Menu.of(members, quality)
        known = modes if plan.aggregation == MODES else None
        return cls(tuple(column), menus, bool(plan.means), known)

    def partners(self, category: str) -> frozenset[str]:
        """Who may be asked for one answer together with others."""
        if not self.means:
            return frozenset(self.experts)
        menu = self.menus.get(category)
        within = [] if menu is None else np.flatnonzero(menu.members.any(axis=0)).tolist()
        return frozenset(self.experts[k] for k in within)

    def sets(
        self, category: str, alone: Sequence[Candidate], most_experts: int, top_p: float
    ) -> tuple[Bools, Floats]:
        """Who may answer together, (n_sets, n_alone), and what that is worth on this prompt.

        Of a set on the menu whose experts are all there, those answer whose gate weights on this
        prompt are largest: the fewest that make up more than ``top_p``, and no more than
        ``most_experts``. They are worth what the best of them is here, and what the plan expects
        the others to add to that. Where the menu has nothing to offer, everyone alone; experts that
        are not of the plan are always offered alone, after the sets.

        Parameters
        ----------
        alone : every expert that may answer, alone; at least one.
        """
        quality = np.array([candidate.predicted.quality for candidate in alone])
        menu = self.menus.get(category)
        column = {candidate.expert_id: k for k, candidate in enumerate(alone)}
        at = np.array([column.get(name, -1) for name in self.experts], dtype=int)
        if menu is not None:
            # columns are those of the plan until the end
            worth = np.where(at >= 0, quality[at], -1.0)
            answering, best = menu.answering(worth, most_experts, top_p)
            if best.size:
                members = np.zeros((best.size, len(alone)), dtype=bool)
                members[:, at[at >= 0]] = answering[:, at >= 0]
                others = np.setdiff1d(np.arange(len(alone)), at)
                apart = np.eye(len(alone), dtype=bool)[others]
                return np.vstack([members, apart]), np.append(best, quality[others])
        return np.eye(len(alone), dtype=bool), quality


def together(members: Sequence[Candidate], quality: float) -> Candidate:
    """Several experts that all answer: as slow as the slowest, as dear as all of them.

    One alone stays as it is.
    """
    if len(members) == 1:
        return members[0]
    names = tuple(member.expert_id for member in members)
    predicted = _together([member.predicted for member in members], quality)
    cautious = _together([member.cautious for member in members], quality)
    return Candidate(Mode("vote", (names,)), predicted, cautious)


def selection(chosen: Candidate, alone: Sequence[Candidate]) -> Selection:
    """Who answers, and with which weights: the gate of their expected qualities, heaviest first."""
    expected = {candidate.expert_id: candidate.predicted for candidate in alone}
    names = chosen.mode.members
    weights = gate(np.array([expected[name].quality for name in names]))
    order = np.argsort(-weights, kind="stable").tolist()
    return Selection(
        expert_ids=tuple(names[n] for n in order),
        weights=tuple(float(weights[n]) for n in order),
        mode=chosen.mode,
        alone=tuple(expected[names[n]] for n in order),
    )


def _heaviest(members: Bools, worth: Floats, most_experts: int, top_p: float) -> Bools:
    """The fine level of MoE2's selection, for every set at once: who of it answers."""
    if top_p >= 1 and int(members.sum(axis=1).max()) <= most_experts:
        return members
    weights = np.where(members, odds_of(np.maximum(worth, 0.0)), -1.0)
    order = np.argsort(-weights, axis=1, kind="stable")
    heaviest = np.maximum(np.take_along_axis(weights, order, axis=1), 0.0)
    before = np.cumsum(heaviest, axis=1) - heaviest
    wanted = before <= top_p * heaviest.sum(axis=1, keepdims=True)
    wanted &= np.arange(members.shape[1]) < most_experts
    wanted[:, 0] = True
    answering = np.zeros_like(members)
    np.put_along_axis(answering, order, wanted, axis=1)
    return answering & members


def _code(members: Bools) -> NDArray[np.int64]:
    """(n_sets,) the sets as numbers: bit n is expert n."""
    code: NDArray[np.int64] = members @ (1 << np.arange(members.shape[1], dtype=np.int64))
    return code


def _points(plan: Plan, value: float) -> float:
    """A planned value in points of quality."""
    return math.exp(value) if plan.aggregation == "likelihood" else value


def _together(estimates: Sequence[Estimate], quality: float) -> Estimate:
    best = max(estimates, key=lambda estimate: estimate.quality)
    return best._replace(
        quality=quality,
        ttft_ms=max(estimate.ttft_ms for estimate in estimates),
        latency_ms=max(estimate.latency_ms for estimate in estimates),
        energy_j=sum(estimate.energy_j for estimate in estimates),
        cost_usd=sum(estimate.cost_usd for estimate in estimates),
        output_tokens=sum(estimate.output_tokens for estimate in estimates),
    )
