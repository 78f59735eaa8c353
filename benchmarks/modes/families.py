"""What is learned of modes on training prompts, and what budgets buy of each family of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from recorded import EXAMPLE, Recorded

from coe.config import load_config
from coe.mode import Mode
from coe.routers.confidence import TRAITS, Answers, Confidence
from coe.routers.confidence_training import effective_options, fit_confidence, numbered
from coe.routers.embed import MEANING_DIM, CachedEmbedder, load_default
from coe.routers.modes import ModeTable
from coe.routers.modes_training import mode_table, undominated
from coe.routers.played import Election, Hand, Played, elections, modes, play
from coe.routers.train import embed_all, train

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Usage = tuple[Floats, ...]  # of each prompt: score, joules, milliseconds, dollars

N_PRICES = 300
FAMILIES: dict[str, Callable[[Mode], bool]] = {
    "singles": lambda mode: len(mode.members) == 1,
    "votes": lambda mode: len(mode.stages) == 1,
    "cascades": lambda mode: len(mode.stages[0]) == 1,
    "all modes": lambda mode: True,
}
_EMBEDDER = CachedEmbedder(load_default(), n_entries=50_000)


@dataclass(frozen=True, slots=True)
class Step:
    """A mode for every category, and what that comes to on training prompts."""

    use: float
    quality: float
    at: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mix:
    """Two steps, the second for ``share`` of the prompts of every category."""

    first: Step
    second: Step
    share: float


@dataclass(frozen=True, slots=True)
class Staircase:
    """What budgets buy: steps on the concave hull, cheapest first."""

    steps: tuple[Step, ...]

    def affordable(self, use: float) -> Mix:
        """The mix that uses this much on training prompts, or the end of the staircase."""
        return self._where(lambda step: step.use, use)

    def reaching(self, quality: float) -> Mix:
        """The cheapest mix of this quality on training prompts; the best where none is."""
        return self._where(lambda step: step.quality, quality)

    def _where(self, figure: Callable[[Step], float], wanted: float) -> Mix:
        for low, high in pairwise(self.steps):
            if figure(low) <= wanted < figure(high):
                share = (wanted - figure(low)) / (figure(high) - figure(low))
                return Mix(low, high, share)
        end = self.steps[0] if wanted < figure(self.steps[0]) else self.steps[-1]
        return Mix(end, end, 0.0)


@dataclass(frozen=True, slots=True)
class Learnt:
    """Modes played on all prompts, and the table made of the training prompts."""

    recorded: Recorded
    train: Bools
    category: NDArray[np.int64]
    answers: Answers
    n_options: float
    confidence: Confidence
    known: dict[Hand, Election]
    played: tuple[Played, ...]
    table: ModeTable
    resource: str
    use: Floats  # (n_categories, n_modes) of the resource, as the table expects it
    shares: Floats

    traits = TRAITS

    @property
    def expert_ids(self) -> tuple[str, ...]:
        """Names of the experts, in the order of the columns."""
        return self.recorded.outcomes.expert_ids

    @property
    def best_single(self) -> Mode:
        """Always the expert of the best mean score on training prompts."""
        best = self.recorded.outcomes.scores[self.train].mean(axis=0).argmax()
        return Mode.single(self.expert_ids[best])

    def scores_of(self, winner: NDArray[np.int64]) -> Floats:
        """(n_prompts,) scores of the answers delivered."""
        found: Floats = self.recorded.outcomes.scores[np.arange(winner.size), winner]
        return found

    def usage(self, played: Played) -> Usage:
        """Score, joules, milliseconds and dollars of every prompt under a mode."""
        asked = played.asked(self.expert_ids)
        table = self.recorded
        return (
            self.scores_of(played.winner),
            (table.energy_j * asked).sum(axis=1),
            played.latency(self.expert_ids, table.latency_ms),
            (table.cost_usd * asked).sum(axis=1),
        )

    def mode(self, mode: Mode) -> Usage:
        """The same for one mode of the table."""
        return self.usage(self.played[self.table.modes.index(mode)])

    def use_of(self, mode: Mode) -> float:
        """Mean use of the resource on training prompts, as the table expects it."""
        return float(self.shares @ self.use[:, self.table.modes.index(mode)])

    def score_of(self, mode: Mode) -> float:
        """Mean quality on training prompts, as the table expects it."""
        return float(self.shares @ self.table.quality[:-1, self.table.modes.index(mode)])

    def mixed(self, mix: Mix, rows: Bools) -> Usage:
        """A mix on the prompts where ``rows`` is true."""
        total = [np.zeros(rows.size) for _ in range(4)]
        for step, share in ((mix.first, 1.0 - mix.share), (mix.second, mix.share)):
            for c, m in enumerate(step.at):
                here = self.category == c
                for one, column in zip(total, self.usage(self.played[m]), strict=True):
                    one[here] += share * column[here]
        return tuple(column[rows] for column in total)

    def named(self, mix: Mix) -> dict[str, dict[str, float]]:
        """The modes of a mix by category, with their shares of the prompts."""
        found: dict[str, dict[str, float]] = {name: {} for name in self.table.categories[:-1]}
        for step, share in ((mix.first, 1.0 - mix.share), (mix.second, mix.share)):
            for said, m in zip(found.values(), step.at, strict=True):
                name = self.table.modes[m].name
                said[name] = round(said.get(name, 0.0) + share, 3)
        return found

    def table_error(self, rows: Bools) -> float:
        """Mean relative error of the table's use over all modes, on other prompts."""
        found = []
        for c, share in enumerate(self.shares):
            here = rows & (self.category == c)
            for m, one in enumerate(self.played):
                asked = one.asked(self.expert_ids)
                real = (getattr(self.recorded, self.resource) * asked)[here].sum(axis=1).mean()
                found.append(share * abs(self.use[c, m] / real - 1.0))
        return float(np.sum(found) / len(self.played))

    def n_undominated(self) -> dict[str, int]:
        """How many modes are worth keeping on the menu of each category."""
        rows = zip(self.table.categories, self.table.quality, self.use, strict=False)
        return {name: len(undominated(quality, use)) for name, quality, use in rows}


def learnt(table: Recorded, training: Bools, resource: str = "energy_j") -> Learnt:
    """Everything that is learned on the ``training`` prompts; budgets are of one resource."""
    outcomes = table.outcomes
    rows = outcomes.rows(training)
    specs = load_config(EXAMPLE / "coe.yaml").specs
    artefact = train(rows, _EMBEDDER, specs, MEANING_DIM)
    assessed = artefact.category.assess(embed_all(_EMBEDDER, outcomes.prompts))
    # the table alone: what the embedding adds would flatter the prompts that it was fitted on
    expected = artefact.expectation.table.expected(assessed.probabilities, assessed.uncertain)
    category = assessed.probabilities.argmax(axis=1)
    names = artefact.expectation.table.categories[:-1]
    said = numbered(table.verdicts)
    n_options = effective_options(said[training], rows.scores)
    stretch = np.maximum(outcomes.tokens, 1.0) / np.maximum(expected.mean_tokens, 1.0)
    answers = Answers.of(expected.quality, said, stretch, n_options)
    confidence = fit_confidence(answers.rows(training), rows.scores)
    every = tuple(modes(outcomes.expert_ids))
    known = elections(answers, confidence, outcomes.expert_ids, every)
    played = tuple(play(mode, known) for mode in every)
    mine = [one.rows(training) for one in played]
    labels = np.array(names)[category[training]]
    made = mode_table(labels, names, rows.expert_ids, mine, rows.scores, rows.tokens)
    spent = getattr(table, resource)[training]
    each = np.stack([spent[labels == name].mean(axis=0) for name in names])
    return Learnt(
        recorded=table,
        train=training,
        category=category,
        answers=answers,
        n_options=n_options,
        confidence=confidence,
        known=known,
        played=played,
        table=made,
        resource=resource,
        use=np.einsum("cme,ce->cm", made.usage[:-1], each),
        shares=np.array([(labels == name).mean() for name in names]),
    )


def staircase(known: Learnt, family: str) -> Staircase:
    """What budgets buy of one family: in each category the mode worth most at a running price."""
    mine = np.array([n for n, mode in enumerate(known.table.modes) if FAMILIES[family](mode)])
    quality, use = known.table.quality[:-1, mine], known.use[:, mine]
    prices = np.logspace(-5, 2, N_PRICES) / use.mean()
    found = set()
    for price in (1e-12 / use.mean(), *prices.tolist()):
        at = (quality - price * use).argmax(axis=1)
        rows = np.arange(len(at))
        found.add(
            Step(
                float(known.shares @ use[rows, at]),
                float(known.shares @ quality[rows, at]),
                tuple(int(n) for n in mine[at]),
            )
        )
    return Staircase(tuple(sorted(found, key=lambda step: step.use)))
