"""Folds by content: the same prompt never stands on both sides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.routers.folds import content_folds

# among them halves of surrogate pairs, which no UTF-8 has
texts = st.text(st.characters(exclude_categories=()), max_size=5)


@given(st.lists(texts, max_size=12), st.integers(1, 7), st.integers(0, 2**64 - 1), st.randoms())
def test_a_fold_is_a_matter_of_the_text_alone(prompts, n_folds, seed, random):
    folds = content_folds(prompts, n_folds, seed)
    assert folds.shape == (len(prompts),)
    assert np.all((folds >= 0) & (folds < n_folds))
    of = dict(zip(prompts, folds.tolist(), strict=True))
    others = random.sample(prompts * 2, len(prompts))
    assert content_folds(others, n_folds, seed).tolist() == [of[prompt] for prompt in others]


def test_halves_of_surrogate_pairs_are_texts_like_any():
    folds = content_folds([chr(0xD800 + k) for k in range(100)], 5)
    assert set(folds.tolist()) == set(range(5))


@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_folds_are_of_equal_size_but_for_chance(n_folds):
    n = 3000
    sizes = np.bincount(content_folds([f"What is {k}?" for k in range(n)], n_folds))
    deviation = np.sqrt(n * (1 / n_folds) * (1 - 1 / n_folds))
    assert sizes.size == n_folds
    assert np.all(np.abs(sizes - n / n_folds) < 4 * deviation)


def test_another_seed_folds_otherwise_and_independently():
    prompts = [f"What is {k}?" for k in range(3000)]
    one, other = content_folds(prompts, 3, seed=0), content_folds(prompts, 3, seed=1)
    # equal by chance for a third of the prompts
    assert abs(np.mean(one == other) - 1 / 3) < 0.04


def test_no_prompts_have_no_folds():
    assert content_folds([], 5).shape == (0,)
