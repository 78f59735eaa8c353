"""Which turn of a conversation a decision goes by, with what a change of experts costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coe.core import Budget, Estimate, ExpertSpec, Prices, Request, estimated_tokens
from coe.optimizer.options import Options
from coe.routers.reading import TextReading
from coe.routers.turns import UserTurn, is_clear, margin_at, turn_that_holds


def held(
    turns: Sequence[UserTurn],
    readings: Sequence[TextReading],
    request: Request,
    specs: Sequence[ExpertSpec],
    utility: Callable[[int], NDArray[np.float64]],
    switch_margin: float,
) -> TextReading:
    """What was read of the turn that holds, which says how long ago that was.

    Parameters
    ----------
    turns, readings : of the conversation, oldest first; at least one.
    specs : (n_experts,) those that may answer.
    utility : of turn number k, (n_experts,) what each was worth by its reading.
    switch_margin : points of quality that another expert must add to take over, beyond the price
        of what the present one need not read again.
    """

    def switch_cost(k: int, column: int) -> float:
        lengths = [estimated_tokens(m.text) for m in request.messages[: turns[k].end]]
        own, whole = sum(lengths[turns[k].start :]), sum(lengths)
        prefills = [specs[column].estimate(0.0, n_tokens, 0.0) for n_tokens in (own, whole)]
        alone, with_history = utility_of(prefills, request.policy.prices)
        return margin_at(turns[k], switch_margin) + float(alone - with_history)

    categories: list[str | None] = []
    for k, (turn, reading) in enumerate(zip(turns, readings, strict=True)):
        clear = k == 0 or is_clear(turn, reading.guess.probability)
        categories.append(reading.guess.name if clear and not reading.guess.uncertain else None)
    n = turn_that_holds(categories, utility, switch_cost)
    return replace(readings[n], guess=replace(readings[n].guess, turns_ago=len(turns) - 1 - n))


def utility_of(estimates: Sequence[Estimate], prices: Prices) -> NDArray[np.float64]:
    """(n_estimates,) what each is worth where there are no ceilings."""
    return Options.of(estimates, estimates, Budget(), prices).utility
