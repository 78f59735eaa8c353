"""Branch, reduce and bound over boxes of sets of experts. Compiled when imported.

What sets are worth is bounded by facility location, the sum over rows of the best member's score,
and that by its Lagrangian: for any level per row, not below the best score in p, no set of the
box is worth more than the levels and what members gain over them, row by row, even if experts
come in fractions and only one ceiling counts. Levels at the best scores in p give the bound of
submodular functions (Nemhauser and Wolsey); better levels, found by subgradients, come close to
the linear relaxation. Boxes and tables are those of `coe.kernels.boxes`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coe.kernels.boxes import (
    CEILINGS,
    FREE,
    IN,
    OUT,
    WORTH,
    Box,
    Floats,
    Integers,
    Table,
    complete,
    count,
    fill,
    gains_over,
    most_in,
    raise_levels,
    require,
    rule_out,
    swap,
)
from coe.kernels.compiled import compiled

# of the levels; none for mixtures, which are far below their best members
_N_FIRST_STEPS = 60
_N_STEPS = 4

QUEUE = "Tuple((i1[:,::1], f8[::1], i8[::1], i8[::1]))"


@compiled("void(f8[:,::1], f8[::1], f8[::1], f8[::1], f8)")
def _descend(scores: Floats, levels: Floats, floor: Floats, taken: Floats, above: float) -> None:
    """One step of the levels towards a bound that is smaller by ``above`` (Polyak)."""
    slope = np.ones(levels.size)
    steep = 0.0
    for r in range(levels.size):
        for n in range(taken.size):
            if taken[n] > 0.0 and scores[r, n] > levels[r]:
                slope[r] -= taken[n]
        steep += slope[r] * slope[r]
    if steep > 0.0 and above < np.inf:
        for r in range(levels.size):
            levels[r] = max(floor[r], levels[r] - above / steep * slope[r])


@compiled("void(i1[::1], f8[::1], f8[::1], f8, f8, b1[::1])")
def _price(
    box: Box, gains: Floats, use: Floats, price: float, spare: float, needed: NDArray[np.bool_]
) -> None:
    """Out goes who, if in, costs the bound what there is to spare; needed is who does if out."""
    for n in range(box.size):
        if box[n] == FREE:
            rent = gains[n] - price * use[n]
            if -rent >= spare:
                box[n] = OUT
            elif rent >= spare:
                needed[n] = True


@compiled(f"f8(i1[::1], f8[:,::1], {CEILINGS}, f8[::1], i8, f8, i8[:,::1])")
def _relax(
    box: Box,
    scores: Floats,
    ceilings: Table,
    levels: Floats,
    n_steps: int,
    low: float,
    orders: Integers,
) -> float:
    """The least bound of some levels: the given, ``n_steps - 1`` more, and the best scores in p.

    Free experts that cannot be in, or cannot be out, of a set worth more than ``low`` become
    ``OUT`` or ``IN``. ``levels`` become the best of those tried first.
    """
    _, linear, most, limits = ceilings
    floor, tried = np.full(levels.size, np.inf), np.empty(levels.size)
    for r in range(levels.size):
        for n in range(box.size):
            floor[r] = min(floor[r], scores[r, n])
    raise_levels(box, scores, floor)
    for r in range(levels.size):
        tried[r] = max(levels[r], floor[r])
    gains, taken, found = np.empty(box.size), np.empty(box.size), np.empty(box.size)
    needed = np.zeros(box.size, dtype=np.bool_)
    n_members = box.size - count(box, OUT)
    top = np.inf
    for step in range(n_steps + 1):
        base, tight = 0.0, np.inf
        for r in range(levels.size):
            if step == n_steps:
                tried[r] = floor[r]
            base += tried[r]
        gains_over(scores, tried, gains)
        for j in range(limits.size):
            # the most[j] largest of up to n_members are at least that share of them all
            room = limits[j] * max(1.0, n_members / most[j])
            for n in range(box.size):
                if box[n] == IN:
                    room -= linear[j, n]
            added, price = fill(box, gains, linear[j], room, found, orders[j])
            if base + added < tight:
                tight = base + added
                for n in range(box.size):
                    taken[n], orders[-1, n] = found[n], orders[j, n]
            _price(box, gains, linear[j], price, base + added - low, needed)
        if tight < top:
            top = tight
            for r in range(levels.size if step < n_steps else 0):
                levels[r] = tried[r]
        if top <= low:
            return top
        if step + 1 < n_steps:
            _descend(scores, tried, floor, taken, tight - low)
    for n in range(box.size):
        if box[n] == FREE and needed[n]:
            box[n] = IN
    return top


@compiled(f"f8(i1[::1], {WORTH}, {CEILINGS}, i8[:,::1], f8[::1], i8, f8, i8[:,::1])")
def _bound(
    box: Box,
    worth: Table,
    ceilings: Table,
    swaps: Integers,
    levels: Floats,
    n_steps: int,
    low: float,
    orders: Integers,
) -> float:
    """Reduce the box; no set of it is worth more than this, or none more than ``low``.

    Sets that a swap makes no worse do not count. A box without sets becomes all ``OUT``, of
    bound ``-inf``. What is left of a box whose bound does not exceed ``low`` means nothing.
    """
    top = np.inf
    while True:
        n_free = count(box, FREE)
        able = swap(box, swaps) and rule_out(box, ceilings)
        if not able or count(box, OUT) == box.size:
            for n in range(box.size):
                box[n] = OUT
            return -np.inf
        top = min(top, require(box, worth[0], low))
        if top > low and worth[1].size:
            top = min(top, most_in(box, worth))
        if top > low:
            top = min(top, _relax(box, worth[0], ceilings, levels, n_steps, low, orders))
        if top <= low or count(box, FREE) == n_free:
            return top


@compiled(f"f8(i1[::1], {WORTH}, {CEILINGS}, i8[::1], b1[::1], f8)")
def _improve(
    box: Box,
    worth: Table,
    ceilings: Table,
    order: Integers,
    best: NDArray[np.bool_],
    low: float,
) -> float:
    """What the best set known is worth, after p completed; if they differ, after p and q too."""
    tried = box.copy()
    for attempt in (FREE, OUT, IN):
        for n in range(box.size):
            tried[n] = attempt if box[n] == FREE else box[n]
        if attempt == FREE:
            complete(tried, worth[0], ceilings, order)
        elif attempt == IN and not rule_out(tried, ceilings):
            continue
        if count(tried, IN):
            value = most_in(tried, worth)
            if value > low or not best.any():
                low = value
                for n in range(box.size):
                    best[n] = tried[n] == IN
        if worth[1].size == 0:
            break
    return low


@compiled(f"i8(i1[::1], {CEILINGS})")
def _largest_free(box: Box, ceilings: Table) -> int:
    """The free expert that takes most of a ceiling: with or without it, most is decided."""
    _, linear, _, limits = ceilings
    chosen, most = -1, -1.0
    for n in range(box.size):
        for j in range(limits.size if box[n] == FREE else 0):
            share = linear[j, n] / limits[j] if linear[j, n] > 0.0 else 0.0
            if share > most:
                chosen, most = n, share
    return chosen


@compiled(f"void({QUEUE}, i8, i1[::1], f8, i8)")
def _push(queue: Table, n_open: int, box: Box, bound: float, split: int) -> None:
    boxes, bounds, splits, heap = queue
    slot = heap[n_open]
    boxes[slot], bounds[slot], splits[slot] = box, bound, split
    at = n_open
    while at > 0 and bounds[heap[(at - 1) // 2]] < bound:
        heap[at] = heap[(at - 1) // 2]
        at = (at - 1) // 2
    heap[at] = slot


@compiled(f"i8({QUEUE}, i8)")
def _pop(queue: Table, n_open: int) -> int:
    """The slot of the largest bound. It is the next to be written to."""
    bounds: Floats = queue[1]
    heap: Integers = queue[3]
    top, slot = int(heap[0]), heap[n_open - 1]
    heap[n_open - 1] = top
    at, child = 0, 1
    while child < n_open - 1:
        if child + 1 < n_open - 1 and bounds[heap[child + 1]] > bounds[heap[child]]:
            child += 1
        if bounds[heap[child]] <= bounds[slot]:
            break
        heap[at] = heap[child]
        at, child = child, 2 * child + 1
    if n_open > 1:
        heap[at] = slot
    return top


@compiled(
    f"Tuple((i8, i8, f8))({QUEUE}, i8, {WORTH}, {CEILINGS}, i8[:,::1], f8[::1], b1[::1],"
    " f8, f8, i8)"
)
def search(
    queue: Table,
    n_open: int,
    worth: Table,
    ceilings: Table,
    swaps: Integers,
    levels: Floats,
    best: NDArray[np.bool_],
    low: float,
    tolerance: float,
    n_boxes: int,
) -> tuple[int, int, float]:
    """Open boxes left, boxes looked at, and what the best set known is worth.

    Looks at boxes, that of the largest bound first, until none may hold a set that is better by
    more than ``tolerance``, until about ``n_boxes`` were looked at, or until the queue is full.

    Parameters
    ----------
    queue : ``(boxes, bounds, splits, heap)``, written to. ``heap`` is a permutation of slots, of
        which the first ``n_open`` are open; ``splits`` says which expert to branch on, -1 for
        a box that has not been looked at.
    swaps : (n_swaps, 2) pairs of experts: some best set has the first if it has the second.
    levels : (n_rows,) written to; ``-inf`` before the first call.
    best : (n_experts,) the best set known, written to; nobody if there is none.
    low : what that is worth; ``-inf`` if there is none.
    """
    boxes, bounds, splits, heap = queue
    limit = heap.size
    orders = np.empty((ceilings[3].size + 1, best.size), dtype=np.int64)
    for n in range(best.size):
        orders[:, n] = n
    n_seen = 0
    while n_open > 0 and n_seen < n_boxes and n_open < limit:
        if bounds[heap[0]] <= low + tolerance and best.any():
            return 0, n_seen, low
        slot = _pop(queue, n_open)
        n_open -= 1
        parent, top, split = boxes[slot].copy(), bounds[slot], splits[slot]
        for side in (IN, OUT):
            box = parent.copy()
            n_steps = 0 if worth[1].size else _N_FIRST_STEPS
            if split >= 0:
                box[split] = side
                n_steps = min(n_steps, _N_STEPS)
            elif side == OUT:
                break
            elif _bound(box, worth, ceilings, swaps, levels, 0, low + tolerance, orders) > low:
                low = _improve(box, worth, ceilings, orders[-1], best, low)
            n_seen += 1
            edge = low + tolerance
            bound = min(top, _bound(box, worth, ceilings, swaps, levels, n_steps, edge, orders))
            if count(box, OUT) < box.size and (bound > edge or not best.any()):
                low = _improve(box, worth, ceilings, orders[-1], best, low)
                following = _largest_free(box, ceilings)
                if bound > low + tolerance and following >= 0:
                    _push(queue, n_open, box, bound, following)
                    n_open += 1
    return n_open, n_seen, low
