"""Branch, reduce and bound: small cases by hand, and pools too large to enumerate."""

from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer.branch import branch
from coe.optimizer.footprint import fits
from coe.optimizer.problem import Memory, Problem
from coe.optimizer.value import over_traffic, value_of


def never():
    return False


def at_once():
    return True


def problem(quality, energy_j, **rest):
    """One row of quality per category; the same energy in each, at 20 W."""
    quality = np.array(quality, dtype=float)
    energy = np.tile(np.array(energy_j, dtype=float), (len(quality), 1))
    rest = {"aggregation": "best", "shares": np.full(len(quality), 1 / len(quality))} | rest
    return Problem(
        energy_j=energy, latency_ms=np.maximum(50 * energy, 1.0), quality=quality, **rest
    )


def large(seed, aggregation="best", n_experts=40, share=0.15):
    rng = np.random.default_rng(seed)
    energy_j = rng.uniform(2, 60, n_experts)
    return problem(
        rng.uniform(size=(5, n_experts)),
        energy_j,
        aggregation=aggregation,
        max_energy_j=share * float(energy_j.sum()),
    )


def chosen(found):
    assert np.all(found.members == found.members[0])
    return np.flatnonzero(found.members[0]).tolist()


TWO_SPECIALISTS = problem([[0.9, 0.1, 0.6], [0.1, 0.9, 0.6]], [10, 10, 12], max_energy_j=20.0)


def test_specialists_who_fit_together_beat_the_generalist():
    found = branch(TWO_SPECIALISTS, never)
    assert chosen(found) == [0, 1]
    assert found.upper == pytest.approx(0.9)


def test_a_ceiling_for_one_takes_the_generalist():
    assert chosen(branch(replace(TWO_SPECIALISTS, max_energy_j=19.0), never)) == [2]


def test_only_the_dearest_count_if_only_those_answer():
    found = branch(replace(TWO_SPECIALISTS, max_energy_j=10.0, k=1), never)
    assert chosen(found) == [0, 1]


def test_memory_counts_all_residents_whoever_answers():
    memory = Memory(np.ones(3), np.zeros(3, dtype=np.intp), np.array([1.0]))
    assert chosen(branch(replace(TWO_SPECIALISTS, memory=memory, k=1), never)) == [2]


@pytest.mark.parametrize("ceiling", [{"max_energy_j": 9.0}, {"max_latency_ms": 0.5}])
def test_no_set_where_no_single_expert_fits(ceiling):
    found = branch(replace(TWO_SPECIALISTS, **ceiling), never)
    assert (found.members, found.upper) == (None, -np.inf)


def test_a_budget_of_zero_leaves_what_takes_nothing():
    found = branch(problem([[0.9, 0.2]], [10, 0], max_energy_j=0.0), at_once)
    assert chosen(found) == [1]


def test_equal_experts_are_no_trouble():
    same = problem(np.full((3, 40), 0.5), np.full(40, 10.0), max_energy_j=200.0)
    found = branch(same, never)
    assert found.upper == pytest.approx(0.5)
    assert found.nodes < 10
    total = branch(replace(same, aggregation="sum"), never)
    assert total.upper == pytest.approx(10.0)


@pytest.mark.parametrize("seed", range(5))
def test_forty_experts_are_proved_and_less_energy_is_worth_no_more(seed):
    values = []
    for share in (0.05, 0.15, 0.4):
        asked = large(seed, share=share)
        found = branch(asked, never)
        (value,) = over_traffic(asked.shares, value_of(asked).of(found.members[:1]))
        assert fits(asked, found.members[:1])[0]
        assert found.upper == pytest.approx(value, abs=1e-9)
        values.append(value)
    assert values == sorted(values)


@pytest.mark.parametrize("seed", range(5))
def test_a_sum_is_a_knapsack(seed):
    rng = np.random.default_rng(seed)
    weight, gain = rng.integers(1, 30, 60), rng.uniform(size=60)
    best = np.zeros(201)
    for w, g in zip(weight.tolist(), gain.tolist(), strict=True):
        best[w:] = np.maximum(best[w:], best[: 201 - w] + g)
    found = branch(problem([gain], weight, aggregation="sum", max_energy_j=200.0), never)
    assert found.upper == pytest.approx(best[200])


def test_more_experts_than_bits_in_a_word():
    found = branch(large(1, n_experts=100, share=0.05), never)
    assert found.members.shape == (5, 100)


def test_the_set_to_start_from_is_kept_if_time_is_up():
    hard = large(3, "sum", n_experts=60)
    best = branch(hard, never)
    again = branch(hard, at_once, best.members)
    assert again.members.tolist() == best.members.tolist()
    assert again.nodes <= best.nodes


def test_sets_by_category_are_refused():
    with pytest.raises(ValueError, match="per_category"):
        branch(replace(TWO_SPECIALISTS, sets="per_category"), never)
