"""Whether the value of sets is what the search would like it to be: monotone, submodular.

MoE2 (arXiv 2501.09410) rests on both; with a frozen gate neither is sure. The monotone closure,
the value of the best subset, is monotone by construction and has the same optimum, because all
that sets use grows with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coe.kernels.staircase import closure
from coe.optimizer.figures import Floats
from coe.optimizer.result import EXACT


@dataclass(frozen=True, slots=True)
class Premise:
    """How often the value of sets breaks the two properties.

    Parameters
    ----------
    falls : share of the ways to add an expert to a set that lower its value.
    falls_most : by how much at worst, 0 if never.
    rises : share of the (set, expert, other expert) in which the first adds more once the other
        is there: what submodularity forbids.
    rises_closed : the same of the monotone closure.
    superfluous : share of the sets that some subset equals or exceeds.
    """

    falls: float
    falls_most: float
    rises: float
    rises_closed: float
    superfluous: float


def examine(values: Floats) -> Premise:
    """How a value of all sets behaves. O(n_experts ** 2 2 ** n_experts).

    Sets of value ``-inf``, such as the empty one, are left out, and so are the steps from them.

    Parameters
    ----------
    values : (2 ** n_experts,) entry m is the set of the set bits of m; not NaN.
    """
    closed, subset = closure(values)
    steps = [_gains(values, n) for n in range(_n_experts(values))]
    known = np.concatenate([step[np.isfinite(step)] for step in steps] or [np.zeros(0)])
    able = np.isfinite(values)
    return Premise(
        falls=_share(known < -EXACT),
        falls_most=max(0.0, float(-known.min(initial=0.0))),
        rises=_rises(values),
        rises_closed=_rises(closed),
        superfluous=_share((subset != np.arange(values.size))[able]),
    )


def _n_experts(values: Floats) -> int:
    return values.size.bit_length() - 1


def _gains(values: Floats, n: int) -> Floats:
    """(2 ** (n_experts - 1),) what expert n adds to every set without it."""
    halves = values.reshape(-1, 2, 1 << n)
    with np.errstate(invalid="ignore"):
        gains: Floats = (halves[:, 1] - halves[:, 0]).ravel()
    return gains


def _rises(values: Floats) -> float:
    n_broken = n_known = 0
    for n in range(_n_experts(values)):
        gains = _gains(values, n)
        for other in range(n):
            with np.errstate(invalid="ignore"):
                more = _gains(gains, other)
            known = more[np.isfinite(more)]
            n_broken += int((known > EXACT).sum())
            n_known += known.size
    return n_broken / n_known if n_known else 0.0


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if flags.size else 0.0
