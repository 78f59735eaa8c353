"""What a node loads next, and who makes room: by groups and expected use, or as it comes.

Both are policies of `coe.optimizer.residency.Residency`; the plain one is the twin that the other
is measured against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coe.optimizer.residency import Load, Residency


def grouped(node: Residency, now_s: float) -> Load | None:
    """The expert that most requests wait for, per second of loading; an overdue one first.

    Where nobody waits for an expert outside, the one whose requests are expected to cause most
    loading, if that is more than what its victims are expected to cause.

    Victims are those of the least expected use per gigabyte, of equals the least recently used;
    they have nothing to do, except for the sake of an overdue request: then also busy ones that
    have started what they were owed, which are drained.

    No request starves. With n experts, the longest loading L and answer S, and ``rounds`` of S
    for an expert to start ``max_group`` requests with its slots, a request that is overdue while
    K older ones wait starts within ``(n + 1 + K / max_group) (2 L + S + rounds S)``: whoever is
    overdue longest is loaded next, and everyone loaded starts a group of its oldest.
    """
    outside = node.outside()
    overdue = [name for name in outside if now_s >= node.waits_since_s(name) + node.max_wait_s]
    if overdue:
        wanted = min(overdue, key=node.waits_since_s)
        return _replacing(wanted, [_idle(node), _drainable(node)], node)
    for wanted in sorted(outside, key=lambda name: _hurry(node, name)):
        load = _replacing(wanted, [_idle(node)], node)
        if load is not None:
            return load
    return None if outside else _expected(node)


def first_come(node: Residency, now_s: float) -> Load | None:
    """The expert of the oldest request that waits for one outside, over the least recently used.

    Those that are answering are drained, last of all. Every request is started in the end: the
    oldest one of all is never passed over.
    """
    outside = node.outside()
    if not outside or (node.in_order and node.oldest() not in outside):
        return None
    wanted = min(outside, key=node.waits_since_s)

    def by_use(name: str) -> tuple[bool, float]:
        return node.occupants[name].n_running > 0, node.occupants[name].used_s

    return _load(wanted, sorted(node.inside(), key=by_use), node)


def _hurry(node: Residency, name: str) -> tuple[float, float]:
    """Less is sooner: seconds of loading per waiting request, then the arrival of the oldest."""
    waiting = len(node.occupants[name].queue)
    return node.experts[name].load_s / waiting, node.waits_since_s(name)


def _idle(node: Residency) -> list[str]:
    """Those inside that have nothing to do, in the order in which they may go."""
    there = [e for e in node.inside() if not (occ := node.occupants[e]).queue and not occ.n_running]
    return sorted(there, key=_worth(node))


def _drainable(node: Residency) -> list[str]:
    """Those inside that are busy and have started what they were owed; least loss first."""
    busy = [e for e in node.inside() if (occ := node.occupants[e]).queue or occ.n_running]
    free = [e for e in busy if node.occupants[e].owed == 0]
    worth = _worth(node)
    return sorted(free, key=lambda e: (len(node.occupants[e].queue), worth(e)))


def _worth(node: Residency) -> Callable[[str], tuple[float, float]]:
    def of(name: str) -> tuple[float, float]:
        one = node.experts[name]
        return one.stake_s / max(one.memory_gb, 1e-12), node.occupants[name].used_s

    return of


def _replacing(wanted: str, groups: Sequence[list[str]], node: Residency) -> Load | None:
    """The load with victims from the first groups that are enough; ``None`` if none are."""
    victims: list[str] = []
    for group in groups:
        victims += group
        load = _load(wanted, victims, node)
        if load is not None:
            return load
    return None


def _load(wanted: str, victims: Sequence[str], node: Residency) -> Load | None:
    """The load over the first victims that make room, without those that are not needed."""
    short_gb = node.experts[wanted].memory_gb - node.free_gb
    evicted: list[str] = []
    for name in victims:
        if node.taken_gb(evicted) >= short_gb:
            break
        evicted.append(name)
    if node.taken_gb(evicted) < short_gb:
        return None
    for name in evicted[::-1]:
        others = [one for one in evicted if one != name]
        if node.taken_gb(others) >= short_gb:
            evicted = others
    return Load(wanted, tuple(evicted))


def _expected(node: Residency) -> Load | None:
    """The best expert outside that nobody waits for, where its victims are expected less."""
    absent = [e for e, occupant in node.occupants.items() if occupant.phase == "out"]
    for wanted in sorted(absent, key=lambda e: -node.experts[e].stake_s):
        load = _load(wanted, _idle(node), node)
        if load is not None:
            lost_s = sum(node.experts[name].stake_s for name in load.evict)
            if node.experts[wanted].stake_s > lost_s:
                return load
    return None
