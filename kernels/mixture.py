"""Gates restricted to sets of experts, and mixtures of all sets at once. Compiled when imported.

The weight of expert n in a set S is ``exp(h_n) / sum_{j in S} exp(h_j)`` over those members of S
that count, the k of the largest logits; of equal logits the first. Logits lie below infinity;
``-inf`` gives no weight. Within a row, a logit more than `FLOOR` below the largest counts as
just that far below it, so that no set of finite logits is without a distribution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coe.kernels.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FLOOR = 600.0
"""In nats: the smallest weight is about 1e-260, which sums and products still hold."""

_STRIP = 256  # prompts at once: their running sums stay in the first-level cache
_ROOM = 1e150 ** (
    1 / _STRIP
)  # products of large sets may grow as far as those of small ones shrink
_TINY = 1e-290  # a smaller product may have lost digits
_NOTHING = 1e-300  # vanishes beside any weight, and keeps 0 / 0 at 0


def relative_weights(logits: Floats) -> Floats:
    """(n_prompts, n_experts) weights up to a factor per prompt: the largest of a row is 1.

    A row of only ``-inf`` gives zeros.
    """
    top = logits.max(axis=1, keepdims=True, initial=-np.inf)
    below = np.subtract(logits, top, where=np.isfinite(logits), out=np.full_like(logits, -np.inf))
    weight: Floats = np.where(below == -np.inf, 0.0, np.exp(np.maximum(below, -FLOOR)))
    return weight


def gate_weights(logits: Floats, members: NDArray[np.bool_], k: int) -> Floats:
    """(n_prompts, n_experts) weights of the k members with the largest logits; rows sum to 1.

    A row without weight, such as that of an empty set, is zero. O(n_prompts n_experts k).

    Parameters
    ----------
    logits : (n_prompts, n_experts).
    members : (n_experts,).
    k : at least 1; more than there are members: all of them.
    """
    rows = np.ascontiguousarray(logits)
    return _gate_weights(rows, relative_weights(rows), members, k)


def mixtures_of_subsets(logits: Floats, outcome: Floats, log: bool) -> Floats:
    """(2 ** n_experts,) mean mixture of every set over prompts, or its mean logarithm.

    Entry m is the set whose members are the set bits of m. Entry 0 is ``-inf``, and so is the
    logarithm of a mixture of 0. Without prompts the others are NaN. The sets are walked like a
    binary tree, one addition per prompt and step; nothing is ever subtracted, so that no digits
    cancel. O(2 ** n_experts n_prompts).

    Parameters
    ----------
    logits, outcome : (n_prompts, n_experts), n_experts >= 1; outcomes in [0, 1].
    """
    n_prompts, n_experts = logits.shape
    weight = relative_weights(logits)
    total = weight.sum(axis=1, keepdims=True)
    weight = np.divide(weight, total, where=total > 0, out=weight)
    product = weight * outcome
    whole = product.sum(axis=1) if log else np.ones(n_prompts)
    whole[whole == 0] = 1.0
    sums = _ROOM * np.stack([(product / whole[:, None]).T, weight.T], axis=1)
    while len(sums) < 3:  # the leaves of the tree are triples
        sums = np.concatenate([sums, np.zeros_like(sums[:1])])
    table = np.full(1 << len(sums), np.log(whole).sum())
    for start in range(0, n_prompts, _STRIP):
        _add_strip(np.ascontiguousarray(sums[:, :, start : start + _STRIP]), log, table)
    table /= n_prompts or np.nan
    table[0] = -np.inf
    return table[: 1 << n_experts]


def top_of_subsets(logits: Floats, outcome: Floats, k: int, log: bool) -> Floats:
    """As `mixtures_of_subsets`, of the k members with the largest logits.

    O(2 ** n_experts n_prompts) times the steps to the k-th member, about 2 k.
    """
    n_prompts, n_experts = logits.shape
    order = np.argsort(-logits, axis=1, kind="stable")
    weight = np.take_along_axis(relative_weights(logits), order, axis=1)
    product = weight * np.take_along_axis(outcome, order, axis=1)
    table = np.zeros(1 << n_experts)
    _add_top(order, product, weight, k, log, table)
    table /= n_prompts or np.nan
    table[0] = -np.inf
    return table


@compiled("f8[:,::1](f8[:,::1], f8[:,::1], b1[:], i8)")
def _gate_weights(logits: Floats, weight: Floats, members: NDArray[np.bool_], k: int) -> Floats:
    gates = np.zeros_like(logits)
    n_experts = logits.shape[1]
    for i in range(logits.shape[0]):
        total = 0.0
        for _ in range(min(k, n_experts)):
            best = -1
            for n in range(n_experts):
                free = members[n] and gates[i, n] == 0.0 and weight[i, n] > 0.0
                if free and (best < 0 or logits[i, n] > logits[i, best]):
                    best = n
            if best < 0:
                break
            gates[i, best] = weight[i, best]
            total += weight[i, best]
        if total > 0.0:
            for n in range(n_experts):
                gates[i, n] /= total
    return gates


@compiled("void(f8[::1], f8[::1], f8[::1], f8[::1], f8[::1])", loose=True)
def _multiply(base: Floats, one: Floats, two: Floats, three: Floats, products: Floats) -> None:
    """Products over prompts of eight sums: base alone, and with each set of the three others."""
    p0 = p1 = p2 = p3 = p4 = p5 = p6 = p7 = 1.0
    for i in range(base.size):
        s, w, x = base[i], two[i], three[i]
        t = s + one[i]
        u, v = s + w, t + w
        p0 *= s
        p1 *= t
        p2 *= u
        p3 *= v
        p4 *= s + x
        p5 *= t + x
        p6 *= u + x
        p7 *= v + x
    products[0], products[1], products[2], products[3] = p0, p1, p2, p3
    products[4], products[5], products[6], products[7] = p4, p5, p6, p7


@compiled("void(f8[:,::1], f8[:,:,::1], f8[::1])", loose=True)
def _add_means(base: Floats, leaves: Floats, totals: Floats) -> None:
    """Sums over prompts of the same eight mixtures; 0 where there is no weight."""
    one, two, three = leaves[0], leaves[1], leaves[2]
    r0 = r1 = r2 = r3 = r4 = r5 = r6 = r7 = 0.0
    for i in range(base.shape[1]):
        p, q = base[0, i], base[1, i] + _NOTHING
        p1, q1 = p + one[0, i], q + one[1, i]
        p2, q2 = p + two[0, i], q + two[1, i]
        p3, q3 = p1 + two[0, i], q1 + two[1, i]
        x, y = three[0, i], three[1, i]
        r0 += p / q
        r1 += p1 / q1
        r2 += p2 / q2
        r3 += p3 / q3
        r4 += (p + x) / (q + y)
        r5 += (p1 + x) / (q1 + y)
        r6 += (p2 + x) / (q2 + y)
        r7 += (p3 + x) / (q3 + y)
    totals[0], totals[1], totals[2], totals[3] = r0, r1, r2, r3
    totals[4], totals[5], totals[6], totals[7] = r4, r5, r6, r7


@compiled("f8(f8[:,::1], f8[:,:,::1], i8)")
def _add_logs(base: Floats, leaves: Floats, leaf: int) -> float:
    """Sum over prompts of the logarithm of one of the eight mixtures, prompt by prompt."""
    total = 0.0
    for i in range(base.shape[1]):
        p, q = base[0, i], base[1, i]
        for n in range(3):
            if leaf >> n & 1:
                p, q = p + leaves[n, 0, i], q + leaves[n, 1, i]
        total += np.log(p / (q + _NOTHING))
    return total


@compiled("void(f8[:,::1], f8[:,::1], f8[:,::1])")
def _extend(base: Floats, expert: Floats, extended: Floats) -> None:
    for i in range(base.shape[1]):
        extended[0, i] = base[0, i] + expert[0, i]
        extended[1, i] = base[1, i] + expert[1, i]


@compiled("void(f8[:,:,::1], b1, f8[::1])")
def _add_strip(sums: Floats, log: bool, table: Floats) -> None:
    """Add the sum over prompts of every set's mixture, or of its logarithm, to the table.

    ``sums``: (n_experts, 2, n_prompts) what an expert adds to numerator and denominator.
    """
    n_experts, _, n_prompts = sums.shape
    base = np.zeros((n_experts + 1, 2, n_prompts))
    mask = np.zeros(n_experts + 1, dtype=np.int64)
    following = np.zeros(n_experts + 1, dtype=np.int64)
    following[0] = n_experts - 1
    products, weights = np.zeros(8), np.zeros(8)
    leaves = sums[:3]
    depth = 0
    while depth >= 0:
        if log:
            _multiply(base[depth, 0], sums[0, 0], sums[1, 0], sums[2, 0], products)
            _multiply(base[depth, 1], sums[0, 1], sums[1, 1], sums[2, 1], weights)
        else:
            _add_means(base[depth], leaves, products)
        for leaf in range(8):
            if not log:
                table[mask[depth] + leaf] += products[leaf]
            elif products[leaf] > _TINY and weights[leaf] > _TINY:
                table[mask[depth] + leaf] += np.log(products[leaf] / weights[leaf])
            else:
                table[mask[depth] + leaf] += _add_logs(base[depth], leaves, leaf)
        while depth >= 0 and following[depth] < 3:
            depth -= 1
        if depth >= 0:
            n = following[depth]
            following[depth] -= 1
            _extend(base[depth], sums[n], base[depth + 1])
            mask[depth + 1] = mask[depth] | (1 << n)
            following[depth + 1] = n - 1
            depth += 1


@compiled("void(i8[:,:], f8[:,:], f8[:,:], i8, b1, f8[::1])")
def _add_top(
    order: Integers, product: Floats, weight: Floats, k: int, log: bool, table: Floats
) -> None:
    """Add the sum over prompts, columns in the order of their logits, for every set."""
    n_prompts, n_experts = order.shape
    for i in range(n_prompts):
        for mask in range(1, table.size):
            p = q = 0.0
            taken = 0
            for j in range(n_experts):
                if mask >> order[i, j] & 1:
                    p += product[i, j]
                    q += weight[i, j]
                    taken += 1
                    if taken == k:
                        break
            mixed = p / (q + _NOTHING)
            table[mask] += np.log(mixed) if log else mixed
