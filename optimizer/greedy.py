"""Good sets of any number of experts: greedy growth, pairs and swaps, with a bound beside them.

Growth by gain alone and by gain per scarce resource, the better of which is within a constant of
the optimum for submodular values (Khuller, Moss and Naor, 1999); seeds of pairs after Sviridenko
(2004). Nothing is proved of values that are not submodular, except the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from coe.optimizer.figures import Bools, Floats
from coe.optimizer.landscape import WORTHLESS, Landscape, Set
from coe.optimizer.problem import Problem
from coe.optimizer.relaxation import relaxed_bound
from coe.optimizer.result import Found
from coe.optimizer.rows import Rows, rows_of

_GAIN = 1e-12  # less is rounding
_MOST_ENTRIES = 400_000  # of scores, over all seeds of pairs
_N_PAIRS = 3  # that are grown
_MOST_REGROWN = 8  # members of a set whose parts are grown again


def greedy(problem: Problem, expired: Callable[[], bool]) -> Found:
    """Good feasible sets, and a bound on all; never infeasible ones.

    A shared set is found whenever there is one. With sets by category and several ceilings none
    may be found although some exist: ``members`` is then ``None`` and ``upper`` above ``-inf``.
    More time never makes the answer worse. A step of growth takes O(n_rows n_experts), a
    round of swaps as much for each member.
    """
    rows = rows_of(problem)
    climber = _Climber.of(problem, rows)
    if _hopeless(rows):
        return Found(None, -np.inf, 0)
    best, nodes = None, 0
    for found in climber.shared(expired) if problem.sets == "shared" else climber.each(expired):
        nodes += 1
        if best is None or found.value > best.value + _GAIN:
            best = found
    if best is None and problem.sets == "shared":
        return Found(None, -np.inf, nodes)
    value = best.value if best and best.value > WORTHLESS / 2 else -np.inf
    members = None if best is None else climber.members(best)
    upper = relaxed_bound(problem, rows, members, value, expired)
    if members is None:  # with -inf this would read as a proof that there are none
        return Found(None, max(upper, WORTHLESS), nodes)
    return Found(members, max(value, upper), nodes)


def _hopeless(rows: Rows) -> bool:
    """Whether even the cheapest expert of each category exceeds some ceiling."""
    able = rows.able & np.all(rows.resident <= rows.room[:, None], axis=0)
    least = np.where(able, rows.taken, np.inf).min(axis=2).sum(axis=1)
    return not able.any(axis=1).all() or bool(np.any(least > rows.limits))


@dataclass(frozen=True, slots=True)
class _State:
    """A set for each group, what they are worth, and what they use: (n_means, n_groups)."""

    sets: tuple[Set, ...]
    worths: tuple[float, ...]
    usage: Floats

    @property
    def value(self) -> float:
        return sum(self.worths)


@dataclass(frozen=True, slots=True)
class _Climber:
    """Moves between states: a group's set, or a part of it, is given one more expert."""

    problem: Problem
    rows: Rows
    groups: tuple[Landscape, ...]

    @classmethod
    def of(cls, problem: Problem, rows: Rows) -> _Climber:
        every = np.arange(problem.n_categories)
        parts = [every] if problem.sets == "shared" else [every[c : c + 1] for c in every]
        return cls(problem, rows, tuple(Landscape.of(problem, rows, part) for part in parts))

    def members(self, state: _State) -> Bools:
        """(n_categories, n_experts)."""
        members = np.zeros((self.problem.n_categories, self.problem.n_experts), dtype=bool)
        for group, chosen in zip(self.groups, state.sets, strict=True):
            members[group.categories[:, None], list(chosen)] = True
        return members

    def shared(self, expired: Callable[[], bool]) -> Iterator[_State]:
        """Better and better shared sets, the best single expert first."""
        nothing = self._empty()
        alone = self._extended(nothing, 0, ())[0]
        if alone.max() == -np.inf:
            return
        yield self._moved(nothing, 0, (), int(alone.argmax()))
        ends = []
        for start, by_gain in ((nothing, True), (nothing, False), *self._pairs(alone, expired)):
            if expired():
                return
            end = start
            for end in self._grown(start, by_gain, expired):
                yield end
            ends.append(end)
        ends.sort(key=lambda end: -end.value)
        for last in ends[:2]:
            for better in self._swapped(last, expired):
                yield (last := better)
            yield from self._regrown(last, expired)

    def _pairs(self, alone: Floats, expired: Callable[[], bool]) -> Iterator[tuple[_State, bool]]:
        """The best pairs; of many experts, those with one of the better ones."""
        if self.problem.aggregation == "sum":  # a pair is worth no more than growth sees
            return
        nothing, found = self._empty(), list[tuple[float, int, int]]()
        n_rows = len(
            self.problem.shares if self.problem.prompts is None else self.problem.prompts.category
        )
        most = max(2, _MOST_ENTRIES // (n_rows * alone.size))
        for first in np.argsort(-alone, kind="stable")[:most].tolist():
            if alone[first] == -np.inf or expired():
                break
            worth, _ = self._extended(nothing, 0, (first,))
            found.append((float(worth.max()), first, int(worth.argmax())))
        found.sort(key=lambda pair: -pair[0])
        for together, first, second in found[:_N_PAIRS]:
            if together > -np.inf:
                yield self._moved(nothing, 0, (first,), second), True

    def each(self, expired: Callable[[], bool]) -> Iterator[_State]:
        """Better and better sets by category, from cheap ones and from a shared one."""
        ends = []
        for start in self._starts(expired):
            yield start
            for by_gain in (False, True):
                end = start
                for end in self._grown(start, by_gain, expired):
                    yield end
                ends.append(end)
            if expired():
                return
        ends.sort(key=lambda end: -end.value)
        for end in ends[:2]:
            yield from self._swapped(end, expired)

    def _starts(self, expired: Callable[[], bool]) -> Iterator[_State]:
        """Feasible states: the cheapest experts by each ceiling, and one set for all."""
        taken = self.rows.taken / np.where(self.rows.limits > 0, self.rows.limits, 1)[:, None, None]
        stored = self.rows.resident / np.where(self.rows.room > 0, self.rows.room, 1)[:, None]
        stored = np.repeat(stored[:, None, :], len(self.groups), axis=1) / len(self.groups)
        costs = np.concatenate([taken, stored, np.zeros((1, *self.rows.able.shape))])
        seen = set[tuple[int, ...]]()
        for cost in (*costs[:-1], costs.sum(axis=0)):
            cheapest: list[int] = np.where(self.rows.able, cost, np.inf).argmin(axis=1).tolist()
            if tuple(cheapest) in seen:
                continue
            seen.add(tuple(cheapest))
            state = self._repaired(self._singles(cheapest))
            if state is not None:
                yield state
        together = replace(self.problem, sets="shared")
        rows = rows_of(together)
        if rows.able[0].any():
            # the rows of this problem: a ceiling may bind for sets by category only
            one = _Climber.of(together, replace(self.rows, able=rows.able))
            best = max(one.shared(expired), key=lambda state: state.value, default=None)
            if best is not None:
                yield self._all_alike(best.sets[0])

    def _all_alike(self, chosen: Set) -> _State:
        state = self._empty()
        for g in range(len(self.groups)):
            state = self._moved(state, g, chosen, chosen[0])
        return state

    def _singles(self, experts: Iterable[int]) -> _State:
        state = self._empty()
        for g, expert in enumerate(experts):
            state = self._moved(state, g, (), expert)
        return state

    def _repaired(self, state: _State) -> _State | None:
        """The state, or one like it with other single experts, once no ceiling is exceeded."""
        excess = np.inf
        while excess > 0:
            options = []
            for g in range(len(self.groups)):
                usage, stored = self._totals(state, g, ())
                over = np.maximum(_share(usage, self.rows.limits) - 1, 0).sum(axis=0)
                over = over + np.maximum(_share(stored, self.rows.room) - 1, 0).sum(axis=0)
                over = np.where(self.rows.able[g], over, np.inf)
                options.append((float(over.min()), g, int(over.argmin())))
            least, g, expert = min(options)
            if least >= excess:
                return None
            state, excess = self._moved(state, g, (), expert), least
        return state

    def _grown(self, state: _State, by_gain: bool, expired: Callable[[], bool]) -> Iterator[_State]:
        """States with one more expert each time, or a single one instead, while that gains."""
        while not expired():
            best, move = 0.0, None
            for g, chosen in enumerate(state.sets):
                for base in (chosen, ()) if len(self.groups) > 1 and chosen else (chosen,):
                    worth, dearer = self._extended(state, g, base)
                    gain = worth - state.worths[g]
                    rate = np.where(gain > _GAIN, gain if by_gain else gain / dearer, -np.inf)
                    at = int(rate.argmax())
                    if rate[at] > best:
                        best, move = float(rate[at]), (g, base, at)
            if move is None:
                return
            state = self._moved(state, *move)
            yield state

    def _swapped(self, state: _State, expired: Callable[[], bool]) -> Iterator[_State]:
        """States after swaps, additions and removals, each at once where it gains."""
        gained = True
        while gained:
            gained = False
            for g in range(len(self.groups)):
                chosen = state.sets[g]
                for out in (None, *chosen):
                    if expired():
                        return
                    base = tuple(n for n in state.sets[g] if n != out)
                    worth, _ = self._extended(state, g, base)
                    at = int(worth.argmax())
                    if worth[at] > state.worths[g] + _GAIN:
                        state, gained = self._moved(state, g, base, at), True
                        yield state

    def _regrown(self, state: _State, expired: Callable[[], bool]) -> Iterator[_State]:
        """Better shared sets than this one without one or two of its members, grown again."""
        (chosen,) = state.sets
        if len(chosen) > _MOST_REGROWN:
            return
        for n_out in (1, 2):
            for out in combinations(chosen, n_out):
                base, part = tuple(n for n in chosen if n not in out), self._empty()
                if base:
                    part = self._moved(part, 0, base, base[0])
                *_, end = part, *self._grown(part, False, expired)
                if end.value > state.value + _GAIN:
                    yield end

    def _empty(self) -> _State:
        n = len(self.groups)
        return _State(((),) * n, (WORTHLESS,) * n, np.zeros((len(self.rows.limits), n)))

    def _moved(self, state: _State, g: int, base: Set, expert: int) -> _State:
        chosen = tuple(sorted({*base, expert}))
        worths, usage = list(state.worths), state.usage.copy()
        worths[g] = float(self.groups[g].worth(base)[expert])
        usage[:, g] = self.groups[g].usage(base)[:, expert]
        sets = (*state.sets[:g], chosen, *state.sets[g + 1 :])
        return _State(sets, tuple(worths), usage)

    def _totals(self, state: _State, g: int, base: Set) -> tuple[Floats, Floats]:
        """(n_means, n_experts) and (n_nodes, n_experts) in use once the group has base and one."""
        usage = np.delete(state.usage, g, axis=1).sum(axis=1, keepdims=True)
        usage = usage + self.groups[g].usage(base)
        others = {n for h, chosen in enumerate(state.sets) if h != g for n in chosen}
        kept = [*others.union(base)]
        stored = self.rows.resident + self.rows.resident[:, kept].sum(axis=1, keepdims=True)
        stored[:, kept] -= self.rows.resident[:, kept]
        return usage, stored

    def _extended(self, state: _State, g: int, base: Set) -> tuple[Floats, Floats]:
        """(n_experts,) worth of a group's base and one more, and what that takes of what is left.

        ``-inf`` where a ceiling is exceeded.
        """
        usage, stored = self._totals(state, g, base)
        fits = np.all(usage <= self.rows.limits[:, None], axis=0) & self.rows.able[g]
        fits &= np.all(stored <= self.rows.room[:, None], axis=0)
        worth = np.where(fits, self.groups[g].worth(base), -np.inf)
        before = state.usage.sum(axis=1, keepdims=True)
        left = np.maximum(self.rows.limits[:, None] - before, 1e-300)
        dearer = np.max((usage - before) / left, axis=0, initial=0.0)
        used = [*{n for chosen in state.sets for n in chosen}]
        held = self.rows.resident[:, used].sum(axis=1, keepdims=True)
        free = np.maximum(self.rows.room[:, None] - held, 1e-300)
        dearer = np.maximum(dearer, np.max((stored - held) / free, axis=0, initial=0.0))
        return worth, np.maximum(dearer, 1e-9)


def _share(used: Floats, limits: Floats) -> Floats:
    share: Floats = used / np.where(limits > 0, limits, 1e-300)[:, None]
    return share
