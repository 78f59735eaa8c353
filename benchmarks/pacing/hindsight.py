"""What could have been had with all requests known in advance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from policies import columns, counted
from world import World

from coe.optimizer.dual import shadow_prices
from coe.optimizer.pacing import Allowance

Floats = NDArray[np.float64]

# rounds of `shadow_prices` for several allowances; the other side of a price is this far below it
ROUNDS, NUDGE = 4, 0.995


@dataclass(frozen=True, slots=True)
class Hindsight:
    """The linear program that knows all requests.

    Parameters
    ----------
    bound : on total expected quality.
    score : what its choices were recorded to score.
    prices : (n_allowances,) means over windows.
    """

    bound: float
    score: float
    prices: Floats


def optimum(world: World, allowances: Sequence[Allowance], usage: Floats) -> Hindsight:
    """The optimum if every answer takes its ``usage``, (T, n, 3), and may be given in part.

    Per window the dual of the linear program; whatever its prices, that is a bound, if ``usage``
    is what answers take. All allowances have one window. The score of one allowance is that of
    the program's own mixture; of several, that of the choices at its prices.
    """
    (window_s,) = {allowance.window_s for allowance in allowances}
    window = (world.at_s // window_s).astype(int)
    nobody = [(0, 0), (0, 1)]
    quality, score = np.pad(world.quality, nobody), np.pad(world.score, nobody)
    usage = np.pad(usage, [*nobody, (0, 0)])
    counts, resource = counted(world, allowances), np.array(columns(allowances))
    amounts = np.array([allowance.amount for allowance in allowances])
    bound, scored, mean_prices = 0.0, 0.0, np.zeros(amounts.size)
    for w in np.unique(window):
        rows = window == w
        limits = amounts / np.maximum(counts[:, rows].sum(axis=1), 1)
        found = np.zeros((amounts.size, 3))
        for _ in range(ROUNDS if amounts.size > 1 else 1):
            found = shadow_prices(
                quality[rows], usage[rows], counts[:, rows], resource, limits, found
            )
        prices = found[:, 0]
        here = np.arange(int(rows.sum()))
        dear, cheap = (
            _worth(quality[rows], usage[rows], counts[:, rows], resource, prices * factor)
            for factor in (1.0, NUDGE)
        )
        bound += float(prices @ amounts + dear.max(axis=1).sum())
        scores = [float(score[rows][here, w.argmax(axis=1)].sum()) for w in (dear, cheap)]
        share = 0.0
        if amounts.size == 1:
            taken = [usage[rows][here, w.argmax(axis=1), resource[0]].sum() for w in (dear, cheap)]
            more = max(float(taken[1] - taken[0]), 1e-12)
            share = float(np.clip((amounts[0] - taken[0]) / more, 0.0, 1.0))
        scored += scores[0] + share * (scores[1] - scores[0])
        mean_prices += prices * rows.mean()
    return Hindsight(bound, scored, mean_prices)


def _worth(
    quality: Floats,
    usage: Floats,
    counts: NDArray[np.bool_],
    resource: NDArray[np.intp],
    prices: Floats,
) -> Floats:
    paid = np.zeros((quality.shape[0], usage.shape[2]))
    for k, column in enumerate(resource):
        paid[:, column] += prices[k] * counts[k]
    worth: Floats = quality - np.einsum("tor,tr->to", usage, paid)
    return worth
