"""What a request may choose from: modes of several experts, planned sets, and experts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.decision import Candidate
from coe.mode import Kind
from coe.offers import together
from coe.optimizer.options import Options
from coe.permitted import Circle
from coe.repertoire import Ways

_MOST_WAYS = 5  # of one decision's alternatives
_MOST_SETS = 64


@dataclass(frozen=True, slots=True)
class Slate:
    """Options, and the candidates behind them: first all ways, then all sets.

    A way competes with one standard error less than its expected quality. So it is preferred to
    an expert alone only where its gain in utility exceeds that.

    Parameters
    ----------
    alone : (n_experts,) who may answer, alone.
    sets : (n_sets, n_experts) who of them answers together; of one, alone.
    ways : modes of several.
    """

    options: Options
    alone: Sequence[Candidate]
    sets: NDArray[np.bool_]
    ways: Ways

    @classmethod
    def of(
        cls,
        alone: Sequence[Candidate],
        sets: NDArray[np.bool_],
        options: Options,
        ways: Ways,
        circle: Circle,
        kind: Kind | None = None,
        declining: Sequence[str] = (),
    ) -> Slate:
        """The slate of these ways, and of the sets that the circle admits.

        Parameters
        ----------
        options : those of the sets.
        kind : where one was asked for, ways are all there is, if there are any, beside those who
            are ``declining``: to say that nobody answers.
        """
        admitted = circle.admits(sets)
        if kind is not None and ways.modes:
            admitted &= _only_of(sets, alone, declining)
        if not admitted.all():
            kept = np.flatnonzero(admitted)
            sets, options = sets[kept], options.rows(kept.tolist())
        if ways.modes:
            n_axes = options.usage.shape[1]
            options = Options(
                quality=np.append(ways.surely, options.quality),
                usage=np.vstack([ways.cautious[:, :n_axes], options.usage]),
                ceilings=options.ceilings,
                prices=options.prices,
                expected_usage=np.vstack([ways.mean[:, :n_axes], options.paid]),
            )
        return cls(options, alone, sets, ways)

    def only_of(self, expert_ids: Sequence[str]) -> NDArray[np.bool_]:
        """(n_options,) the sets that consist of these experts; no way is one of them."""
        none = np.zeros(len(self.ways.modes), dtype=bool)
        return np.append(none, _only_of(self.sets, self.alone, expert_ids))

    def candidate(self, k: int) -> Candidate:
        """The candidate behind option ``k``."""
        n_ways = len(self.ways.modes)
        if k < n_ways:
            return self.ways.candidate(k)
        members = [self.alone[n] for n in np.flatnonzero(self.sets[k - n_ways]).tolist()]
        return together(members, float(self.options.quality[k]))

    def shown(self, index: int) -> list[int]:
        """The options that a decision speaks of: the best ones, option ``index`` among them."""
        n_ways, n_sets = len(self.ways.modes), len(self.sets)
        if n_ways <= _MOST_WAYS and n_sets <= _MOST_SETS:
            return list(range(n_ways + n_sets))
        utility = self.options.utility
        ways = np.argsort(-utility[:n_ways], kind="stable")[:_MOST_WAYS]
        sets = n_ways + np.argsort(-utility[n_ways:], kind="stable")[:_MOST_SETS]
        return sorted({*ways.tolist(), *sets.tolist(), index})

    def options_of(self, shown: Sequence[int]) -> Options:
        """The options of these."""
        return self.options if len(shown) == self.options.quality.size else self.options.rows(shown)


def _only_of(
    sets: NDArray[np.bool_], alone: Sequence[Candidate], expert_ids: Sequence[str]
) -> NDArray[np.bool_]:
    """(n_sets,) those that consist of these experts."""
    others = np.array([one.expert_id not in expert_ids for one in alone])
    only: NDArray[np.bool_] = ~np.any(sets & others, axis=1)
    return only
