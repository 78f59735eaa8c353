"""Boxes of sets of experts: what is in reach, and bounds on it. Compiled when imported.

A box is a row of bytes over experts, ``OUT``, ``IN`` or ``FREE``. It holds the sets with all that
are in and none that is out. Its p are those that are in, its q those and the free. Tables:

worth : ``(scores, weight, gates, outcomes, by_outcome, by_logit, k, log)``. No set is worth more
    than the sum over rows of its best member's score, ``scores``: (n_rows, n_experts), finite.
    If ``weight`` is empty, so are the others, and it is worth just that. Else it is worth the
    sum over rows of ``weight`` times the outcomes mixed by gates, or times the logarithm of that:
    the mixture of `coe.kernels.mixture`. ``by_outcome``, ``by_logit`` are columns, largest first.
ceilings : ``(figures, linear, most, limits)``, at least one. Of ceiling j a set uses the sum over
    parts of the ``most[j]`` largest of its members' ``figures``: (n_ceilings, n_parts, n_experts),
    which may not exceed ``limits[j]``. ``linear`` is the sum over parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.kernels.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Box = NDArray[np.int8]
Table = tuple[Any, ...]

OUT, IN, FREE = 0, 1, 2

WORTH = "Tuple((f8[:,::1], f8[::1], f8[:,::1], f8[:,::1], i8[:,::1], i8[:,::1], i8, b1))"
CEILINGS = "Tuple((f8[:,:,::1], f8[:,::1], i8[::1], f8[::1]))"


@compiled("i8(i1[::1], i8)")
def count(box: Box, state: int) -> int:
    """How many experts are in this state."""
    n_found = 0
    for n in range(box.size):
        n_found += box[n] == state
    return n_found


@compiled("void(f8[::1], i8[::1])")
def rank(keys: Floats, order: Integers) -> None:
    """Order by the largest key first. An order that nearly does so already is soon put right."""
    for i in range(1, order.size):
        moving = order[i]
        j = i
        while j > 0 and keys[order[j - 1]] < keys[moving]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = moving


@compiled("UniTuple(f8, 2)(i1[::1], f8[::1], i8)")
def _largest(box: Box, figures: Floats, most: int) -> tuple[float, float]:
    """Sum of the largest figures in p, and the smallest that counts; 0 if there is still room."""
    n_in = count(box, IN)
    total = 0.0
    if n_in < most:
        for n in range(box.size):
            if box[n] == IN:
                total += figures[n]
        return total, 0.0
    own = np.full(box.size, -1.0)
    order = np.empty(box.size, dtype=np.int64)
    for n in range(box.size):
        order[n] = n
        if box[n] == IN:
            own[n] = figures[n]
    rank(own, order)
    for i in range(most):
        total += own[order[i]]
    return total, own[order[most - 1]]


@compiled(f"b1(i1[::1], {CEILINGS})")
def rule_out(box: Box, ceilings: Table) -> bool:
    """Whether p exceeds no ceiling; free experts that do not fit beside p become ``OUT``.

    O(n_ceilings n_parts n_experts), with ``most`` below the size of p times that.
    """
    figures, _, most, limits = ceilings
    for j in range(limits.size):
        used = 0.0
        beside = np.zeros(box.size)
        for part in range(figures.shape[1]):
            total, least = _largest(box, figures[j, part], most[j])
            used += total
            for n in range(box.size):
                beside[n] += max(figures[j, part, n] - least, 0.0)
        if used > limits[j]:
            return False
        for n in range(box.size):
            if box[n] == FREE and used + beside[n] > limits[j]:
                box[n] = OUT
    return True


@compiled("b1(i1[::1], i8[:,::1])")
def swap(box: Box, swaps: Integers) -> bool:
    """Whether the box may have sets with the first of every pair whose second they have.

    ``swaps``: (n_swaps, 2). Free experts that all such sets have, or none has, become that.
    """
    for pair in range(swaps.shape[0]):
        first, second = swaps[pair]
        if box[first] == OUT and box[second] == FREE:
            box[second] = OUT
        elif box[first] == FREE and box[second] == IN:
            box[first] = IN
        elif box[first] == OUT and box[second] == IN:
            return False
    return True


@compiled("void(i1[::1], i8[::1], i8, i1[::1])")
def _foresee(box: Box, by_logit: Integers, k: int, seen: Box) -> None:
    """Who is among the k largest logits in all sets of the box, in some, in none."""
    for n in range(box.size):
        seen[n] = OUT
    n_in = n_maybe = 0
    for n in by_logit:
        if n_in >= k:
            break
        if box[n] != OUT:
            seen[n] = IN if box[n] == IN and n_maybe < k else FREE
            n_maybe += 1
            n_in += box[n] == IN


@compiled("f8(i1[::1], f8[::1], f8[::1], i8[::1])")
def _mix(seen: Box, gates: Floats, outcomes: Floats, by_outcome: Integers) -> float:
    """The largest mixture of those that are in and any of the free: of those above itself."""
    total = mixed = 0.0
    for n in range(seen.size):
        if seen[n] == IN:
            total += gates[n]
            mixed += gates[n] * outcomes[n]
    for n in by_outcome:
        if seen[n] == FREE:
            if outcomes[n] * total < mixed:
                break
            total += gates[n]
            mixed += gates[n] * outcomes[n]
    return mixed / total if total > 0.0 else -np.inf


@compiled(f"f8(i1[::1], {WORTH})")
def most_in(box: Box, worth: Table) -> float:
    """No set of the box is worth more; of a box with one set, just what that is worth.

    Without prompts that is what q is worth. With prompts every row has its own best set of the
    box: mixed monotonic, it falls as p grows and as q shrinks. O(n_rows n_experts).
    """
    scores, weight, gates, outcomes, by_outcome, by_logit, k, log = worth
    total = 0.0
    if weight.size == 0:
        for r in range(scores.shape[0]):
            best = -np.inf
            for n in range(box.size):
                if box[n] != OUT and scores[r, n] > best:
                    best = scores[r, n]
            total += best
        return total
    seen = box.copy()
    for r in range(weight.size):
        if k < box.size:
            _foresee(box, by_logit[r], k, seen)
        mixed = _mix(seen, gates[r], outcomes[r], by_outcome[r])
        total += weight[r] * (np.log(mixed) if log else mixed)
    return total


@compiled("f8(i1[::1], f8[:,::1], f8)")
def require(box: Box, scores: Floats, low: float) -> float:
    """No set of the box is worth more: sum over rows of the best score in q, which is not empty.

    Free experts without whom that would not exceed ``low`` become ``IN``. O(n_rows n_experts).
    """
    losses = np.zeros(box.size)
    total = 0.0
    for r in range(scores.shape[0]):
        best = second = -np.inf
        who = 0
        for n in range(box.size):
            if box[n] != OUT:
                score = scores[r, n]
                if score > best:
                    second, best, who = best, score, n
                elif score > second:
                    second = score
        total += best
        losses[who] += best - second
    for n in range(box.size):
        if box[n] == FREE and total - losses[n] <= low:
            box[n] = IN
    return total


@compiled("void(i1[::1], f8[:,::1], f8[::1])")
def raise_levels(box: Box, scores: Floats, levels: Floats) -> None:
    """Raise each row's level to the best score in p, if that is above it."""
    for n in range(box.size):
        if box[n] == IN:
            for r in range(levels.size):
                levels[r] = max(levels[r], scores[r, n])


@compiled("void(f8[:,::1], f8[::1], f8[::1])", loose=True)
def gains_over(scores: Floats, levels: Floats, gains: Floats) -> None:
    """Per expert, the sum over rows of what its score is above the level. O(n_rows n_experts)."""
    for n in range(gains.size):
        gains[n] = 0.0
    for r in range(levels.size):
        for n in range(gains.size):
            gains[n] += max(scores[r, n] - levels[r], 0.0)


@compiled("UniTuple(f8, 2)(i1[::1], f8[::1], f8[::1], f8, f8[::1], i8[::1])")
def fill(
    box: Box, gains: Floats, use: Floats, room: float, taken: Floats, order: Integers
) -> tuple[float, float]:
    """What free experts, in fractions, gain within the room, and what more room would gain.

    The fractional knapsack. ``taken`` becomes the fractions; ``order`` is put in order of gain
    for use, best first, those that gain nothing last. O(n_experts ** 2) at worst.
    """
    ratio = np.full(box.size, -1.0)
    for n in range(box.size):
        taken[n] = 0.0
        if box[n] == FREE and gains[n] > 0.0:
            ratio[n] = gains[n] / use[n]
    rank(ratio, order)
    total = 0.0
    for n in order:
        if ratio[n] < 0.0:
            break
        if use[n] > room:
            taken[n] = max(room, 0.0) / use[n]
            return total + gains[n] * taken[n], ratio[n]
        taken[n] = 1.0
        room -= use[n]
        total += gains[n]
    return total, 0.0


@compiled(f"void(i1[::1], f8[:,::1], {CEILINGS}, i8[::1])")
def complete(box: Box, scores: Floats, ceilings: Table, order: Integers) -> None:
    """Leave one set of the box: p, and in this order what fits and has the best score of a row.

    O(n_experts (n_rows + n_experts)) with one ceiling of one part.
    """
    levels = np.full(scores.shape[0], -np.inf)
    raise_levels(box, scores, levels)
    for n in order:
        if box[n] == FREE:
            box[n] = OUT
            for r in range(levels.size):
                if scores[r, n] > levels[r]:
                    levels[r] = scores[r, n]
                    box[n] = IN
            if box[n] == IN:
                rule_out(box, ceilings)
