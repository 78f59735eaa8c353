"""Arms that no budget chooses: singles, plain votes, their early end, agreement, the oracle."""

from __future__ import annotations

import numpy as np
from families import Learnt, Usage
from numpy.typing import NDArray

from coe.combine import decided, vote
from coe.mode import Mode
from coe.routers.played import Election, play

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def fixed(known: Learnt, test: Bools) -> dict[str, Usage]:
    """The arms on the ``test`` prompts; what they must know they know of training prompts."""
    scores = known.recorded.outcomes.scores
    by_score = np.argsort(-scores[known.train].mean(axis=0), kind="stable")
    three = tuple(known.expert_ids[k] for k in sorted(by_score[:3].tolist()))
    found = {"best single": known.mode(known.best_single)}
    for name in known.expert_ids:
        found[f"always {name}"] = known.mode(Mode.single(name))
    found["vote of the best three"] = known.mode(Mode("vote", (three,)))
    found["vote of all five"] = known.mode(Mode("vote", (known.expert_ids,)))
    found["vote of all five, one by one"] = one_by_one(known)
    found["rank of all five"] = ranked(known)
    found["two cheapest, else the best"] = agreement(known)
    found["oracle"] = oracle(known)
    return {name: tuple(column[test] for column in usage) for name, usage in found.items()}


def one_by_one(known: Learnt) -> Usage:
    """The vote of all, asked from cheap to dear until it is decided; it must say the same."""
    order = np.argsort(known.recorded.energy_j[known.train].mean(axis=0)).tolist()
    weights, said = known.answers.weight, known.answers.said
    asked = np.zeros(said.shape, dtype=bool)
    winner = np.zeros(len(said), dtype=np.int64)
    for row, (weight, numbers) in enumerate(zip(weights.tolist(), said.tolist(), strict=True)):
        verdicts = [None if number < 0 else number for number in numbers]
        for n in range(1, len(order) + 1):
            hand, out = order[:n], order[n:]
            mine = [verdicts[k] for k in hand]
            if decided(mine, [weight[k] for k in hand], [weight[k] for k in out]):
                break
        won = vote(mine, [weight[k] for k in hand])
        asked[row, hand] = True
        winner[row] = hand[won.winner]
        assert verdicts[winner[row]] == verdicts[vote(verdicts, weight).winner]
    table = known.recorded
    used = [part * asked for part in (table.energy_j, table.latency_ms, table.cost_usd)]
    energy_j, latency_ms, cost_usd = (part.sum(axis=1) for part in used)
    return known.scores_of(winner), energy_j, latency_ms, cost_usd


def ranked(known: Learnt) -> Usage:
    """Of all answers the one of the highest confidence."""
    everyone = np.ones(len(known.expert_ids), dtype=bool)
    winner = known.confidence.of(known.answers, everyone).argmax(axis=1)
    _, energy_j, latency_ms, cost_usd = known.mode(Mode("vote", (known.expert_ids,)))
    return known.scores_of(winner), energy_j, latency_ms, cost_usd


def agreement(known: Learnt) -> Usage:
    """The two cheapest experts; unless they say the same, the best single expert's answer."""
    names = known.expert_ids
    best = names.index(known.best_single.members[0])
    cheap = np.argsort(known.recorded.energy_j[known.train].mean(axis=0))
    pair = sorted([k for k in cheap.tolist() if k != best][:2])
    mode = Mode("cascade", (tuple(names[k] for k in pair), (names[best],)), 1.0)
    said = known.answers.said[:, pair]
    agree = ((said[:, 0] == said[:, 1]) & (said[:, 0] >= 0)).astype(float)
    weak = frozenset(mode.stages[0])
    first = Election(known.known[weak].winner, agree)
    last = Election(np.full(len(said), best), np.ones(len(said)))
    return known.usage(play(mode, {weak: first, weak.union(mode.stages[1]): last}))


def oracle(known: Learnt) -> Usage:
    """The cheapest right answer, known only afterwards; where none is right, the cheapest."""
    table = known.recorded
    right = table.outcomes.scores - 1e-9 * table.energy_j
    winner = right.argmax(axis=1)
    rows = np.arange(winner.size)
    parts = (table.outcomes.scores, table.energy_j, table.latency_ms, table.cost_usd)
    return tuple(part[rows, winner] for part in parts)
