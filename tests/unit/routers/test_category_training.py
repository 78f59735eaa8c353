"""Which labels to route by, and which estimator learns them best."""

from dataclasses import replace

import numpy as np
import pytest

from coe.routers.category import CentroidRouter, LogisticRouter, NeighborRouter
from coe.routers.category_training import (
    Scheme,
    choose,
    class_names,
    estimators,
    fitted,
    held_out,
    schemes,
    serving_head,
)
from coe.routers.clusters import ClusterRouter, LeastSquaresRouter
from coe.routers.folds import content_folds
from coe.routers.spreading import UNLABELLED, SpreadingRouter

GATES = {"k-means": ClusterRouter, "least-squares": LeastSquaresRouter}
RIGHT = np.full((4, 2), 0.5)


@pytest.fixture(scope="module")
def drawn(draw_outcomes):
    """120 prompts of four categories."""
    return draw_outcomes(RIGHT, n_train=120, n_dev=0)


@pytest.fixture(scope="module")
def fold(drawn):
    return content_folds(drawn.outcomes.prompts, 5)


def named(found):
    return {scheme.name: scheme for scheme in found}


# ---- the ways to cut prompts into categories


def test_the_plainest_way_is_first_and_clusters_are_last(drawn):
    found = schemes(drawn.outcomes, drawn.X, None)
    assert [scheme.name for scheme in found] == ["category", "k-means", "least-squares"]
    np.testing.assert_array_equal(found[0].labels, drawn.outcomes.categories)
    assert list(class_names(found[0])) == ["c0", "c1", "c2", "c3"]
    assert all(scheme.parents == {} for scheme in found)


@pytest.mark.parametrize(("n_prompts", "n_clusters"), [(59, 0), (60, 2), (119, 3), (120, 4)])
def test_clusters_hold_thirty_prompts_on_average(drawn, n_prompts, n_clusters):
    rows = drawn.outcomes.rows(np.arange(120) < n_prompts)
    found = named(schemes(rows, drawn.X[:n_prompts], None))
    assert ("k-means" in found) == ("least-squares" in found) == (n_clusters > 0)
    if n_clusters:
        assert len(class_names(found["k-means"])) == n_clusters


@pytest.mark.parametrize("name", ["", "general"])
def test_prompts_without_a_category_are_unlabelled(drawn, name):
    half = np.arange(120) % 2 == 0
    rows = replace(drawn.outcomes, categories=np.where(half, name, drawn.outcomes.categories))
    found = schemes(rows, drawn.X, None)[0]
    assert found.name == "category"
    np.testing.assert_array_equal(found.labels == UNLABELLED, half)
    nobody = replace(rows, categories=np.full(120, name))
    assert "category" not in named(schemes(nobody, drawn.X, None))


def test_tasks_that_are_finer_than_categories_are_a_way_with_parents(drawn):
    rows = drawn.outcomes
    halves = np.array(
        [f"{c}-{'ab'[int(c == 'c0' and k % 2)]}" for k, c in enumerate(rows.categories)]
    )
    found = named(schemes(replace(rows, tasks=halves), drawn.X, None))["source_task"]
    assert list(class_names(found)) == ["c0-a", "c0-b", "c1-a", "c2-a", "c3-a"]
    assert found.parents == {name: name[:2] for name in class_names(found)}


@pytest.mark.parametrize("n_tasks", [2, 4, 7, 120])
def test_tasks_that_are_no_finer_or_too_fine_are_no_way(drawn, n_tasks):
    tasks = np.array([f"task {k % n_tasks}" for k in range(120)])
    assert "source_task" not in named(schemes(replace(drawn.outcomes, tasks=tasks), drawn.X, None))


def test_a_task_belongs_to_the_commonest_category_of_its_prompts(drawn):
    tasks = np.repeat(["maths", "mixed", "nowhere"], 40)
    categories = np.array(["c1"] * 40 + ["c1"] * 10 + ["c2"] * 30 + [""] * 40)
    rows = replace(drawn.outcomes, tasks=tasks, categories=categories)
    found = named(schemes(rows, drawn.X, None))["source_task"]
    assert found.parents == {"maths": "c1", "mixed": "c2"}


def test_a_task_named_general_is_the_row_over_all_prompts(drawn):
    tasks = np.array(["general", "x", "y", "z", "x", "u"] * 20)
    rows = replace(drawn.outcomes, tasks=tasks, categories=np.full(120, "c"))
    found = named(schemes(rows, drawn.X, None))["source_task"]
    assert list(class_names(found)) == ["u", "x", "y", "z"]
    np.testing.assert_array_equal(found.labels == UNLABELLED, tasks == "general")


@pytest.mark.parametrize("name", list(GATES))
@pytest.mark.parametrize("n_distinct", [1, 2, 3, 4, 8])
def test_the_router_over_clusters_finds_the_clusters_of_its_labels(make_outcomes, name, n_distinct):
    # eight clusters are asked for; zeros of either sign look distinct and are not
    rng = np.random.default_rng(0)
    X = rng.permutation(np.eye(8, dtype=np.float32)[np.arange(240) % n_distinct])
    X[(rng.random((240, 1)) < 0.2) & (X == 0)] = -0.0
    scheme = named(schemes(make_outcomes(np.zeros((240, 1))), X, None))[name]
    router = fitted(estimators(scheme, None)[name], scheme.labels, X)
    numbered = router.head().classes_
    assert numbered.size == n_distinct
    np.testing.assert_array_equal(numbered, class_names(scheme))
    np.testing.assert_array_equal(numbered[router.labels_], scheme.labels)


# ---- the estimators


def test_the_estimators_are_named_apart_and_see_the_leading_features(drawn):
    found = estimators(schemes(drawn.outcomes, drawn.X, None)[0], 3)
    assert {type(router) for router in found.values()} == {
        LogisticRouter,
        CentroidRouter,
        NeighborRouter,
    }
    assert all(router.distance_features == 3 for router in found.values())


def test_spreading_is_tried_where_labels_are_missing(drawn):
    labels = np.where(np.arange(120) % 2 == 0, UNLABELLED, drawn.outcomes.categories)
    found = estimators(Scheme("category", labels, {}), None)
    assert isinstance(found["spreading"], SpreadingRouter)
    assert "spreading" not in estimators(Scheme("category", drawn.outcomes.categories, {}), None)


@pytest.mark.parametrize("name", list(GATES))
def test_clusters_have_one_estimator_each(drawn, name):
    found = estimators(named(schemes(drawn.outcomes, drawn.X, 4))[name], 4)
    assert list(found) == [name]
    assert type(found[name]) is GATES[name]


# ---- cross-validation


def test_no_prompt_is_judged_by_a_fit_that_saw_it(drawn, fold):
    labels, classes = drawn.outcomes.categories, np.array(["c0", "c1", "c2", "c3"])
    wrong = np.where(fold == 2, "c0", labels)
    for router in estimators(Scheme("category", labels, {}), None).values():
        before, after = (held_out(router, y, drawn.X, fold, classes) for y in (labels, wrong))
        np.testing.assert_array_equal(before[fold == 2], after[fold == 2])
        assert not np.allclose(before[fold != 2], after[fold != 2])


def test_a_category_that_a_fit_has_not_seen_gets_nothing(drawn, fold):
    labels = np.where(fold == 1, "rare", drawn.outcomes.categories)
    classes = np.unique(labels)
    found = held_out(CentroidRouter(), labels, drawn.X, fold, classes)
    rare = classes.tolist().index("rare")
    np.testing.assert_array_equal(found[fold == 1, rare], 0.0)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


def test_without_anything_to_learn_from_nothing_is_likely(drawn):
    labels, classes = drawn.outcomes.categories, np.array(["c0", "c1", "c2", "c3"])
    one_fold = np.full(120, 3)
    assert not held_out(LogisticRouter(), labels, drawn.X, one_fold, classes).any()
    seed = np.where(np.arange(120) == 5, labels, UNLABELLED)
    folds = np.arange(120) % 2
    found = held_out(SpreadingRouter(), seed, drawn.X, folds, labels[[5]])
    # the seed's own fold has no other
    np.testing.assert_array_equal(found[:, 0], folds == 0)


def test_the_best_estimator_has_the_least_brier_score(drawn, fold):
    scheme = Scheme("category", drawn.outcomes.categories, {})
    name, scores = choose(estimators(scheme, None), scheme, drawn.X, fold)
    assert scores[name] == min(scores.values())
    assert all(0.0 <= score <= 2.0 for score in scores.values())
    # a cloud is closer to its centre than to the others
    assert scores[name] < 0.2


def test_certain_and_right_is_no_error_and_of_equals_the_first_wins(drawn, fold):
    labels = drawn.outcomes.categories
    X = np.eye(4, dtype=np.float32)[np.searchsorted(np.unique(labels), labels)]
    twins = {"one": NeighborRouter(1), "other": NeighborRouter(1)}
    half = np.where(np.arange(120) % 2 == 0, UNLABELLED, labels)
    for known in (labels, half):
        name, scores = choose(twins, Scheme("category", known, {}), X, fold)
        assert (name, scores) == ("one", {"one": 0.0, "other": 0.0})


def test_shuffled_labels_cannot_be_learned(drawn, fold):
    labels = np.random.default_rng(0).permutation(drawn.outcomes.categories)
    scheme = Scheme("category", labels, {})
    _, scores = choose(estimators(scheme, None), scheme, drawn.X, fold)
    # a quarter for each of four categories scores 0.75
    assert min(scores.values()) > 0.7


def test_a_single_estimator_needs_no_comparison(drawn, fold):
    scheme = Scheme("category", drawn.outcomes.categories, {})
    assert choose({"only": LogisticRouter()}, scheme, drawn.X, fold) == ("only", {})


def test_repeated_prompts_are_no_evidence(draw_outcomes):
    # noise for labels, but every prompt twenty times: a memory alone would look perfect
    drawn = draw_outcomes([[0.5]], n_train=8, n_dev=0)
    prompts, X = drawn.outcomes.prompts * 20, np.tile(drawn.X, (20, 1))
    labels = np.tile(["a", "b", "b", "a", "b", "a", "a", "b"], 20)
    scheme = Scheme("category", labels, {})
    memory = {"memory": NeighborRouter(1), "centre": CentroidRouter(0.1)}
    _, honest = choose(memory, scheme, X, content_folds(prompts, 5))
    _, leaking = choose(memory, scheme, X, np.arange(len(X)) // 8 % 5)
    assert leaking["memory"] < 0.01
    assert honest["memory"] > 0.5


def test_fitting_leaves_the_candidate_unfitted_and_the_unlabelled_out(drawn):
    labels = np.where(np.arange(120) < 40, UNLABELLED, drawn.outcomes.categories)
    for router in estimators(Scheme("category", labels, {}), None).values():
        made = fitted(router, labels, drawn.X)
        assert not hasattr(router, "classes_")
        assert UNLABELLED not in made.classes_
        assert len(made.points_) >= 80
        assert (len(made.points_) == 80) == (not isinstance(made, SpreadingRouter))


# ---- what serving gets


def test_few_neighbours_are_all_kept(drawn):
    made = NeighborRouter().fit(drawn.X, drawn.outcomes.categories)
    assert serving_head(made).points_.shape == drawn.X.shape


def test_of_many_neighbours_a_sample_is_kept_with_their_votes():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 2))
    names = np.where(X[:, 0] > 0, "right", "left")
    made = NeighborRouter().fit(X, names)
    head = serving_head(made)
    assert (head.points_.shape, head.codes_.shape) == ((4096, 2), (4096,))
    right = head.classes_[head.codes_] == "right"
    np.testing.assert_array_equal(right, head.points_[:, 0] > 0)
    probes = rng.normal(size=(50, 2))
    assert np.mean(head.predict(probes) == made.predict(probes)) > 0.9
    np.testing.assert_array_equal(head.points_, serving_head(made).points_)
