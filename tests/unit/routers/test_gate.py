"""The retrieval gate: what it looks at, what it says, and how it is learned."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.linear_model import LogisticRegression

from coe.errors.files import OutcomesError
from coe.routers.embed import load_default
from coe.routers.gate import (
    HURT,
    NEED,
    NEITHER,
    OUTCOMES,
    Draft,
    RetrievalGate,
    column_names,
    decide,
    gate_features,
)
from coe.routers.gate_training import fit_gate
from coe.routers.question import hedges
from coe.routers.retrieve import Evidence

NAN = np.nan
DIM = 3
VECTOR = np.array([0.6, 0.0, 0.8])


def featured(*texts, evidence=None, entropy=0.5, drafts=None):
    """Features by column name, of questions that share everything but their text."""
    n = len(texts)
    found = gate_features(texts, [VECTOR] * n, [entropy] * n, [evidence] * n, drafts)
    return dict(zip(column_names(DIM, drafts is not None), found.T, strict=True))


def planted(n=300, seed=0):
    """Features of which the first tells need from hurt, and the scores of one expert."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    tells = X[:, 0] + 0.3 * rng.normal(size=n)
    without = (tells < 0.5).astype(float)
    retrieved = (tells > -0.5).astype(float)
    wrong = rng.random(n) < 0.3
    without[wrong] = retrieved[wrong] = 0.0
    return X, without[:, None], retrieved[:, None]


# ---- what it looks at


def test_a_question_is_described_by_its_size_marks_and_words():
    text = 'When was the director of "Annie Hall" (1977) born in New York, and where?'
    found = {name: values[0] for name, values in featured(text).items()}
    shown = {
        "question.log_chars": np.log1p(len(text)),
        "question.log_words": np.log1p(14),
        "question.n_names": 2,
        "question.lower_case": 0,
        "question.n_years": 1,
        "question.n_numbers": 1,
        "question.bracket": 1,
        "question.quoted": 1,
        "question.n_commas": 1,
        "question.question_mark": 1,
        "question.n_of": 1,
        "question.n_the": 1,
        "opening.wh": 1,
        "opening.yes_no": 0,
        "cue.when": 1,
        "cue.where": 1,
        "cue.creator": 1,
        "cue.birth_or_death": 1,
        "cue.kin": 0,
        "router.entropy": 0.5,
        "embedding.2": 0.8,
    }
    assert {name: found[name] for name in shown} == pytest.approx(shown)


def test_pairs_of_words_are_cues_and_parts_of_words_are_not():
    found = featured("How many ships?", "The whole showcase")
    assert found["cue.amount_asked"].tolist() == [1, 0]
    assert found["cue.who"].tolist() == [0, 0]
    assert found["cue.screen"].tolist() == [0, 0]


def test_where_there_is_no_index_the_evidence_is_missing():
    found = featured("Who?")
    assert found["evidence.present"][0] == 0
    assert all(np.isnan(found[f"evidence.{field.name}"][0]) for field in fields(Evidence))


def test_evidence_is_taken_over_with_a_dampened_count():
    found = featured("Who?", evidence=Evidence(top_score=7.5, gap=2.0, n_matching=99))
    assert found["evidence.present"][0] == 1
    assert found["evidence.top_score"][0] == 7.5
    assert found["evidence.gap"][0] == 2.0
    assert found["evidence.n_matching"][0] == pytest.approx(np.log(100))


def test_an_empty_question_is_zeros():
    found = featured("")
    ours = [name for name in found if name.startswith(("question.", "opening.", "cue."))]
    assert all(found[name][0] == 0 for name in ours)


def test_a_question_in_another_script_has_a_shape_but_no_cues():
    found = featured("谁写了《红楼梦》\uff1f", "Кто написал роман «Война и мир»?")
    assert found["question.question_mark"].tolist() == [1, 1]
    assert found["question.quoted"][1] == 1
    assert found["question.n_names"].tolist() == [0, 1]
    assert not any(values.any() for name, values in found.items() if name.startswith("cue."))


def test_of_a_very_long_question_the_ends_count():
    middle = "x " * 100_000
    found = featured(f"Who {middle} born?", f"Who {middle * 2} born?")
    assert found["cue.who"].tolist() == [1, 1]
    assert found["question.log_chars"][0] == found["question.log_chars"][1]


def test_no_questions_have_no_rows():
    found = gate_features([], np.zeros((0, DIM)), [], [], [])
    assert found.shape == (0, len(column_names(DIM, with_drafts=True)))


def test_lengths_that_do_not_agree_are_refused():
    with pytest.raises(ValueError, match="embeddings must be"):
        gate_features(["a"], VECTOR, [0.0], [None])
    with pytest.raises(ValueError, match="must match"):
        gate_features(["a"], [VECTOR], [0.0], [None, None])
    with pytest.raises(ValueError, match="argument"):
        gate_features(["a"], [VECTOR], [0.0], [None], [None, None])


def test_a_draft_is_described_by_what_it_gives_and_what_was_asked():
    drafts = [Draft("5 May 1821", VECTOR), Draft("I do not know who Napoleon was", VECTOR), None]
    found = featured(*["When did Napoleon die?"] * 3, drafts=drafts)
    assert found["draft.present"].tolist() == [1, 1, 0]
    assert found["draft.asked_date_given_date"][:2].tolist() == [1, 0]
    assert found["draft.hedges"][:2].tolist() == [0, 1]
    assert found["draft.overlap"][1] == pytest.approx(1 / 7)
    assert found["draft.embedding.2"][:2].tolist() == [0.8, 0.8]
    absent = [n for n in found if n.startswith("draft.") and n != "draft.present"]
    assert all(np.isnan(found[name][2]) for name in absent)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Yes.", "yes_no"),
        ("1821", "year"),
        ("in 1821.", "year"),
        ("May 5", "date"),
        ("about 12 ships", "number"),
        ("Paris", "name"),
        ("a ship", "other"),
        ("", "other"),
    ],
)
def test_kinds_of_answers(answer, kind):
    found = featured("Which?", drafts=[Draft(answer, VECTOR)])
    given = [name for name in found if name.startswith("draft.given_") and found[name][0]]
    assert given == [f"draft.given_{kind}"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("I don't know.", True),
        ("There is no information about it in the passages.", True),
        ("It cannot be said", True),
        ("None", True),
        ("Paris", False),
        ("Nonetheless, Paris", False),
        ("Knott's Berry Farm", False),
        ("", False),
    ],
)
def test_hedges(answer, expected):
    assert hedges(answer) is expected


# ---- what it says


def test_its_probabilities_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 6)), rng.integers(0, 4, 200)
    twin = LogisticRegression().fit(X, y)
    gate = RetrievalGate(np.zeros(6), twin.coef_, twin.intercept_)
    found = gate.outcomes(X[:, :5], X[:, 5:])
    np.testing.assert_allclose(found[:, 0], twin.predict_proba(X), atol=1e-12)


def test_a_missing_feature_or_strength_counts_as_the_mean():
    gate = RetrievalGate(np.array([1.0, 2.0, 0.5]), np.arange(12.0).reshape(4, 3), np.zeros(4))
    found = gate.outcomes([[NAN, 3.0], [1.0, np.inf]], [0.7, NAN])
    np.testing.assert_array_equal(found[0], gate.outcomes([[1.0, 3.0]], [0.7, 0.5])[0])
    np.testing.assert_array_equal(found[1], gate.outcomes([[1.0, 2.0]], [0.7, 0.5])[0])


def test_gain_and_heads_come_from_the_same_four_probabilities():
    X, without, retrieved = planted()
    gate = fit_gate(X, without, retrieved, [0.5])
    p = gate.outcomes(X, [0.2, 0.8])
    closed, opened = gate.p_right(X, [0.2, 0.8])
    np.testing.assert_allclose(gate.gain(X, [0.2, 0.8]), opened - closed, atol=1e-12)
    np.testing.assert_allclose(
        gate.need(X, [0.2, 0.8]), p[..., NEED] / (1 - p[..., NEITHER]), atol=1e-12
    )


def test_a_strength_may_differ_by_question():
    gate = RetrievalGate(np.zeros(2), np.array([[0.0, 0], [1, 2], [0, 1], [3, 0]]), np.zeros(4))
    both = gate.gain([[0.1], [0.2]], [[0.3, 0.4], [0.5, 0.6]])
    for row, (x, own) in enumerate([(0.1, [0.3, 0.4]), (0.2, [0.5, 0.6])]):
        np.testing.assert_allclose(both[row], gate.gain([[x]], own)[0])


def test_it_survives_a_round_trip_through_safetensors():
    X, without, retrieved = planted(60)
    gate = fit_gate(X, without, retrieved, [0.5])
    again = RetrievalGate.from_arrays(load(save(gate.to_arrays())))
    np.testing.assert_array_equal(again.outcomes(X, [0.5]), gate.outcomes(X, [0.5]))


def test_arrays_that_are_no_gate_are_refused():
    arrays = RetrievalGate(np.zeros(3), np.zeros((4, 3)), np.zeros(4)).to_arrays()
    with pytest.raises(KeyError):
        RetrievalGate.from_arrays({"coef": arrays["coef"]})
    with pytest.raises(ValueError, match="must be"):
        RetrievalGate.from_arrays({**arrays, "coef": np.zeros((3, 3))})
    with pytest.raises(ValueError, match="must be"):
        RetrievalGate.from_arrays({**arrays, "centre": np.zeros((3, 1))})


def test_features_of_another_width_are_refused():
    gate = RetrievalGate(np.zeros(3), np.zeros((4, 3)), np.zeros(4))
    with pytest.raises(ValueError, match=r"features \(1, 5\) must be \(n, 2\)"):
        gate.gain(np.zeros((1, 5)), [0.5])


def test_serving_needs_no_scikit_learn():
    check = "import coe.routers.gate, sys; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# ---- how it is learned


def test_it_learns_what_tells_need_from_hurt():
    X, without, retrieved = planted(600)
    gate = fit_gate(X[:400], without[:400], retrieved[:400], [0.5])
    gains = gate.gain(X[400:], [0.5])[:, 0]
    chosen = decide(gains, 0.0)
    right = np.where(chosen, retrieved[400:, 0], without[400:, 0]).mean()
    assert right > max(without[400:].mean(), retrieved[400:].mean()) + 0.1
    assert np.corrcoef(gains, X[400:, 0])[0, 1] > 0.9


@pytest.mark.parametrize("neither_weight", [0.05, 0.2, 1.0])
def test_however_the_classes_are_weighted_the_heads_are_calibrated(neither_weight):
    X, without, retrieved = planted(500)
    gate = fit_gate(X, without, retrieved, [0.5], neither_weight=neither_weight)
    for head, scores in zip(gate.p_right(X, [0.5]), (without, retrieved), strict=True):
        assert head.mean() == pytest.approx(scores.mean(), abs=0.02)


def test_of_few_questions_the_class_weights_are_undone_too():
    X, without, retrieved = planted(20)
    gate = fit_gate(X, without, retrieved, [0.5], neither_weight=0.05)
    found = gate.outcomes(X, [0.5])[:, 0].mean(axis=0)
    neither = ((without + retrieved) == 0).mean()
    assert found[NEITHER] == pytest.approx(neither, abs=0.1)


def test_need_differs_by_the_strength_of_the_expert():
    rng = np.random.default_rng(1)
    X, strength = rng.normal(size=(400, 2)), np.array([0.1, 0.9])
    without = (rng.random((400, 2)) < strength).astype(float)
    retrieved = (rng.random((400, 2)) < 0.6).astype(float)
    gate = fit_gate(X, without, retrieved, strength)
    weak, between, strong = gate.gain(X, [0.1, 0.5, 0.9]).mean(axis=0)
    assert weak > between > strong
    assert weak == pytest.approx(0.5, abs=0.1)
    assert strong == pytest.approx(-0.3, abs=0.1)


def test_without_a_hurt_question_it_expects_none():
    X, without, retrieved = planted()
    never_hurts = np.maximum(without, retrieved)
    gate = fit_gate(X, without, never_hurts, [0.5])
    assert not gate.outcomes(X, [0.5])[..., HURT].any()
    assert np.all(gate.gain(X, [0.5]) >= 0)


@pytest.mark.parametrize("outcome", range(4))
def test_a_single_outcome_is_certain(outcome):
    X = np.random.default_rng(0).normal(size=(40, 2))
    without = np.full((40, 1), float(OUTCOMES[outcome] in ("hurt", "both")))
    retrieved = np.full((40, 1), float(OUTCOMES[outcome] in ("need", "both")))
    p = fit_gate(X, without, retrieved, [0.5]).outcomes(X, [0.5])
    np.testing.assert_array_equal(p[:, 0], np.eye(4)[[outcome] * 40])


def test_two_outcomes_leave_the_others_at_zero():
    X = np.random.default_rng(0).normal(size=(40, 2))
    need = (X[:, :1] > 0).astype(float)
    gate = fit_gate(X, np.zeros((40, 1)), need, [0.5])
    p = gate.outcomes(X, [0.5])[:, 0]
    assert not p[:, 2:].any()
    assert np.all(p[X[:, 0] > 1, NEED] > p[X[:, 0] < -1, NEED].max())


def test_cells_that_lack_a_score_are_left_out():
    X, without, retrieved = planted(40)
    holes = retrieved.copy()
    holes[30:35] = NAN
    closed_holes = without.copy()
    closed_holes[35:] = NAN
    folds = np.arange(40) % 3
    found = fit_gate(X, closed_holes, holes, [0.5], folds=folds)
    twin = fit_gate(X[:30], without[:30], retrieved[:30], [0.5], folds=folds[:30])
    np.testing.assert_allclose(found.outcomes(X, [0.5]), twin.outcomes(X, [0.5]), atol=1e-6)


def test_a_score_between_is_divided_so_that_the_means_are_kept():
    X = np.zeros((200, 1))
    gate = fit_gate(X, np.full((200, 1), 0.25), np.full((200, 1), 0.75), [0.5])
    closed, opened = gate.p_right([[0.0]], [0.5])
    assert closed[0, 0] == pytest.approx(0.25, abs=0.01)
    assert opened[0, 0] == pytest.approx(0.75, abs=0.01)


def test_a_feature_that_training_never_saw_changes_nothing():
    X, without, retrieved = planted(60)
    blind = np.column_stack([X, np.full(60, NAN)])
    gate = fit_gate(blind, without, retrieved, [0.5])
    shown = np.column_stack([X, np.arange(60.0)])
    np.testing.assert_array_equal(gate.gain(shown, [0.5]), gate.gain(blind, [0.5]))


def test_the_same_table_gives_the_same_gate():
    one, other = (fit_gate(*planted(60), [0.5]) for _ in range(2))
    for name, array in one.to_arrays().items():
        np.testing.assert_array_equal(array, other.to_arrays()[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": np.full((4, 2), 2.0)}, "expert 0 without retrieval on question 0 is 2.0"),
        ({"retrieved": np.full((4, 2), -1.0)}, "with retrieval on question 0 is -1.0, not in"),
        ({"retrieved": np.zeros((4, 3))}, "twice"),
        ({"features": np.zeros((3, 2))}, "twice"),
        ({"strength": [0.1, 0.2, 0.3]}, r"strength \(3,\) must be"),
        ({"retrieved": np.column_stack([np.zeros(4), np.full(4, NAN)])}, "expert 1 has no quest"),
        ({"without": np.zeros((4, 0)), "retrieved": np.zeros((4, 0)), "strength": []}, "no quest"),
        ({"folds": [0, 1]}, "folds must give each of 4"),
        ({"folds": [0, 0, 0, 0]}, "at least two folds"),
    ],
)
def test_tables_that_cannot_be_learned_from_are_refused(change, message):
    table = {
        "features": np.zeros((4, 2)),
        "without": np.zeros((4, 2)),
        "retrieved": np.ones((4, 2)),
        "strength": [0.3, 0.6],
    }
    with pytest.raises(OutcomesError, match=message):
        fit_gate(**{**table, **change})


def test_with_the_embedder_that_ships_it_learns_a_kind_of_question():
    embedder = load_default()
    places = ("Peru", "Norway", "Ghana", "Japan", "Chile", "Kenya", "Nepal", "Spain")
    timeless = [f"What is the capital of {place}?" for place in places]
    fresh = [f"Who won the election in {place} this week?" for place in places]
    texts = (timeless + fresh) * 3
    need = np.array(([0.0] * 8 + [1.0] * 8) * 3)[:, None]
    entropy, evidence = [NAN] * len(texts), [None] * len(texts)
    X = gate_features(texts, embedder.embed(texts), entropy, evidence)
    gate = fit_gate(X, 1 - need, need, [0.5])
    asked = ["What is the capital of Laos?", "Who won the election in Laos this week?"]
    found = gate.gain(gate_features(asked, embedder.embed(asked), [NAN] * 2, [None] * 2), [0.5])
    assert decide(found, 0.0)[:, 0].tolist() == [False, True]
