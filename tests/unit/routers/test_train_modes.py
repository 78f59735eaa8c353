"""Training on answers: what several experts together gain is found, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from coe.routers.artefact import Artefact
from coe.routers.train import train

EQUALS = [[0.7, 0.7, 0.7], [0.6, 0.6, 0.6]]
N_OPTIONS = 6


@pytest.fixture(scope="module")
def drawn(draw_outcomes):
    return draw_outcomes(EQUALS, n_train=500, n_dev=300)


def answered(rows, alike=False):
    """The rows with answers: "0" is right, wrong ones differ, or all experts say the same."""
    rng = np.random.default_rng(7)
    scores = np.repeat(rows.scores[:, :1], 3, axis=1) if alike else rows.scores
    wrong = np.ones(scores.shape) if alike else rng.integers(1, N_OPTIONS, scores.shape)
    texts = np.where(scores == 1.0, 0, wrong).astype(int).astype(str).astype(object)
    return replace(rows, scores=scores, answers=texts, tokens=np.full(scores.shape, 5.0))


@pytest.fixture(scope="module")
def artefact(drawn):
    return train(answered(drawn.outcomes), drawn.embedder)


def gains(artefact):
    """(n_categories,) of the best mode over the best single."""
    table = artefact.modes.table
    single = [mode.kind == "single" for mode in table.modes]
    return table.quality.max(axis=1) - table.quality[:, single].max(axis=1)


def test_equal_experts_gain_by_a_vote(artefact):
    assert artefact.modes.table.categories == artefact.expectation.categories
    assert artefact.modes.table.expert_ids == artefact.expectation.expert_ids
    assert (gains(artefact) > 0.0).all()
    assert gains(artefact)[-1] > 0.05
    learned, figures = artefact.training["modes"], artefact.metrics["modes"]
    assert (learned["n_prompts"], figures["n_prompts"]) == (500, 300)
    assert learned["n_modes"] == len(artefact.modes.table.modes)
    assert learned["n_options"] == pytest.approx(N_OPTIONS, rel=0.25)
    assert figures["vote_of_best_three"]["score"] > figures["best_single"]["score"] + 0.05
    assert 0 <= figures["calibration_error"] < 0.15


def test_experts_that_say_the_same_gain_nothing(drawn):
    found = train(answered(drawn.outcomes, alike=True), drawn.embedder)
    assert (gains(found) < 0.01).all()
    figures = found.metrics["modes"]
    assert figures["vote_of_best_three"]["score"] == figures["best_single"]["score"]


def test_what_was_learned_is_kept(artefact, drawn, tmp_path):
    artefact.save(tmp_path / "artefact", drawn.embedder)
    found = Artefact.load(tmp_path / "artefact").modes
    assert found.table.modes == artefact.modes.table.modes
    for name, array in artefact.modes.to_arrays().items():
        np.testing.assert_array_equal(found.to_arrays()[name], array)


def test_without_answers_nothing_is_learned_and_nothing_said(drawn):
    found = train(drawn.outcomes, drawn.embedder)
    assert found.modes is None
    assert "modes" not in {*found.training, *found.metrics}


def test_answers_of_other_splits_are_not_learned_from(drawn, artefact):
    rows = answered(drawn.outcomes)
    hidden = rows.answers.copy()
    hidden[rows.splits == "dev"] = None
    found = train(replace(rows, answers=hidden), drawn.embedder)
    assert "modes" not in found.metrics
    for name, array in artefact.modes.to_arrays().items():
        np.testing.assert_array_equal(found.modes.to_arrays()[name], array)
    hidden = rows.answers.copy()
    hidden[np.flatnonzero(rows.splits == "train")[199:]] = None
    few = train(replace(rows, answers=hidden), drawn.embedder)
    assert few.modes is None
    assert few.training["modes"] == {"n_answered": 199, "n_modes": 0}
