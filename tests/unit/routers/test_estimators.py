"""One contract for every category router: what scikit-learn asks, and what serving asks."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks

from coe.routers.artefact import Artefact
from coe.routers.category import CentroidRouter, LogisticRouter, NeighborRouter
from coe.routers.clusters import ClusterRouter, LeastSquaresRouter
from coe.routers.expectation import Expectation
from coe.routers.quality import QualityTable
from coe.routers.spreading import SpreadingRouter

DIM = 6
CATEGORIES = ("maths", "数学", "الرياضيات", "गणित")
LABELLED = (LogisticRouter, CentroidRouter, NeighborRouter, SpreadingRouter)
CLUSTERED = (ClusterRouter, LeastSquaresRouter)
FITTED = ("probabilities", "entropy", "distance", "uncertain")

labelled = pytest.mark.parametrize("make", LABELLED)
every = pytest.mark.parametrize("make", LABELLED + CLUSTERED)


@parametrize_with_checks(
    [
        LogisticRouter(),
        LogisticRouter(n_neighbors=1, distance_features=1),
        CentroidRouter(),
        NeighborRouter(),
        NeighborRouter(n_neighbors=1),
        ClusterRouter(),
        ClusterRouter(n_clusters=3, distance_features=1),
        LeastSquaresRouter(),
        SpreadingRouter(),
        SpreadingRouter(NeighborRouter(), n_rounds=0),
    ]
)
def test_scikit_learn_s_own_battery(estimator, check):
    check(estimator)


def router(make, n_categories=3, **params):
    """A router that may find so many categories."""
    clusters = {"n_clusters": n_categories} if make in CLUSTERED else {}
    return make(**clusters, **params)


def examples(n_categories=3, n_each=12, seed=0, names=CATEGORIES):
    """Prompts of well separated categories, in random order, and their names."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(n_categories), n_each))
    X = np.eye(DIM)[codes] + 0.1 * rng.normal(size=(codes.size, DIM))
    return X, np.array(names)[codes]


def probes(seed=1):
    """Prompts near the categories and far from them; the last is one of which nothing is known."""
    rng = np.random.default_rng(seed)
    near = np.eye(DIM)[:4] + 0.05 * rng.normal(size=(4, DIM))
    anywhere = rng.normal(size=(20, DIM))
    return np.vstack([near, anywhere, -near, 100 * anywhere, np.zeros((1, DIM))])


def assert_same_groups(found, names):
    """Each category got one name of its own."""
    pairs = set(zip(found.tolist(), names.tolist(), strict=True))
    assert len(pairs) == len(set(names.tolist())) == len({name for name, _ in pairs})


def heads_arrays(fitted):
    head = fitted.head()
    codes = np.empty(0) if head.codes_ is None else head.codes_
    return [head.classes_, head.coef_, head.intercept_, head.points_, codes]


# ---- the scikit-learn contract, beyond the battery


@every
def test_a_clone_has_the_parameters_and_nothing_that_was_learned(make):
    made = router(make, n_neighbors=7, entropy_threshold=0.5)
    made.fit(*examples())
    twin = clone(made)
    assert twin.get_params(deep=False) == made.get_params(deep=False)
    assert make(**made.get_params(deep=False)).get_params() == made.get_params()
    for ask in (twin.predict_proba, twin.predict, twin.assess):
        with pytest.raises(NotFittedError):
            ask(probes())
    with pytest.raises(NotFittedError):
        twin.head()


@every
def test_parameters_can_be_set_by_name_and_no_others(make):
    made = router(make).set_params(distance_features=2, distance_threshold=0.25)
    made.fit(*examples())
    assert made.head().points_.shape[1] == 2
    assert made.head().distance_threshold == 0.25
    with pytest.raises(ValueError, match="Invalid parameter"):
        made.set_params(depth=3)


@every
def test_fitting_returns_the_router_and_leaves_the_inputs_alone(make):
    X, names = examples()
    X.flags.writeable = names.flags.writeable = False
    before = X.copy(), names.copy()
    made = router(make)
    assert made.fit(X, names) is made
    made.assess(X)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(names, before[1])


@every
def test_the_same_prompts_give_the_same_arrays_also_in_a_router_fitted_before(make):
    X, names = examples()
    used = router(make).fit(*examples(2, seed=9)).fit(X, names)
    for left, right in zip(
        heads_arrays(router(make).fit(X, names)), heads_arrays(used), strict=True
    ):
        np.testing.assert_array_equal(left, right)


@every
def test_lists_and_single_precision_are_as_good(make):
    X, names = examples()
    X = X.astype(np.float32)
    expected = router(make).fit(X.astype(np.float64), names).predict_proba(X)
    for form in (X, X.tolist()):
        found = router(make).fit(form, names.tolist()).predict_proba(form)
        np.testing.assert_allclose(found, expected, atol=1e-3)


@labelled
def test_the_order_of_the_training_prompts_does_not_matter(make):
    # of a clustering it does: k-means starts from prompts drawn by position; and so does who
    # votes on a prompt of which nothing is known, which is as far from all
    X, names = examples()
    order = np.random.default_rng(2).permutation(len(X))
    one, other = router(make).fit(X, names), router(make).fit(X[order], names[order])
    for name in ("probabilities", "entropy", "distance"):
        left, right = (getattr(fitted.assess(probes()[:-1]), name) for fitted in (one, other))
        np.testing.assert_allclose(left, right, atol=1e-3)


# ---- what serving relies on


@every
@pytest.mark.parametrize("n_categories", [1, 2, 3, 4])
def test_probabilities_are_distributions_whatever_the_prompt(make, n_categories):
    made = router(make, n_categories).fit(*examples(n_categories))
    found = made.predict_proba(probes())
    assert found.shape == (len(probes()), n_categories)
    assert np.all((found >= 0) & (found <= 1))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    doubt = made.assess(probes()).entropy
    assert np.all((doubt >= 0) & (doubt <= np.log(n_categories) + 1e-12))


@every
@pytest.mark.parametrize("n_categories", [1, 2, 3, 4])
def test_separate_categories_are_told_apart(make, n_categories):
    X, names = examples(n_categories)
    made = router(make, n_categories).fit(X, names)
    assert_same_groups(made.predict(X), names)
    unseen, theirs = examples(n_categories, seed=5)
    assert_same_groups(made.predict(unseen), theirs)


@labelled
def test_names_in_any_script_come_back_sorted(make):
    X, names = examples(4)
    made = router(make).fit(X, names)
    assert made.classes_.tolist() == sorted(CATEGORIES)
    np.testing.assert_array_equal(made.predict(X), names)
    np.testing.assert_array_equal(made.head().predict(X), names)


@every
@pytest.mark.parametrize("n_categories", [1, 2, 3])
def test_the_head_says_what_the_router_says(make, n_categories):
    params = {"entropy_threshold": 0.3, "distance_threshold": 0.2, "distance_features": 3}
    made = router(make, n_categories, **params).fit(*examples(n_categories))
    said, head = made.assess(probes()), made.head()
    for name in FITTED:
        np.testing.assert_array_equal(getattr(said, name), getattr(head.assess(probes()), name))
    np.testing.assert_array_equal(said.probabilities, made.predict_proba(probes()))
    np.testing.assert_array_equal(head.predict_proba(probes()), made.predict_proba(probes()))
    columns = np.argmax(said.probabilities, axis=1)
    np.testing.assert_array_equal(made.predict(probes()), made.classes_[columns])
    np.testing.assert_array_equal(head.predict(probes()), head.classes_[columns])


@every
def test_a_head_survives_the_artefact_votes_and_all(make, make_spec, tmp_path):
    made = router(make, 4, entropy_threshold=0.5, distance_threshold=0.25).fit(*examples(4))
    head = made.head()
    names = (*head.classes_.tolist(), "general")
    half = np.full((len(names), 1), 0.5)
    table = QualityTable(names, ("a",), half, half, half, half)
    artefact = Artefact("words", head, Expectation(table), (make_spec("a"),), (), {}, {})
    artefact.save(tmp_path / "artefact")
    loaded = Artefact.load(tmp_path / "artefact").category
    assert loaded.classes_.tolist() == head.classes_.tolist()
    if head.codes_ is None:
        assert loaded.codes_ is None
    else:
        np.testing.assert_array_equal(loaded.codes_, head.codes_)
    near = probes()[:4]
    np.testing.assert_allclose(loaded.predict_proba(near), head.predict_proba(near), atol=1e-4)
    np.testing.assert_allclose(
        loaded.assess(probes()).distance, head.assess(probes()).distance, atol=2e-3
    )
    np.testing.assert_array_equal(loaded.predict(near), head.predict(near))
    assert (loaded.entropy_threshold, loaded.distance_threshold) == (0.5, 0.25)


# ---- tables that hold little


@every
def test_repeated_prompts_are_learned_like_any(make):
    X, names = examples(n_each=4)
    made = router(make, n_neighbors=5).fit(np.repeat(X, 5, axis=0), np.repeat(names, 5))
    assert_same_groups(made.predict(X), names)
    np.testing.assert_allclose(made.assess(X).distance, 0.0, atol=1e-6)


@every
def test_equal_prompts_of_different_categories_are_a_toss_up(make):
    made = router(make).fit(np.ones((10, DIM)), np.array(["a", "b"] * 5))
    np.testing.assert_allclose(made.assess(np.ones((1, DIM))).probabilities.sum(), 1.0)
    assert made.assess(np.ones((1, DIM))).distance[0] == pytest.approx(0.0, abs=1e-6)
    if make in CLUSTERED:
        assert made.classes_.size == 1
    else:
        np.testing.assert_allclose(made.predict_proba(np.ones((1, DIM))), 0.5, atol=0.11)


@every
def test_a_single_prompt_is_enough(make):
    made = router(make).fit([np.arange(DIM)], ["maths"])
    np.testing.assert_array_equal(made.predict_proba(probes()), np.ones((len(probes()), 1)))
    assert made.assess([np.arange(DIM)]).distance[0] == pytest.approx(0.0, abs=1e-6)


@every
def test_prompts_of_which_nothing_is_known_can_be_learned_from(make):
    made = router(make, distance_threshold=0.9).fit(np.zeros((6, DIM)), np.array(["a", "b"] * 3))
    found = made.assess(np.zeros((1, DIM)))
    np.testing.assert_allclose(found.probabilities.sum(), 1.0)
    assert (found.distance[0], bool(found.uncertain[0])) == (1.0, True)


@every
def test_features_that_never_change_do_no_harm(make):
    X, names = examples()
    X[:, 3:] = 7.0
    made = router(make).fit(X, names)
    assert_same_groups(made.predict(X), names)


@every
def test_more_leading_features_than_there_are_is_all_of_them(make):
    X, names = examples()
    made = router(make, distance_features=DIM + 5).fit(X, names)
    assert made.head().points_.shape[1] == DIM
    assert_same_groups(made.predict(X), names)


def test_only_the_vote_has_codes():
    X, names = examples()
    for make in LABELLED + CLUSTERED:
        codes = router(make).fit(X, names).head().codes_
        assert (codes is not None) == (make is NeighborRouter)
    voting = SpreadingRouter(NeighborRouter()).fit(X, names).head()
    np.testing.assert_array_equal(voting.classes_[voting.codes_], names)


def test_a_vote_is_the_share_of_the_neighbours():
    X = np.repeat(np.eye(DIM)[:3], (3, 2, 5), axis=0)
    made = NeighborRouter(n_neighbors=5).fit(X, ["a"] * 3 + ["b"] * 2 + ["c"] * 5)
    between = np.eye(DIM)[0] + np.eye(DIM)[1]
    np.testing.assert_allclose(made.predict_proba([between]), [[0.6, 0.4, 0.0]])
    # fewer prompts than voters: all of them vote
    everybody = NeighborRouter(n_neighbors=99).fit(X, ["a"] * 3 + ["b"] * 2 + ["c"] * 5)
    np.testing.assert_allclose(everybody.predict_proba([between]), [[0.3, 0.2, 0.5]])


def test_a_centroid_is_blind_to_the_length_of_prompts_and_to_the_size_of_categories():
    X, names = examples()
    plain = CentroidRouter().fit(X, names)
    longer = CentroidRouter().fit(X * np.arange(1, len(X) + 1)[:, None], names)
    twice = CentroidRouter().fit(
        np.vstack([X, X[names == "maths"]]), np.append(names, names[names == "maths"])
    )
    for other in (longer, twice):
        np.testing.assert_allclose(
            other.predict_proba(probes()), plain.predict_proba(probes()), atol=1e-5
        )
