"""How sure an expert is of its own words, beside how sure it usually is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.routers.habit import Habit, learned_habits, sureness

LOGPROBS = st.lists(st.floats(-20.0, 0.0), min_size=20, max_size=40)


@given(LOGPROBS)
def test_a_habit_makes_experts_alike(found):
    column = np.array(found)
    habits = learned_habits(column[:, None], ["a"])
    if not habits:
        assert np.ptp(column) < 1e-4
        return
    sure = (column - habits["a"].mean) / habits["a"].spread
    assert sure.mean() == pytest.approx(0.0, abs=1e-6)
    assert sure.std() == pytest.approx(1.0)
    np.testing.assert_allclose(habits["a"].sureness(column), np.clip(sure, -3.0, 3.0))


@given(st.floats(-20.0, 0.0), st.floats(-20.0, 0.0))
def test_likelier_words_are_surer(one, other):
    low, high = Habit(-1.0, 0.5).sureness(np.array(sorted([one, other])))
    assert -3.0 <= low <= high <= 3.0


def test_a_habit_needs_twenty_answers_that_differ():
    rng = np.random.default_rng(0)
    columns = -rng.random((30, 4))
    columns[:11, 1] = np.nan
    columns[:, 2] = np.nan
    columns[:, 3] = -0.5
    assert learned_habits(columns, "abcd").keys() == {"a"}
    columns[10, 1] = -0.3
    assert learned_habits(columns, "abcd").keys() == {"a", "b"}


def test_where_nothing_is_known_sureness_is_neutral():
    found = sureness(np.array([[np.nan, -0.5], [-1.0, -0.5]]), ("a", "b"), {"a": Habit(-0.5, 0.5)})
    np.testing.assert_allclose(found, [[0.0, 0.0], [-1.0, 0.0]])
