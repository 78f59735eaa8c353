"""Learning a personal gate: held out as promised, declining where nothing is to be gained."""

import numpy as np
import pytest

from coe.errors.files import OutcomesError
from coe.routers.folds import content_folds
from coe.routers.outcomes import Outcomes
from coe.routers.personal import Premise, levelled
from coe.routers.personal_training import (
    Base,
    Lessons,
    gain_of,
    learned,
    level_between,
    personalise,
    rivals_in,
    trials,
)

PREMISE = Premise("acme", "own", ("a", "b"), None, "words", "0" * 64)
LENGTHS = (100.0, 200.0)


def draw_lessons(n=60, dim=4, seed=0, own=lambda X, global_: X[:, 0] > 0, right=0.5):
    """Lessons whose own expert is right as ``own`` says of embeddings and global scores."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, dim)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    delivered = (rng.random(n) < right).astype(float)
    return Lessons(X, np.full(n, right), delivered, np.asarray(own(X, delivered), dtype=float))


def folds(lessons, n_folds=5):
    return content_folds([f"prompt {k}" for k in range(lessons.own.size)], n_folds)


def kernel_of(lessons):
    rows = lessons.X - lessons.X.mean(axis=0, dtype=float)
    return rows @ rows.T


def slow_trial(lessons, fold, slope, penalty):
    """What a trial should have expected: a primal ridge for each fold."""
    rows = lessons.X - lessons.X.mean(axis=0, dtype=float)
    found = np.zeros((lessons.own.size, 2))
    for k in np.unique(fold):
        mine, rest = fold == k, fold != k
        base = Base.of(lessons.rows(rest))
        found[mine] = base.quality(lessons.rows(mine), slope)
        if penalty is not None:
            left = lessons.own[rest] - base.quality(lessons.rows(rest), slope)[:, 1]
            gram = rows[rest].T @ rows[rest] + penalty * np.eye(rows.shape[1])
            found[mine, 1] += rows[mine] @ np.linalg.solve(gram, rows[rest].T @ left)
    return np.clip(found, 0.0, 1.0)


def test_trials_are_held_out_ridges_on_what_the_base_leaves():
    lessons = draw_lessons()
    fold = folds(lessons)
    found = trials(lessons, kernel_of(lessons), fold)
    assert found[0].penalty is None
    assert len({(trial.slope, trial.penalty) for trial in found}) == len(found) == 15
    for trial in found:
        slow = slow_trial(lessons, fold, trial.slope, trial.penalty)
        assert trial.quality == pytest.approx(slow, abs=1e-5)


def test_a_base_is_shrunk_towards_what_everybody_expects():
    few, many = (
        Lessons(np.zeros((n, 2), np.float32), np.full(n, 0.5), np.ones(n), np.zeros(n))
        for n in (10, 1000)
    )
    assert Base.of(few).level == pytest.approx(0.5)
    assert Base.of(many).level > 0.95
    assert Base.of(few).mean == pytest.approx(Base.of(few).middle / 2)
    assert Base.of(many).mean < 0.05


@pytest.mark.parametrize("expected", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("found", [0.0, 0.3, 0.9])
def test_a_level_makes_of_one_quality_the_other(expected, found):
    if 0 < expected < 1:
        level = level_between(expected, found)
        assert levelled(np.array([expected]), level)[0] == pytest.approx(found)


def test_a_gate_learns_on_which_prompts_the_own_expert_is_better():
    lessons = draw_lessons(n=200)
    gate = learned(lessons, folds(lessons), PREMISE, LENGTHS)
    assert not gate.declined
    assert gate.training["penalty"] is not None
    fresh = draw_lessons(n=400, seed=1)
    strength = levelled(fresh.strength, gate.level)
    picked = gate.quality(fresh.X, strength) > strength
    clear = np.abs(fresh.X[:, 0]) > 0.5
    assert (picked == (fresh.own == 1))[clear].mean() > 0.95
    assert np.where(picked, fresh.own, fresh.delivered).mean() > fresh.own.mean() + 0.1


def test_its_error_shrinks_as_prompts_come():
    errors = [
        learned(draw_lessons(n), folds(draw_lessons(n)), PREMISE, LENGTHS).quality_se
        for n in (20, 400)
    ]
    assert errors[0] > errors[1] > 0


def test_an_own_expert_that_is_always_better_is_always_asked():
    lessons = draw_lessons(n=40, own=lambda X, _: np.ones(len(X)))
    gate = learned(lessons, folds(lessons), PREMISE, LENGTHS)
    assert not gate.declined
    assert gate.training["held_out"]["share_own"] == 1.0


@pytest.mark.parametrize(
    "own", [lambda X, delivered: delivered, lambda X, delivered: np.zeros(len(X))]
)
def test_an_own_expert_that_is_no_better_is_declined(own):
    lessons = draw_lessons(own=own)
    assert learned(lessons, folds(lessons), PREMISE, LENGTHS).declined


def test_few_prompts_or_one_prompt_again_and_again_prove_nothing():
    better = draw_lessons(n=40, own=lambda X, _: np.ones(len(X)))
    few = better.rows(np.arange(40) < 9)
    assert learned(few, folds(few), PREMISE, LENGTHS).declined
    assert learned(better, np.zeros(40, dtype=np.int64), PREMISE, LENGTHS).declined


def test_one_win_among_twenty_is_luck():
    gains = np.zeros(20)
    gains[3] = 1.0
    assert gain_of(np.ones(20, dtype=bool), gains).cautious < 0
    assert gain_of(np.ones(20, dtype=bool), np.ones(20)).cautious > 0
    assert gain_of(np.ones(2, dtype=bool), np.full(2, np.nan)).mean == 0.0


# ---- from a table

PROMPTS = [f"{word} {k}" for k in range(30) for word in ("code", "maths")]


@pytest.fixture
def artefact(make_artefact, make_spec):
    specs = [make_spec("a"), make_spec("b")]
    return make_artefact(specs, [[0.9, 0.2], [0.2, 0.9], [0.5, 0.5]])


def table(columns, splits=None, **known):
    """An outcome table over `PROMPTS`; a column of None is unknown."""
    scores = np.column_stack([np.asarray(column, dtype=float) for column in columns.values()])
    splits = np.full(len(PROMPTS), "train") if splits is None else splits
    return Outcomes.of(PROMPTS, tuple(columns), scores, splits=splits, **known)


CODE = np.array([float(prompt.startswith("code")) for prompt in PROMPTS])


def lessons_of(outcomes, artefact, word_embedder):
    return Lessons.of(outcomes, artefact, word_embedder().embed(PROMPTS), PREMISE)


def test_the_global_router_is_the_rival_expected_best_among_those_with_a_score(
    artefact, word_embedder
):
    found = lessons_of(
        table({"own": CODE, "a": CODE * 0.5, "b": np.where(CODE, 0.25, np.nan)}),
        artefact,
        word_embedder,
    )
    # on maths b is expected best and has no score
    assert found.delivered.tolist() == np.where(CODE, 0.5, 0.0).tolist()
    assert set(found.strength) == {0.9}


def test_a_column_of_what_was_delivered_goes_before(artefact, word_embedder):
    outcomes = table({"own": CODE, "a": CODE, "auto": np.full(len(CODE), 0.75)})
    assert set(lessons_of(outcomes, artefact, word_embedder).delivered) == {0.75}


def test_rivals_are_those_with_scores_or_all():
    assert rivals_in(table({"own": CODE, "b": CODE}), ["a", "b"]) == ("b",)
    assert rivals_in(table({"own": CODE, "auto": CODE}), ["a", "b"]) == ("a", "b")
    with pytest.raises(OutcomesError, match="score__auto"):
        rivals_in(table({"own": CODE}), ["a", "b"])


def test_test_rows_are_measured_and_not_learned_from(artefact, word_embedder):
    splits = np.where(np.arange(len(PROMPTS)) % 3 == 2, "test", "train")
    own = np.where(splits == "test", 0.0, 1.0)
    columns = {"own": own, "a": CODE * 0, "b": CODE * 0}
    gate = personalise(table(columns, splits), artefact, word_embedder(), PREMISE)
    assert not gate.declined
    assert gate.training["n_prompts"] == 40
    assert gate.training["test"]["score_always"] == 0.0
    assert gate.training["test"]["n_prompts"] == 20
    assert gate.training["held_out"]["score_gate"] == 1.0


def test_lengths_are_those_of_the_own_expert(artefact, word_embedder):
    columns = {"own": CODE, "a": CODE, "b": CODE}
    tokens = np.full((len(PROMPTS), 3), np.nan)
    unknown = personalise(table(columns, tokens=tokens), artefact, word_embedder(), PREMISE)
    assert (unknown.mean_tokens, unknown.cautious_tokens) == (256.0, 256.0)
    tokens[:, 0] = np.where(CODE, 100.0, 200.0)
    known = personalise(table(columns, tokens=tokens), artefact, word_embedder(), PREMISE)
    assert (known.mean_tokens, known.cautious_tokens) == (150.0, 200.0)


def test_what_cannot_be_learned_from_is_refused(artefact, word_embedder):
    unknown = np.full(len(PROMPTS), np.nan)
    with pytest.raises(OutcomesError, match="no column score__own"):
        personalise(table({"a": CODE, "b": CODE}), artefact, word_embedder(), PREMISE)
    only_test = table({"own": CODE, "a": CODE, "b": CODE}, np.full(len(PROMPTS), "test"))
    with pytest.raises(OutcomesError, match="no prompt to learn from has a score of 'own'"):
        personalise(only_test, artefact, word_embedder(), PREMISE)
    apart = table({"own": CODE, "a": unknown, "b": unknown})
    with pytest.raises(OutcomesError, match="one of the global router"):
        personalise(apart, artefact, word_embedder(), PREMISE)
