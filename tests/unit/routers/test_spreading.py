"""Labels that spread from seeds: how far they go, and where they stop."""

import numpy as np
import pytest

from coe.routers.category import CentroidRouter, LogisticRouter, NeighborRouter
from coe.routers.spreading import UNLABELLED, SpreadingRouter


def arc(*degrees):
    """Prompts at these angles: neighbours by cosine are neighbours by angle."""
    angles = np.radians(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)])


def clouds(n_each=15, seed=0):
    """Two tight clouds of prompts and their names."""
    rng = np.random.default_rng(seed)
    names = np.repeat(["code", "maths"], n_each)
    X = np.where(names[:, None] == "code", [1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    return X + 0.05 * rng.normal(size=X.shape), names


def seeds_of(names, *kept):
    """These names at the kept places alone."""
    seeds = np.full(names.size, UNLABELLED, dtype=names.dtype)
    seeds[list(kept)] = names[list(kept)]
    return seeds


def test_two_seeds_label_their_clouds():
    X, names = clouds()
    router = SpreadingRouter(n_voters=1).fit(X, seeds_of(names, 0, 20))
    np.testing.assert_array_equal(router.labels_, names)
    np.testing.assert_array_equal(router.predict(X), names)
    assert router.classes_.tolist() == ["code", "maths"]
    assert len(router.points_) == len(X)


@pytest.mark.parametrize("n_rounds", [0, 1, 2, 3, 4])
def test_each_round_goes_one_step_and_there_are_at_most_so_many(n_rounds):
    X = arc(0, 10, 20, 30, 40)
    seeds = np.array(["code", *[UNLABELLED] * 4])
    # a step of 10 degrees is a cosine distance of 0.015, one of 20 degrees of 0.06
    router = SpreadingRouter(n_voters=1, spread_distance=0.03, n_rounds=n_rounds).fit(X, seeds)
    labelled = router.labels_ != UNLABELLED
    assert labelled.tolist() == [k <= n_rounds for k in range(5)]
    assert len(router.points_) == labelled.sum()


def test_a_prompt_whose_voters_disagree_stays_unlabelled():
    X, seeds = arc(0, 90, 45), np.array(["code", "maths", UNLABELLED])
    options = {"n_voters": 2, "spread_distance": 2.0}
    assert SpreadingRouter(**options, spread_entropy=0.6).fit(X, seeds).labels_[2] == UNLABELLED
    # two voters that disagree have an entropy of ln 2
    assert SpreadingRouter(**options, spread_entropy=0.7).fit(X, seeds).labels_[2] != UNLABELLED


def test_a_prompt_far_from_its_voters_stays_unlabelled_however_much_they_agree():
    X, seeds = arc(0, 1, 2, 80), np.array(["code", "code", "code", UNLABELLED])
    near, far = (SpreadingRouter(spread_distance=d).fit(X, seeds) for d in (0.9, 0.5))
    assert (near.labels_[3], far.labels_[3]) == ("code", UNLABELLED)
    assert (len(near.points_), len(far.points_)) == (4, 3)


def test_a_prompt_of_which_nothing_is_known_stays_unlabelled():
    X = np.vstack([arc(0, 1), np.zeros(2)])
    router = SpreadingRouter().fit(X, np.array(["code", "code", UNLABELLED]))
    assert router.labels_.tolist() == ["code", "code", UNLABELLED]


def test_a_seed_keeps_its_label_in_whatever_company():
    X, names = clouds()
    seeds = seeds_of(names, *range(0, 30, 2))
    seeds[4] = "maths"
    router = SpreadingRouter().fit(X, seeds)
    assert router.labels_[4] == "maths"
    np.testing.assert_array_equal(router.labels_[::2], seeds[::2])


def test_without_a_seed_there_is_nothing_to_spread():
    with pytest.raises(ValueError, match="no prompt is labelled: there is nothing to spread"):
        SpreadingRouter().fit(arc(0, 10), [UNLABELLED, UNLABELLED])


def test_the_seeds_given_are_left_as_they_were():
    X, names = clouds()
    seeds = seeds_of(names, 0, 20)
    before = seeds.copy()
    SpreadingRouter().fit(X, seeds)
    np.testing.assert_array_equal(seeds, before)


@pytest.mark.parametrize("base", [None, LogisticRouter(C=1.0), CentroidRouter(), NeighborRouter(5)])
def test_where_all_is_labelled_it_is_its_base(base):
    X, names = clouds()
    found = SpreadingRouter(base).fit(X, names)
    plain = (base or LogisticRouter()).fit(X, names)
    probes = np.random.default_rng(1).normal(size=(20, 3))
    np.testing.assert_array_equal(found.predict_proba(probes), plain.predict_proba(probes))


def test_the_base_is_copied_and_stays_unfitted():
    base = NeighborRouter()
    SpreadingRouter(base, n_neighbors=3).fit(*clouds())
    assert base.n_neighbors == 10
    assert not hasattr(base, "classes_")


def test_another_base_forgets_the_votes_of_the_one_before():
    X, names = clouds()
    router = SpreadingRouter(NeighborRouter()).fit(X, names)
    assert router.head().codes_ is not None
    router.set_params(base=LogisticRouter()).fit(X[:20], names[:20])
    assert router.head().codes_ is None
    np.testing.assert_array_equal(router.predict(X[:20]), names[:20])


def test_spreading_beats_its_seeds_alone_where_clouds_are_long():
    angles = np.linspace(0, 120, 30)
    X = np.vstack([arc(*angles), arc(*(angles + 180))])
    names = np.repeat(["code", "maths"], 30)
    # one seed at the end of each bow: the other end is nearer to the other's seed
    seeds = seeds_of(names, 0, 30)
    spread = SpreadingRouter(NeighborRouter(), 1, spread_distance=0.01, n_rounds=30).fit(X, seeds)
    alone = NeighborRouter(1).fit(X[[0, 30]], names[[0, 30]])
    np.testing.assert_array_equal(spread.labels_, names)
    assert np.mean(spread.predict(X) == names) > np.mean(alone.predict(X) == names)
