"""What modes are worth, on outcomes whose making is known."""

import numpy as np
import pytest

from coe.mode import Mode
from coe.routers.confidence import Answers, Confidence
from coe.routers.confidence_training import fit_confidence
from coe.routers.modes import ModeTable
from coe.routers.modes_training import mode_table
from coe.routers.played import elections, modes, play

RNG_SEED = 5
EXPERTS = tuple("abcd")
ACCURACIES = (0.55, 0.6, 0.65, 0.8)


def outcomes(n_prompts: int, n_options: int, rng: np.random.Generator) -> tuple:
    """Independent experts of known accuracy; the right answer is number 0."""
    right = rng.random((n_prompts, len(ACCURACIES))) < ACCURACIES
    said = np.where(right, 0, rng.integers(1, n_options, right.shape))
    return said, right.astype(float)


def answers(said: np.ndarray, n_options: float) -> Answers:
    quality = np.tile(ACCURACIES, (len(said), 1))
    return Answers.of(quality, said, np.ones(said.shape), n_options)


def table(said: np.ndarray, scores: np.ndarray, confidence: Confidence) -> ModeTable:
    every = list(modes(EXPERTS, thresholds=(0.7, 0.9)))
    known = elections(answers(said, 5.0), confidence, EXPERTS, every)
    category = np.where(np.arange(len(said)) % 2 == 0, "even", "odd")
    tokens = np.tile([10.0, 20.0, 30.0, 40.0], (len(said), 1))
    return mode_table(
        category, ["even", "odd"], EXPERTS, [play(mode, known) for mode in every], scores, tokens
    )


def test_independent_experts_gain_by_a_vote_and_cascades_save() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(4000, 5, rng)
    confidence = fit_confidence(answers(said, 5.0), scores)
    found = table(*outcomes(4000, 5, rng), confidence)
    at = {mode: m for m, mode in enumerate(found.modes)}
    overall = found.quality[-1]
    together = at[Mode("vote", (EXPERTS,))]
    assert overall[together] > overall[at[Mode.single("d")]] + 0.02
    cascade = at[Mode("cascade", (("a", "b"), ("c", "d")), 0.7)]
    assert overall[cascade] > overall[at[Mode("vote", (("a", "b"),))]] + 0.05
    assert 0.2 < found.reach[-1, cascade, 1] < 0.8
    assert np.allclose(found.reach[:, :, 0], 1.0)
    # tokens do not depend on the prompt here: usage is the share of prompts
    assert np.allclose(found.usage[:, cascade, 2], found.reach[:, cascade, 1])
    assert np.allclose(found.usage[:, together], 1.0)


def test_shuffled_answers_gain_nothing() -> None:
    """Verdicts of other prompts agree by chance: no mode beats the best single on new prompts."""
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(4000, 5, rng)
    shuffled = np.stack([rng.permutation(column) for column in said.T], axis=1)
    confidence = fit_confidence(answers(shuffled, 5.0), scores)
    found = table(shuffled, scores, confidence).quality[-1]
    assert found.max() <= scores.mean(axis=0).max() + 0.02


def test_an_unseen_category_is_worth_what_all_prompts_are() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(50, 5, rng)
    mode = Mode("cascade", (("a",), ("b",)), 0.7)
    known = elections(
        answers(said, 5.0), fit_confidence(answers(said, 5.0), scores), EXPERTS, [mode]
    )
    category = np.full(50, "seen")
    made = mode_table(
        category, ["seen", "unseen"], EXPERTS, [play(mode, known)], scores, np.ones((50, 4))
    )
    assert made.quality[1] == pytest.approx(made.quality[2])
    assert made.quality_se[1] > made.quality_se[2]


def test_what_a_mode_scored_is_shrunk_towards_the_confidence_in_it() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(60, 5, rng)
    mode = Mode("cascade", (("a", "b"), ("c", "d")), 0.7)
    made = answers(said, 5.0)
    played = play(mode, elections(made, fit_confidence(made, scores), EXPERTS, [mode]))
    category = np.repeat(["a", "b"], 30)

    def quality(shrinkage: float) -> np.ndarray:
        tokens = np.ones(said.shape)
        return mode_table(
            category, ["a", "b"], EXPERTS, [played], scores, tokens, shrinkage
        ).quality[:, 0]

    scored = scores[np.arange(60), played.winner]
    rows = (slice(0, 30), slice(30, 60), slice(0, 60))
    assert np.allclose(quality(0.0), [scored[row].mean() for row in rows])
    assert np.allclose(quality(1e12), [played.confidence[row].mean() for row in rows])
    assert np.allclose(quality(30.0)[:2], (quality(0.0)[:2] + quality(1e12)[:2]) / 2)
