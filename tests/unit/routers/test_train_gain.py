"""Training as a whole on drawn tables: gains that are there are found, and no others."""

from dataclasses import replace

import numpy as np
import pytest

from coe.routers.train import train

SPECIALISTS = [[0.9, 0.2, 0.5], [0.2, 0.9, 0.5], [0.5, 0.5, 0.8]]
EQUALS = [[0.5, 0.5, 0.4]] * 3
N_SEEDS = 10


def quality_of(artefact, X):
    """Expected quality (n, n_experts) of prompts."""
    return artefact.expectation.of(X, artefact.category.assess(X)).quality


def everywhere(drawn):
    """The prompts of the table, and strangers."""
    strangers = np.random.default_rng(9).normal(size=(40, drawn.X.shape[1]))
    return np.vstack([drawn.X, strangers, np.zeros((1, drawn.X.shape[1]))]).astype(np.float32)


def dev_gain(artefact):
    """What routing gained on the dev rows over the expert that was best on the train rows."""
    single = artefact.training["held_out"]["best_single"]
    return artefact.metrics["score_routed"] - artefact.metrics["score_single"][single]


def assert_no_gain(gains):
    """A mean within three standard errors of 0."""
    gains = np.array(gains)
    assert abs(gains.mean()) <= 3 * gains.std(ddof=1) / np.sqrt(gains.size) + 1e-9


@pytest.fixture(scope="module")
def learn(draw_outcomes):
    """Draw a table, change it, train on it."""

    def of(right, seed, change=lambda rows, rng: rows):
        drawn = draw_outcomes(right, seed=seed, n_train=120)
        rows = change(drawn.outcomes, np.random.default_rng(1000 + seed))
        return drawn, train(rows, drawn.embedder)

    return of


def shuffled_scores(rows, rng):
    return replace(rows, scores=rng.permutation(rows.scores))


@pytest.fixture(scope="module")
def nothing_to_learn(learn):
    """Tables whose scores have nothing to do with their prompts."""
    return [learn(SPECIALISTS, seed, shuffled_scores) for seed in range(N_SEEDS)]


@pytest.fixture(scope="module")
def no_specialists(learn):
    """Tables of experts of which none is better than another on anything but by chance."""
    return [learn(EQUALS, seed) for seed in range(N_SEEDS)]


@pytest.mark.parametrize("seed", range(3))
def test_specialists_are_found(learn, seed):
    drawn, artefact = learn(SPECIALISTS, seed)
    report = artefact.training["held_out"]
    assert not report["declined"]
    assert report["gain"] > 2 * report["gain_se"]
    assert dev_gain(artefact) > 0.1
    centres = np.eye(8, dtype=np.float32)[:3]
    assert quality_of(artefact, centres).argmax(axis=1).tolist() == [0, 1, 2]
    if report["routed_by"] == "category":
        assert artefact.metrics["category_accuracy"] > 0.9
    assert artefact.metrics["calibration_error"] < 0.2
    assert len(artefact.canaries) > 0
    artefact.check_canaries(drawn.embedder)


def test_shuffled_scores_leave_nothing_to_gain(nothing_to_learn):
    assert_no_gain([dev_gain(artefact) for _, artefact in nothing_to_learn])
    reports = [artefact.training["held_out"] for _, artefact in nothing_to_learn]
    claimed = np.array([report["gain"] for report in reports])
    assert claimed.mean() <= 3 * claimed.std(ddof=1) / np.sqrt(claimed.size)
    # now and then chance looks like a gain of one standard error, seldom like one of three
    assert np.mean([report["gain"] > 3 * report["gain_se"] > 0 for report in reports]) < 0.2


def test_experts_that_are_equally_good_leave_nothing_to_gain(no_specialists):
    assert_no_gain([dev_gain(artefact) for _, artefact in no_specialists])


def test_a_router_that_declines_asks_the_best_single_expert_whatever_the_prompt(
    nothing_to_learn, no_specialists
):
    declined = [
        (drawn, artefact)
        for drawn, artefact in nothing_to_learn + no_specialists
        if artefact.training["held_out"]["declined"]
    ]
    assert len(declined) > N_SEEDS / 2
    vary = []
    for drawn, artefact in declined:
        single = drawn.outcomes.expert_ids.index(artefact.training["held_out"]["best_single"])
        assert artefact.expectation.incumbent == single
        found = quality_of(artefact, everywhere(drawn))
        assert np.all(found.argmax(axis=1) == single)
        others = np.delete(found, single, axis=1)
        assert np.all((others >= 0) & (others < found[:, [single]]))
        assert dev_gain(artefact) == pytest.approx(0.0, abs=1e-4)
        vary.append(bool(np.all(np.ptp(others, axis=0) > 1e-3)))
    # what the others are expected to do still depends on the prompt
    assert np.mean(vary) > 0.9


def test_what_does_not_decline_claims_a_gain(nothing_to_learn, no_specialists):
    for _, artefact in nothing_to_learn + no_specialists:
        report = artefact.training["held_out"]
        assert report["declined"] == (report["gain"] < report["gain_se"])
        assert (artefact.expectation.incumbent is None) == (not report["declined"])


def test_labels_that_are_noise_are_not_routed_by(learn):
    def shuffled(rows, rng):
        return replace(rows, categories=rng.permutation(rows.categories))

    for seed in range(3):
        _, artefact = learn(SPECIALISTS, seed, shuffled)
        report = artefact.training["held_out"]
        # clusters and the embedding find what the labels do not say
        assert report["routed_by"] != "category"
        assert dev_gain(artefact) > 0.1


def test_labels_and_scores_that_are_noise_leave_nothing_to_gain(learn):
    def shuffled(rows, rng):
        rows = replace(rows, categories=rng.permutation(rows.categories))
        return shuffled_scores(rows, rng)

    assert_no_gain([dev_gain(learn(SPECIALISTS, seed, shuffled)[1]) for seed in range(N_SEEDS)])


def test_identical_experts_gain_exactly_nothing(learn):
    def copies(rows, rng):
        return replace(rows, scores=np.repeat(rows.scores[:, [0]], 3, axis=1))

    for seed in range(3):
        drawn, artefact = learn(SPECIALISTS, seed, copies)
        report = artefact.training["held_out"]
        assert (report["gain"], report["gain_se"], report["declined"]) == (0.0, 0.0, False)
        assert dev_gain(artefact) == 0.0
        assert np.ptp(quality_of(artefact, drawn.X), axis=1).max() < 1e-6


def test_a_dominated_expert_is_never_chosen(learn):
    def overshadowed(rows, rng):
        # half as good as the second on every prompt, and in the first column, where ties would go
        return replace(rows, scores=np.column_stack([0.5 * rows.scores[:, 1], rows.scores[:, 1:]]))

    for seed in range(4):
        drawn, artefact = learn(SPECIALISTS, seed, overshadowed)
        chosen = quality_of(artefact, everywhere(drawn)).argmax(axis=1)
        assert 0 not in chosen


def test_the_order_of_the_experts_does_not_matter(draw_outcomes):
    drawn = draw_outcomes(SPECIALISTS, seed=5)
    rows = drawn.outcomes
    turned = replace(rows, scores=rows.scores[:, ::-1], expert_ids=rows.expert_ids[::-1])
    one, other = train(rows, drawn.embedder), train(turned, drawn.embedder)
    np.testing.assert_allclose(
        quality_of(one, drawn.X), quality_of(other, drawn.X)[:, ::-1], atol=1e-4
    )
    assert one.metrics["score_single"] == other.metrics["score_single"]


def test_an_expert_for_everything_is_always_asked(learn):
    for seed in range(3):
        drawn, artefact = learn([[0.95, 0.3], [0.9, 0.2], [0.9, 0.4]], seed)
        assert np.all(quality_of(artefact, drawn.X).argmax(axis=1) == 0)
        assert dev_gain(artefact) == 0.0


def test_a_third_of_the_scores_missing_does_not_hide_specialists(learn):
    def holes(rows, rng):
        missing = (rng.random(rows.scores.shape) < 0.3) & (rows.splits == "train")[:, None]
        return replace(rows, scores=np.where(missing, np.nan, rows.scores))

    for seed in range(3):
        assert dev_gain(learn(SPECIALISTS, seed, holes)[1]) > 0.1


def test_one_expert_is_routed_to(learn):
    _, artefact = learn([[0.9], [0.1]], 0)
    assert dev_gain(artefact) == artefact.training["held_out"]["gain"] == 0.0


def test_dev_prompts_that_repeat_train_prompts_change_nothing_but_the_figures(draw_outcomes):
    drawn = draw_outcomes(SPECIALISTS)
    n_train = int(np.sum(drawn.outcomes.splits == "train"))
    copies = replace(
        drawn.outcomes,
        prompts=drawn.outcomes.prompts[:n_train] + drawn.outcomes.prompts[: len(drawn.X) - n_train],
    )
    one, other = train(drawn.outcomes, drawn.embedder), train(copies, drawn.embedder)
    np.testing.assert_array_equal(one.expectation.table.quality, other.expectation.table.quality)
    np.testing.assert_array_equal(one.category.coef_, other.category.coef_)


def test_tasks_finer_than_categories_are_routed_by_where_they_tell_more(draw_outcomes):
    # four tasks in two categories; who is right is a matter of the task
    drawn = draw_outcomes([[0.95, 0.05], [0.05, 0.95], [0.95, 0.05], [0.05, 0.95]])
    rows = drawn.outcomes
    wide = np.where(np.isin(rows.categories, ["c0", "c1"]), "left", "right")
    artefact = train(replace(rows, tasks=rows.categories, categories=wide), drawn.embedder)
    report = artefact.training["held_out"]
    assert report["gain_by_scheme"].keys() == {
        "category",
        "source_task",
        "k-means",
        "least-squares",
    }
    assert report["routed_by"] != "category"
    assert dev_gain(artefact) > 0.3


def test_a_task_named_general_can_be_routed_by(draw_outcomes):
    drawn = draw_outcomes([[0.95, 0.05], [0.05, 0.95], [0.5, 0.5]])
    rows = drawn.outcomes
    tasks = np.where(rows.categories == "c2", "general", rows.categories)
    # too few prompts for clusters, so that tasks are what there is
    few = rows.rows((np.arange(len(tasks)) % 4 == 0) | (rows.splits == "dev"))
    few = replace(few, tasks=tasks[[int(name[1:]) for name in few.prompt_ids]])
    artefact = train(replace(few, categories=np.full(len(few.tasks), "")), drawn.embedder)
    assert artefact.training["held_out"]["routed_by"] == "source_task"
    assert artefact.expectation.categories == ("c0", "c1", "general")
    assert dev_gain(artefact) > 0.0
