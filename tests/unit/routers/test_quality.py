"""The category-to-expert table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.routers.quality import QualityTable

NAN = np.nan
CATEGORIES = np.array(["maths", "code", "maths", "code"])
# the second expert is not known on the last prompt
SCORES = np.array([[1.0, 0.0], [0.5, 1.0], [0.0, 1.0], [0.5, NAN]])
TOKENS = np.array([[10.0, NAN], [20.0, NAN], [30.0, NAN], [40.0, NAN]])


def table(scores=SCORES, tokens=TOKENS, categories=CATEGORIES, **options):
    experts = tuple("abc"[: scores.shape[1]])
    return QualityTable.fit(categories, experts, scores, tokens, **options)


def test_rows_are_the_sorted_categories_and_last_the_general_one():
    assert table().categories == ("code", "maths", "general")
    assert table().expert_ids == ("a", "b")
    for name in ("quality", "quality_se", "mean_tokens", "cautious_tokens"):
        assert getattr(table(), name).shape == (3, 2)


def test_without_shrinkage_the_table_holds_the_means():
    # shrinkage by a prompt's thousandth is next to none
    found = table(shrinkage=0.001).quality
    np.testing.assert_allclose(found, [[0.5, 1.0], [0.5, 0.5], [0.5, 2 / 3]], atol=1e-3)


def test_means_are_shrunk_towards_the_expert_s_overall_mean():
    # "b": overall 2/3; code: one score, 1; maths: two scores, 0 and 1
    found = table(shrinkage=2.0).quality[:, 1]
    code = (1 + 2 * 2 / 3) / (1 + 2)
    maths = (1 + 2 * 2 / 3) / (2 + 2)
    general = (2 + 2 * 2 / 3) / (3 + 2)
    np.testing.assert_allclose(found, [code, maths, general])


# a task's parent is its category; "poems" has none
TASKS = np.array(["algebra", "algebra", "sets", "sets", "sets", "poems"])
TASK_SCORES = np.array([[1.0], [1.0], [0.0], [0.5], [0.0], [0.2]])
PARENTS = {"algebra": "maths", "sets": "maths"}


def test_a_category_with_a_parent_is_shrunk_towards_the_parent_s_row():
    tokens = np.full_like(TASK_SCORES, 5.0)
    found = table(TASK_SCORES, tokens, TASKS, shrinkage=2.0, parents=PARENTS).quality[:, 0]
    overall = TASK_SCORES.mean()
    maths = (2.5 + 2 * overall) / (5 + 2)
    algebra, sets = (2.0 + 2 * maths) / (2 + 2), (0.5 + 2 * maths) / (3 + 2)
    poems = (0.2 + 2 * overall) / (1 + 2)
    np.testing.assert_allclose(found, [algebra, poems, sets, overall])


def test_parents_are_no_rows_and_change_no_lengths():
    tokens = np.arange(6.0)[:, None]
    plain = table(TASK_SCORES, tokens, TASKS)
    found = table(TASK_SCORES, tokens, TASKS, parents=PARENTS)
    assert found.categories == plain.categories == ("algebra", "poems", "sets", "general")
    np.testing.assert_array_equal(found.mean_tokens, plain.mean_tokens)
    for parents in (None, {}, {"elsewhere": "nowhere"}):
        np.testing.assert_array_equal(
            table(TASK_SCORES, tokens, TASKS, parents=parents).quality, plain.quality
        )


def test_an_expert_without_a_score_in_a_task_has_the_parent_s_mean_there():
    scores = np.array([[NAN], [NAN], [0.0], [0.0], [0.0], [1.0]])
    tokens = np.full_like(scores, 5.0)
    found = table(scores, tokens, TASKS, shrinkage=1.0, parents=PARENTS).quality[:, 0]
    # overall 1/4; maths: three scores of 0 and one prompt at the overall mean
    assert found[0] == pytest.approx(0.25 / 4)


def test_the_standard_error_is_that_of_a_share_of_as_many_prompts():
    found = table(shrinkage=2.0)
    mean = found.quality[1, 1]
    assert found.quality_se[1, 1] == pytest.approx(np.sqrt(mean * (1 - mean) / (2 + 2)))


def test_an_expert_without_a_score_in_a_category_has_its_overall_mean_there():
    scores = np.array([[NAN], [1.0], [NAN], [0.5]])
    np.testing.assert_allclose(table(scores, TOKENS[:, :1]).quality[:, 0], 0.75)


def test_prompts_without_a_category_count_only_in_the_general_row():
    categories = np.array(["maths", "code", "", ""])
    found = table(SCORES[:, :1], TOKENS[:, :1], categories, shrinkage=0.001)
    assert found.categories == ("code", "maths", "general")
    np.testing.assert_allclose(found.quality[:, 0], [0.5, 1.0, 0.5], atol=1e-3)
    np.testing.assert_allclose(found.mean_tokens[:, 0], [20.0, 10.0, 25.0])


def test_prompts_of_the_category_general_count_only_in_the_general_row():
    named = np.array(["maths", "code", "general", "general"])
    unnamed = np.where(named == "general", "", named)
    found, other = table(categories=named), table(categories=unnamed)
    assert found.categories == ("code", "maths", "general")
    np.testing.assert_array_equal(found.quality, other.quality)


def test_cautious_lengths_are_a_quantile_of_the_known_ones():
    found = table(quantile=0.5)
    np.testing.assert_allclose(found.cautious_tokens[:, 0], [30.0, 20.0, 25.0])
    assert np.all(table(quantile=0.9).cautious_tokens[:, 0] > found.cautious_tokens[:, 0])


def test_lengths_are_the_mean_of_the_known_ones():
    tokens = np.array([[10.0], [20.0], [NAN], [60.0]])
    np.testing.assert_allclose(table(SCORES[:, :1], tokens).mean_tokens[:, 0], [40, 10, 30])


def test_an_expert_of_unknown_lengths_is_taken_to_answer_in_256_tokens():
    np.testing.assert_array_equal(table().mean_tokens[:, 1], 256.0)
    np.testing.assert_array_equal(table().cautious_tokens[:, 1], 256.0)


def test_the_expected_quality_is_the_mixture_of_the_category_rows():
    t = table()
    found = t.expected(np.array([[0.25, 0.75]]), np.array([False]))
    np.testing.assert_allclose(found.quality[0], 0.25 * t.quality[0] + 0.75 * t.quality[1])
    for name in ("mean_tokens", "cautious_tokens"):
        rows = getattr(t, name)
        np.testing.assert_allclose(getattr(found, name)[0], 0.25 * rows[0] + 0.75 * rows[1])
    # the variance of a weighted sum of independent means
    variance = (0.25 * t.quality_se[0]) ** 2 + (0.75 * t.quality_se[1]) ** 2
    np.testing.assert_allclose(found.quality_se[0] ** 2, variance)


def test_a_certain_category_is_its_own_row():
    t = table()
    np.testing.assert_array_equal(
        t.expected(np.array([[0.0, 1.0]]), np.array([False])).quality[0], t.quality[1]
    )


def test_an_uncertain_prompt_gets_the_general_row_whatever_its_probabilities():
    t = table()
    found = t.expected(np.array([[0.0, 1.0]]), np.array([True]))
    for name in ("quality", "quality_se", "mean_tokens", "cautious_tokens"):
        np.testing.assert_array_equal(getattr(found, name)[0], getattr(t, name)[2])


scores = arrays(np.float64, (6, 2), elements=st.just(NAN) | st.floats(0, 1)).map(
    lambda found: np.vstack([found, [[0.5, 0.25]]])
)


@given(scores, st.floats(0.1, 100))
def test_every_figure_lies_between_the_worst_and_the_best_score(scores, shrinkage):
    categories = np.array(["x", "y", "z"] * 2 + ["x"])
    tokens = np.full_like(scores, 5.0)
    found = table(scores, tokens, categories, shrinkage=shrinkage).quality
    assert np.all(found >= np.nanmin(scores, axis=0) - 1e-12)
    assert np.all(found <= np.nanmax(scores, axis=0) + 1e-12)


@given(scores, st.permutations(range(7)))
def test_neither_the_order_of_prompts_nor_that_of_experts_matters(scores, order):
    categories = np.array(["x", "y", "z"] * 2 + ["x"])
    tokens = np.arange(14.0).reshape(7, 2)
    one = table(scores, tokens, categories)
    other = table(scores[order][:, ::-1], tokens[order][:, ::-1], categories[order])
    np.testing.assert_allclose(one.quality, other.quality[:, ::-1])
    np.testing.assert_allclose(one.cautious_tokens, other.cautious_tokens[:, ::-1])
