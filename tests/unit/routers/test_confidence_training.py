"""What is learned of several answers, on outcomes whose making is known."""

import numpy as np
import pytest

from coe.routers.confidence import SILENT, Answers
from coe.routers.confidence_training import effective_options, fit_confidence, numbered

RNG_SEED = 5
ACCURACIES = (0.55, 0.6, 0.65, 0.8)


def outcomes(n_prompts: int, n_options: int, rng: np.random.Generator) -> tuple:
    """Independent experts of known accuracy; the right answer is number 0."""
    right = rng.random((n_prompts, len(ACCURACIES))) < ACCURACIES
    said = np.where(right, 0, rng.integers(1, n_options, right.shape))
    return said, right.astype(float)


def answers(said: np.ndarray, n_options: float) -> Answers:
    quality = np.tile(ACCURACIES, (len(said), 1))
    return Answers.of(quality, said, np.ones(said.shape), n_options)


def test_verdicts_are_numbered_within_a_prompt() -> None:
    said = numbered([["b", "a", None, "b"], [None, None, None, "z"]])
    assert said.tolist() == [[1, 0, SILENT, 1], [SILENT, SILENT, SILENT, 0]]


@pytest.mark.parametrize("n_options", [3, 6, 20])
def test_options_are_counted_by_how_wrong_answers_agree(n_options: int) -> None:
    said, scores = outcomes(30_000, n_options, np.random.default_rng(RNG_SEED))
    assert effective_options(said, scores) == pytest.approx(n_options, rel=0.15)


def test_without_wrong_answers_questions_have_two_options() -> None:
    assert effective_options(np.zeros((9, 3), dtype=int), np.ones((9, 3))) == 2.0


def test_the_confidence_is_calibrated_and_believes_who_is_not_alone() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(4000, 5, rng)
    confidence = fit_confidence(answers(said, 5.0), scores)
    asked = np.array([True, True, True, False])
    said, scores = outcomes(4000, 5, rng)
    found = confidence.of(answers(said, 5.0), asked)[:, 0]
    alone = (said[:, 1] != said[:, 0]) & (said[:, 2] != said[:, 0])
    together = (said[:, 1] == said[:, 0]) & (said[:, 2] == said[:, 0])
    for part in (alone, together, ~alone & ~together):
        assert found[part].mean() == pytest.approx(scores[part, 0].mean(), abs=0.06)
    assert found[together].min() > found[alone].max()


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_with_nothing_to_tell_apart_the_expectation_is_believed(score: float) -> None:
    said = np.zeros((20, 4), dtype=int)
    confidence = fit_confidence(answers(said, 5.0), np.full(said.shape, score))
    found = confidence.of(answers(said, 5.0), np.ones(4, dtype=bool))
    assert np.allclose(found, ACCURACIES)
