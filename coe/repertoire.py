"""The modes of several experts that a request may choose from: arrays made once, then filtered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL, Estimate
from coe.decision import Candidate
from coe.mode import Kind, Mode
from coe.optimizer.options import AXES
from coe.optimizer.stages import Stages
from coe.permitted import Circle
from coe.routers.modes import ModeTable

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]

N_FIGURES = len(AXES) + 1
"""What an answer takes: `AXES`, and output tokens."""

Form = tuple[Kind, tuple[frozenset[str], ...]]
"""A mode but for its threshold, and the order in which the experts of a stage are named."""


def form(mode: Mode) -> Form:
    """What a mode has in common with others of its form."""
    return mode.kind, tuple(frozenset(stage) for stage in mode.stages)


@dataclass(frozen=True, slots=True)
class Ways:
    """Modes, what they are worth on this prompt, and what they take.

    Parameters
    ----------
    modes : (n_ways,).
    quality, quality_se : (n_ways,) expected score in [0, 1], and the standard error of it.
    mean, cautious : (n_ways, 5) what answers of mean and of cautious length take: `AXES`, and
        output tokens.
    """

    modes: tuple[Mode, ...]
    quality: Floats
    quality_se: Floats
    mean: Floats
    cautious: Floats

    @classmethod
    def none(cls) -> Ways:
        """No mode at all."""
        nothing = np.zeros((0, N_FIGURES))
        return cls((), np.zeros(0), np.zeros(0), nothing, nothing)

    @property
    def surely(self) -> Floats:
        """(n_ways,) quality less one standard error, at least 0: what they compete with."""
        return np.maximum(self.quality - self.quality_se, 0.0)

    def candidate(self, k: int) -> Candidate:
        """Way ``k`` as a candidate."""
        quality, error = float(self.quality[k]), float(self.quality_se[k])
        predicted, cautious = (
            Estimate(quality, ttft_ms, latency_ms, energy_j, cost_usd, tokens, error)
            for latency_ms, ttft_ms, energy_j, cost_usd, tokens in (
                self.mean[k].tolist(),
                self.cautious[k].tolist(),
            )
        )
        return Candidate(self.modes[k], predicted, cautious)


def taken_alone(estimates: Sequence[Estimate]) -> Floats:
    """(n_experts, 5) what each expert's own answer takes: `AXES`, and output tokens."""
    rows = [(e.latency_ms, e.ttft_ms, e.energy_j, e.cost_usd, e.output_tokens) for e in estimates]
    return np.array(rows, dtype=float).reshape(len(rows), N_FIGURES)


@dataclass(frozen=True, slots=True)
class Worth:
    """What was learned of the modes in one category.

    Parameters
    ----------
    gain : (n_modes,) quality beyond that of the best member alone.
    quality_se : (n_modes,).
    usage, reach : (n_experts, n_modes) and (n_stages, n_modes), as `Stages.taken` wants them.
    """

    gain: Floats
    quality_se: Floats
    usage: Floats
    reach: Floats


@dataclass(frozen=True, slots=True)
class Repertoire:
    """Learned modes of several experts.

    Parameters
    ----------
    expert_ids : (n_experts,) the columns.
    modes : (n_modes,).
    members : (n_modes, n_experts).
    sure : (n_modes, n_experts) who is asked whatever others say: of a cascade, its first stage.
    mixtures : (n_modes,) which are one.
    worth : by category; `GENERAL` is one of them.
    planned : by category, (n_modes,) which of them a plan leaves; of one that is absent, all.
    """

    expert_ids: tuple[str, ...]
    modes: tuple[Mode, ...]
    stages: Stages
    members: Bools
    sure: Bools
    mixtures: Bools
    worth: Mapping[str, Worth]
    planned: Mapping[str, Bools] = field(default_factory=dict)

    @classmethod
    def of(cls, table: ModeTable) -> Repertoire:
        """The modes of several experts in a table."""
        alone = np.zeros((len(table.categories), len(table.expert_ids)))
        several = []
        for m, mode in enumerate(table.modes):
            if mode.kind == "single":
                alone[:, table.expert_ids.index(mode.members[0])] = table.quality[:, m]
            else:
                several.append(m)
        modes = tuple(table.modes[m] for m in several)
        stages = Stages.of(modes, table.expert_ids)
        members, n_stages = stages.usage.T > 0, stages.asked.shape[1]
        best = np.max(np.where(members, alone[:, None], 0.0), axis=2)
        worth = {
            name: Worth(
                table.quality[c, several] - best[c],
                table.quality_se[c, several],
                np.ascontiguousarray(table.usage[c, several].T),
                np.ascontiguousarray(table.reach[c, several, :n_stages].T),
            )
            for c, name in enumerate(table.categories)
        }
        cascades, mixtures = (
            np.array([mode.kind == kind for mode in modes], dtype=bool)
            for kind in ("cascade", "mixture")
        )
        sure = np.where(cascades[:, None], stages.asked[:, 0].T > 0, members)
        return cls(table.expert_ids, modes, stages, members, sure, mixtures, worth)

    def left_by(self, planned: Mapping[str, frozenset[Mode]] | None) -> Repertoire:
        """The repertoire with those modes only that a plan leaves in each category.

        Parameters
        ----------
        planned : as in `coe.offers.Offers.modes`; ``None``: all.
        """
        left = {
            category: np.array([mode in kept for mode in self.modes], dtype=bool)
            for category, kept in (planned or {}).items()
        }
        return replace(self, planned=left)

    def ways(
        self,
        category: str,
        alone: Sequence[Candidate],
        circle: Circle,
        partners: frozenset[str] | None = None,
        like: Mode | None = None,
    ) -> Ways:
        """The modes that the circle admits, as they are on one prompt.

        Each is worth what the best of its members is here, and what it was found to add to the
        best of them.

        Parameters
        ----------
        alone : who is there, in the order of ``circle.names``.
        partners : who may take part at all; ``None``: all.
        like : only modes of the form of this one.
        """
        column = {name: k for k, name in enumerate(self.expert_ids)}
        if partners is not None:
            column = {name: k for name, k in column.items() if name in partners}
        at = [column.get(name, -1) for name in circle.names]
        kept = self._admitted(np.array(at), circle)
        if like is not None:
            kept = kept[[form(self.modes[m]) == form(like) for m in kept]]
        elif category in self.planned:
            kept = kept[self.planned[category][kept]]
        found = np.zeros((len(self.expert_ids) + 1, 2 * N_FIGURES))
        # who is in no mode is put into a row of its own, at the end
        found[at] = np.hstack(
            [taken_alone([c.predicted for c in alone]), taken_alone([c.cautious for c in alone])]
        )
        here = np.zeros(len(found))
        here[at] = [candidate.predicted.quality for candidate in alone]
        mean, cautious = found[:-1, :N_FIGURES], found[:-1, N_FIGURES:]
        worth = self.worth.get(category, self.worth[GENERAL])
        # a view of all rows is cheaper than a copy
        rows = slice(None) if kept.size == len(self.modes) else kept
        stages = self.stages.rows(rows)
        best = np.max(stages.usage * here[:-1, None], axis=0)
        return Ways(
            self.modes if kept.size == len(self.modes) else tuple(self.modes[m] for m in kept),
            np.clip(best + worth.gain[rows], 0.0, 1.0),
            worth.quality_se[rows],
            stages.taken(mean, worth.usage[:, rows], worth.reach[:, rows]),
            stages.taken(cautious, stages.usage, stages.reach),
        )

    def _admitted(self, at: Integers, circle: Circle) -> Integers:
        """The modes whose members are all there, and which the circle admits.

        Parameters
        ----------
        at : column of each expert of the circle; -1 of who is in no mode.
        """
        there = at >= 0
        members, sure = np.zeros((2, len(self.modes), at.size), dtype=bool)
        members[:, there] = self.members[:, at[there]]
        admitted = circle.admits(members)
        if circle.forced.any():
            sure[:, there] = self.sure[:, at[there]]
            admitted &= np.all(sure >= circle.forced, axis=1)
        if self.mixtures.any():
            admitted &= ~self.mixtures | circle.mixes(members)
        if there.sum() < len(self.expert_ids):
            admitted &= members.sum(axis=1) == self.members.sum(axis=1)
        return np.flatnonzero(admitted)
