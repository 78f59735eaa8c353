"""Learning what to expect of each expert, judged on prompts that were held out."""

import numpy as np
import pytest

from coe.routers.category import LogisticRouter
from coe.routers.category_training import Scheme, held_out
from coe.routers.folds import content_folds
from coe.routers.quality_training import (
    Gain,
    Trial,
    best,
    contrast_error,
    fit_expectation,
    held_out_lengths,
    routing_gain,
    trials,
)
from coe.routers.ridge import FoldedRidge

NAN = np.nan
SPECIALISTS = [[0.9, 0.2], [0.2, 0.9], [0.6, 0.6]]
EQUALS = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]


class Case:
    """A table with one scheme over it, and what cross-validation needs."""

    def __init__(self, drawn, labels=None, scores=None, parents=None, tokens=None):
        rows = drawn.outcomes
        self.rows, self.X = rows, drawn.X
        self.scores = rows.scores if scores is None else scores
        self.scheme = Scheme(
            "category", rows.categories if labels is None else labels, parents or {}
        )
        self.fold = content_folds(rows.prompts, 5)
        self.ridge = FoldedRidge.of(self.X, self.fold)
        classes = np.unique(self.scheme.labels)
        self.probabilities = held_out(
            LogisticRouter(), self.scheme.labels, self.X, self.fold, classes
        )
        self.single = int(np.nanmean(self.scores, axis=0).argmax())

    def trials(self):
        return trials(self.scheme, self.probabilities, self.scores, self.ridge, self.single)

    def expectation(self, trial):
        return fit_expectation(trial, self.probabilities, self.rows, self.ridge, self.single)


@pytest.fixture(scope="module")
def case(draw_outcomes):
    def of(right=SPECIALISTS, seed=0, **options):
        return Case(draw_outcomes(right, seed=seed, n_train=160, n_dev=0), **options)

    return of


def plain(found):
    """The trial of the table alone, lightly shrunk."""
    return next(trial for trial in found if trial.penalty is None)


def significance(gains):
    """By how many standard errors the mean gain over seeds differs from 0."""
    gains = np.array(gains)
    return gains.mean() / max(gains.std(ddof=1) / np.sqrt(gains.size), 1e-9)


# ---- how trials are judged


def test_forecasts_that_come_true_have_no_contrast_error():
    scores = np.array([[0.2, 0.9], [1.0, 0.0]])
    assert contrast_error(scores, scores) == 0.0


def test_how_hard_a_prompt_is_counts_for_nothing():
    rng = np.random.default_rng(0)
    quality, scores = rng.random((30, 3)), rng.random((30, 3))
    scores[rng.random(scores.shape) < 0.3] = NAN
    hardness = rng.normal(size=(30, 1))
    found = contrast_error(quality, scores)
    assert contrast_error(quality + hardness, scores) == pytest.approx(found)
    assert contrast_error(quality, scores + hardness) == pytest.approx(found)
    assert contrast_error(quality[:, ::-1], scores[:, ::-1]) == pytest.approx(found)
    assert contrast_error(quality[::-1], scores[::-1]) == pytest.approx(found)


def test_who_does_better_on_a_prompt_counts():
    scores = np.array([[1.0, 0.0]])
    # each of the two is off by half the difference that was missed
    assert contrast_error(np.array([[0.5, 0.5]]), scores) == pytest.approx(0.25)
    assert contrast_error(np.array([[0.0, 1.0]]), scores) == pytest.approx(1.0)


def test_a_prompt_with_one_known_score_says_nothing_of_contrast():
    quality = np.array([[0.9, 0.1], [0.3, 0.3]])
    assert contrast_error(quality, np.array([[0.0, NAN], [NAN, 1.0]])) == 0.0
    assert contrast_error(quality, np.full((2, 2), NAN)) == 0.0
    assert contrast_error(np.zeros((0, 2)), np.zeros((0, 2))) == 0.0
    assert contrast_error(quality[:, :1], np.array([[0.0], [1.0]])) == 0.0


def test_the_gain_is_what_the_routed_expert_scores_beyond_the_single():
    quality = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]])
    scores = np.array([[1.0, 0.0], [0.5, 1.0], [0.0, 1.0], [1.0, 0.0]])
    gain = routing_gain(quality, scores, 0)
    assert gain.mean == pytest.approx((0 + 0.5 + 0 - 1) / 4)
    assert gain.se == pytest.approx(np.std([0, 0.5, 0, -1]) / 2)
    assert gain.cautious == pytest.approx(gain.mean - gain.se)
    assert routing_gain(quality, scores, 1).mean == pytest.approx((1 + 0 - 1 + 0) / 4)


@pytest.mark.parametrize("single", [0, 1, 2])
def test_ties_go_to_the_single_expert(single):
    scores = np.random.default_rng(0).random((20, 3))
    assert routing_gain(np.full((20, 3), 0.5), scores, single) == Gain(0.0, 0.0)


def test_of_others_that_tie_the_first_is_asked():
    quality, scores = np.array([[0.7, 0.7, 0.1]]), np.array([[0.2, 0.4, 0.1]])
    assert routing_gain(quality, scores, 2).mean == pytest.approx(0.2 - 0.1)


def test_prompts_of_unknown_gain_are_left_out():
    quality = np.array([[0.9, 0.1]] * 3)
    scores = np.array([[1.0, 0.0], [NAN, 0.0], [1.0, NAN]])
    assert routing_gain(quality, scores, 1).mean == 1.0
    assert routing_gain(quality[1:], scores[1:], 1) == Gain(0.0, 0.0)
    assert routing_gain(quality[:0], scores[:0], 1) == Gain(0.0, 0.0)


# ---- trials


def test_specialists_are_found(case):
    specialists = case()
    winner = best(specialists.trials())
    assert winner.gain.mean > 3 * winner.gain.se > 0
    assert winner.contrast_error < contrast_error(np.full((160, 2), 0.5), specialists.scores)
    expectation = specialists.expectation(winner)
    assert expectation.incumbent is None
    table = expectation.table.quality
    assert table[0, 0] > table[0, 1]
    assert table[1, 0] < table[1, 1]


def test_no_prompt_is_expected_to_score_what_it_did_because_it_did(case):
    before = case()
    mine = before.fold == 2
    turned = case(scores=np.where(mine[:, None], 1 - before.scores, before.scores))
    turned.single = before.single
    change = (turned.scores - before.scores)[mine]
    for old, new in zip(before.trials(), turned.trials(), strict=True):
        shift = new.quality[mine] - old.quality[mine]
        if old.penalty is None:
            np.testing.assert_array_equal(shift, 0.0)
        # the residuals of other folds are taken about tables that saw this one: what it scored
        # comes back with the opposite sign, so that a gain is understated if anything
        assert np.mean(shift * change) <= 0
        assert not np.allclose(new.quality[~mine], old.quality[~mine], atol=1e-3)


def test_every_way_expects_scores_between_0_and_1_and_the_plainest_is_first(case):
    specialists = case()
    found = specialists.trials()
    ways = [(trial.shrinkage, trial.penalty) for trial in found]
    assert len(set(ways)) == len(ways) > 4
    assert found[0].penalty is None
    for trial in found:
        assert trial.quality.shape == (160, 2)
        assert np.all((trial.quality >= 0) & (trial.quality <= 1))
        assert trial.gain == routing_gain(trial.quality, specialists.scores, specialists.single)


def test_of_equal_trials_the_plainest_wins(case):
    scheme = case().scheme
    found = [
        Trial(scheme, shrinkage, None, np.zeros((0, 2)), np.zeros((0, 2)), error, Gain(0.0, 0.0))
        for shrinkage, error in ((1.0, 0.2), (2.0, 0.1), (3.0, 0.1))
    ]
    assert best(found) is found[1]


def test_shuffled_labels_erase_the_gain_of_the_table(case):
    gains = []
    for seed in range(10):
        honest = case(seed=seed)
        labels = np.random.default_rng(seed).permutation(honest.scheme.labels)
        gains.append(plain(case(seed=seed, labels=labels).trials()).gain.mean)
    assert abs(significance(gains)) < 3
    assert abs(np.mean(gains)) < 0.03 < plain(honest.trials()).gain.mean / 3


def test_shuffled_scores_erase_every_gain(case):
    gains = []
    for seed in range(10):
        scores = np.random.default_rng(seed).permutation(case(seed=seed).scores)
        gains.append(best(case(seed=seed, scores=scores).trials()).gain.mean)
    assert significance(gains) < 3
    assert abs(np.mean(gains)) < 0.03


def test_identical_experts_gain_exactly_nothing(case):
    copies = np.repeat(case().scores[:, [0]], 3, axis=1)
    for trial in case(scores=copies).trials():
        assert trial.gain == Gain(0.0, 0.0)
        assert trial.contrast_error == pytest.approx(0.0, abs=1e-9)


def test_a_dominated_expert_is_never_expected_to_be_ahead(case):
    for seed in range(3):
        scores = case(seed=seed).scores
        # behind the last on every prompt, and in the first column, where ties would go
        behind = np.hstack([0.6 * scores[:, [1]], scores])
        for trial in case(seed=seed, scores=behind).trials():
            assert np.all(trial.quality[:, 0] <= trial.quality[:, 2])


def test_unknown_scores_do_not_mislead(case):
    scores = case().scores.copy()
    scores[np.random.default_rng(0).random(scores.shape) < 0.3] = NAN
    winner = best(case(scores=scores).trials())
    assert winner.gain.mean > 2 * winner.gain.se > 0
    assert np.isfinite(winner.quality).all()


def test_an_expert_known_in_one_fold_alone_has_its_own_mean(case):
    honest = case()
    scores = honest.scores.copy()
    scores[honest.fold != 1, 0] = NAN
    for trial in case(scores=scores).trials():
        assert np.isfinite(trial.quality).all()


def test_a_task_borrows_from_its_category(case):
    specialists = case()
    category, rare = specialists.scheme.labels, np.arange(160) % 20 == 0
    # of each category a task with a handful of prompts
    tasks = np.char.add(category, np.where(rare, "-rare", "-common"))
    parents = {name: name[:2] for name in set(tasks.tolist())}
    borrowed, alone = (plain(case(labels=tasks, parents=p).trials()) for p in (parents, None))
    assert borrowed.contrast_error < alone.contrast_error


# ---- what is learned in the end


@pytest.mark.parametrize(("mean", "se"), [(-0.02, 0.01), (0.01, 0.02), (0.0, 0.01)])
def test_without_a_cautious_gain_the_router_declines(case, mean, se):
    learner = case()
    trial = plain(learner.trials())
    unsure = Trial(trial.scheme, 20.0, None, trial.table, trial.quality, 0.1, Gain(mean, se))
    assert learner.expectation(unsure).incumbent == learner.single


@pytest.mark.parametrize(("mean", "se"), [(0.02, 0.01), (0.02, 0.02), (0.0, 0.0)])
def test_with_one_it_routes(case, mean, se):
    learner = case()
    trial = plain(learner.trials())
    sure = Trial(trial.scheme, 20.0, None, trial.table, trial.quality, 0.1, Gain(mean, se))
    assert learner.expectation(sure).incumbent is None


def test_the_embedding_refines_only_where_it_was_tried_with(case):
    specialists = case()
    for trial in specialists.trials():
        learned = specialists.expectation(trial)
        assert (learned.residual is None) == (trial.penalty is None)
        if learned.residual is not None:
            assert learned.residual.penalty == trial.penalty
            errors = specialists.scores - trial.quality
            np.testing.assert_allclose(learned.residual.noise, np.sqrt((errors**2).mean(axis=0)))


def test_the_embedding_finds_what_categories_hide(draw_outcomes):
    # one category; who is right hangs on a feature
    drawn = draw_outcomes([[0.5, 0.5]], n_train=160, n_dev=0, spread=2.0)
    first = drawn.X[:, 1] > 0
    scores = np.column_stack([first, ~first]).astype(float)
    hidden = Case(drawn, scores=scores)
    found = hidden.trials()
    assert plain(found).gain.mean == pytest.approx(0.0, abs=0.05)
    assert best(found).penalty is not None
    assert best(found).gain.mean > 0.3


def with_tokens(draw_outcomes, tokens_of):
    drawn = draw_outcomes(SPECIALISTS, n_train=160, n_dev=0)
    drawn.outcomes.tokens[:] = tokens_of(drawn.X)
    case = Case(drawn)
    return case, case.expectation(plain(case.trials()))


def test_lengths_that_hang_on_the_embedding_are_learned(draw_outcomes):
    def tokens_of(X):
        return 100 * np.exp(3 * X[:, [4, 5]])

    case, learned = with_tokens(draw_outcomes, tokens_of)
    assert learned.lengths is not None
    ratio = learned.lengths.ratio(case.X)
    assert np.all(ratio > 0)
    assert np.corrcoef(np.log(ratio[:, 0]), case.X[:, 4])[0, 1] > 0.9
    assert np.all(learned.lengths.cautious_scale >= learned.lengths.mean_scale)


@pytest.mark.parametrize(
    "tokens_of",
    [
        lambda X: np.full((len(X), 2), 40.0),
        lambda X: np.zeros((len(X), 2)),
        lambda X: np.random.default_rng(0).integers(20, 400, (len(X), 2)),
        lambda X: np.column_stack([np.exp(3 * X[:, 4]), np.full(len(X), NAN)]),
        lambda X: np.full((len(X), 2), NAN),
    ],
    ids=["constant", "zero", "noise", "one expert unknown", "unknown"],
)
def test_lengths_that_do_not_are_left_to_the_table(draw_outcomes, tokens_of):
    _, learned = with_tokens(draw_outcomes, tokens_of)
    assert learned.lengths is None
    assert np.isfinite(learned.table.mean_tokens).all()


def test_nine_of_ten_answers_are_no_longer_than_the_cautious_length(draw_outcomes):
    def tokens_of(X):
        noise = np.random.default_rng(1).lognormal(0, 0.5, (len(X), 2))
        return 100 * np.exp(3 * X[:, [4, 5]]) * noise

    case, learned = with_tokens(draw_outcomes, tokens_of)
    base = case.probabilities @ learned.table.mean_tokens[:-1]
    cautious = base * learned.lengths.ratio(case.X) * learned.lengths.cautious_scale
    assert np.mean(case.rows.tokens <= cautious) == pytest.approx(0.9, abs=0.05)


def test_held_out_lengths_are_expected_by_fits_that_had_not_seen_them(draw_outcomes):
    def tokens_of(X):
        noise = np.random.default_rng(1).lognormal(0, 0.5, (len(X), 2))
        return 100 * np.exp(3 * X[:, [4, 5]]) * noise

    case, learned = with_tokens(draw_outcomes, tokens_of)
    tokens = case.rows.tokens
    found = held_out_lengths(learned, case.probabilities, tokens, case.ridge)
    base = case.probabilities @ learned.table.mean_tokens[:-1]
    seen = base * learned.lengths.ratio(case.X) * learned.lengths.mean_scale

    def error(expected):
        return np.abs(np.log(tokens / expected)).mean()

    assert error(seen) < error(found) < error(base)
    # what one prompt's own answers were does not enter its own expectation, but for the table's
    mine = case.ridge.fold == 0
    changed = np.where(mine[:, None], tokens[::-1], tokens)
    again = held_out_lengths(learned, case.probabilities, changed, case.ridge)
    np.testing.assert_allclose(again[mine], found[mine], rtol=1e-6)


def test_held_out_lengths_are_the_table_s_where_nothing_refines_them(draw_outcomes):
    case, learned = with_tokens(draw_outcomes, lambda X: np.full((len(X), 2), 40.0))
    found = held_out_lengths(learned, case.probabilities, case.rows.tokens, case.ridge)
    np.testing.assert_allclose(found, 40.0)
