"""What ways to answer with several experts are worth, as learned from recorded answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from coe.mode import Kind, Mode
from coe.routers.confidence import TRAITS, Confidence, Floats
from coe.routers.habit import Habit

_TABLE = ("quality", "quality_se", "usage", "reach")


@dataclass(frozen=True, slots=True)
class ModeTable:
    """What each mode is worth in each category, and what of its experts it uses.

    Parameters
    ----------
    categories : (n_categories,) the last is the row over all prompts.
    expert_ids : (n_experts,) some of whom may be in no mode.
    modes : (n_modes,) each once; every member of one is there as a single too.
    quality, quality_se : (n_categories, n_modes) mean score in [0, 1], and its standard error.
    usage : (n_categories, n_modes, n_experts) tokens each expert writes under the mode over those
        it writes if asked every time; 0 for who is never asked. Prompts on which a cascade goes on
        have longer answers, so a share of tokens may exceed the share of prompts. It multiplies
        joules and dollars.
    reach : (n_categories, n_modes, n_stages) share of prompts that reach each stage: the mean
        latency is the sum over stages of reach times the slowest member.
    """

    categories: tuple[str, ...]
    expert_ids: tuple[str, ...]
    modes: tuple[Mode, ...]
    quality: Floats
    quality_se: Floats
    usage: Floats
    reach: Floats

    @property
    def known_ids(self) -> tuple[str, ...]:
        """The experts that are in some mode."""
        return tuple(name for name in self.expert_ids if Mode.single(name) in self.modes)

    def best(self, fits: Callable[[Mode], bool]) -> Mode | None:
        """The fitting mode of the highest quality over all prompts; of equals the first."""
        ranked = zip(self.quality[-1].tolist(), self.modes, strict=True)
        fitting = [(quality, mode) for quality, mode in ranked if fits(mode)]
        return max(fitting, key=lambda pair: pair[0])[1] if fitting else None

    def vote_of_best(self, n: int) -> Mode | None:
        """Of the votes of ``n`` the one whose members score most alone, over all prompts."""
        votes = [mode for mode in self.modes if mode.kind == "vote" and len(mode.members) == n]
        alone = dict(zip(self.modes, self.quality[-1].tolist(), strict=True))

        def merit(mode: Mode) -> float:
            return math.fsum(alone[Mode.single(name)] for name in mode.members)

        return max(votes, key=merit) if votes else None

    def latency(self, each: Floats) -> Floats:
        """(n_categories, n_modes) mean time: the slowest of a stage, one stage after the other.

        Parameters
        ----------
        each : (n_categories, n_experts) mean time of an answer.
        """
        time = np.zeros(self.quality.shape)
        for m, mode in enumerate(self.modes):
            for k, stage in enumerate(mode.stages):
                columns = [self.expert_ids.index(name) for name in stage]
                time[:, m] += self.reach[:, m, k] * each[:, columns].max(axis=1)
        return time


@dataclass(frozen=True, slots=True)
class LearnedModes:
    """All that is known of answers that several experts make.

    Parameters
    ----------
    confidence : in an answer in hand; stops cascades.
    n_options : of a question, above 1: with an expert's expected quality the weight of its vote,
        see `coe.combine.log_odds`.
    habits : by expert, how sure it usually is of its own words; absent: nothing is known of it.
    """

    table: ModeTable
    confidence: Confidence
    n_options: float
    habits: Mapping[str, Habit] = field(default_factory=dict)

    def document(self) -> list[dict[str, Any]]:
        """The modes as plain values, for a manifest."""
        return [asdict(mode) for mode in self.table.modes]

    def to_arrays(self) -> dict[str, Floats]:
        """The arrays to keep, by name; `read` is the way back."""
        found = {name: getattr(self.table, name) for name in _TABLE}
        found["confidence"] = np.append(self.confidence.coef, self.confidence.intercept)
        if self.habits:
            found["habits"] = np.array([self._habit(name) for name in self.table.expert_ids])
        return {**found, "n_options": np.array([self.n_options])}

    def _habit(self, expert_id: str) -> tuple[float, float]:
        habit = self.habits.get(expert_id)
        return (np.nan, np.nan) if habit is None else (habit.mean, habit.spread)

    @classmethod
    def read(
        cls,
        document: Sequence[Mapping[str, Any]],
        arrays: Mapping[str, NDArray[Any]],
        categories: tuple[str, ...],
        expert_ids: tuple[str, ...],
    ) -> LearnedModes:
        """What `document` and `to_arrays` said, of an artefact of these categories and experts.

        Raises
        ------
        KeyError, TypeError
            Something is absent, or of another type.
        ValueError
            A mode is malformed, twice there, or of unknown experts, a member has no single;
            shapes do not agree; or a number lies outside its range.
        """
        found = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
        table = ModeTable(
            categories,
            expert_ids,
            tuple(_mode(row, expert_ids) for row in document),
            *(found[name] for name in _TABLE),
        )
        _check(table)
        n_options = float(found["n_options"].item())
        if not 1 < n_options < np.inf:
            raise ValueError(f"n_options is {n_options}")
        habits = _habits(found.get("habits", np.empty((0, 2))), expert_ids)
        return cls(table, _confidence(found["confidence"]), n_options, habits)


def _confidence(numbers: Floats) -> Confidence:
    """One learned before sureness was a trait has one number less, and takes no notice of it."""
    if numbers.shape == (len(TRAITS),):
        numbers = np.insert(numbers, TRAITS.index("sureness"), 0.0)
    if numbers.shape != (len(TRAITS) + 1,) or not np.isfinite(numbers).all():
        raise ValueError(f"confidence must be {len(TRAITS) + 1} finite numbers")
    return Confidence(numbers[:-1], float(numbers[-1]))


def _habits(rows: Floats, expert_ids: Sequence[str]) -> dict[str, Habit]:
    """Of the experts whose row is known; no rows are none."""
    if rows.size and rows.shape != (len(expert_ids), 2):
        raise ValueError(f"habits has shape {rows.shape}, not {(len(expert_ids), 2)}")
    known = {
        name: Habit(mean, spread)
        for name, (mean, spread) in zip(expert_ids, rows.tolist(), strict=False)
        if not math.isnan(mean)
    }
    for name, habit in known.items():
        if not (-math.inf < habit.mean <= 0 < habit.spread < math.inf):
            raise ValueError(f"the habit of {name!r} has a number outside its range")
    return known


def _mode(row: Mapping[str, Any], expert_ids: Sequence[str]) -> Mode:
    """The mode of one row of the manifest."""
    kind, threshold = row["kind"], float(row["threshold"])
    stages = tuple(tuple(stage) for stage in row["stages"])
    mode = Mode(kind, stages, threshold)
    if kind not in get_args(Kind) or not stages or not all(stages):
        raise ValueError(f"{row!r} is no mode")
    if not set(mode.members) <= set(expert_ids) or len(set(mode.members)) < len(mode.members):
        raise ValueError(f"mode {mode.name}: an expert is unknown or there twice")
    staged = kind in ("cascade", "fuse")
    if (len(stages) > 1) != staged or not 0 <= threshold <= 1:
        raise ValueError(f"mode {mode.name}: {len(stages)} stages, threshold {threshold}")
    alone = {"single": stages[0], "fuse": stages[-1]}.get(kind)
    if alone is not None and len(alone) != 1:
        raise ValueError(f"mode {mode.name}: {len(alone)} experts where one is alone")
    return mode


def _check(table: ModeTable) -> None:
    modes = table.modes
    singles = {mode.members[0] for mode in modes if mode.kind == "single"}
    if not modes or len(set(modes)) < len(modes):
        raise ValueError("there are no modes, or one twice")
    if not singles.issuperset(name for mode in modes for name in mode.members):
        raise ValueError("a member of a mode is not there as a single")
    shape = (len(table.categories), len(modes))
    n_stages = max(len(mode.stages) for mode in modes)
    for name, depth in zip(_TABLE, ((), (), (len(table.expert_ids),), (n_stages,)), strict=True):
        array = getattr(table, name)
        if array.shape != (*shape, *depth):
            raise ValueError(f"modes: {name} has shape {array.shape}, not {(*shape, *depth)}")
        most = 1.0 if name in ("quality", "reach") else np.finfo(float).max
        if not ((array >= 0) & (array <= most)).all():
            raise ValueError(f"modes: {name} has a number outside its range")
