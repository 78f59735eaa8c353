"""What a problem refuses, and how sets use what it has."""

from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer import reference
from coe.optimizer.footprint import (
    allowed,
    exceeded,
    fits,
    fits_alone,
    tightest,
    total_usage,
    usage,
    usage_alone,
)
from coe.optimizer.optimize import optimize
from coe.optimizer.problem import Memory, Problem, Prompts

GOOD = Problem(
    aggregation="best",
    shares=np.array([0.5, 0.5]),
    energy_j=np.array([[10.0, 40.0], [20.0, 80.0]]),
    latency_ms=np.array([[500.0, 1000.0], [500.0, 2000.0]]),
    cost_usd=np.array([[0.0, 0.01], [0.0, 0.02]]),
    quality=np.array([[0.2, 0.9], [0.4, 0.5]]),
)
PROMPTS = Prompts(np.zeros((2, 2)), np.ones((2, 2)), np.array([0, 1]))
NAN = np.full((2, 2), np.nan)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"aggregation": "vote"}, "aggregation"),
        ({"sets": "mine"}, "sets"),
        ({"energy_j": NAN}, "energy_j"),
        ({"energy_j": np.zeros(2)}, "energy_j"),
        ({"energy_j": -np.ones((2, 2))}, "energy_j"),
        ({"energy_j": np.full((2, 2), 0.05)}, "not of a token"),
        ({"energy_j": np.array([[10.0, 0.05], [20.0, 0.05]])}, "expert 1 .* not of a token"),
        ({"latency_ms": np.array([[0.4, 999.0], [0.9, 999.0]])}, "expert 0 .* not seconds"),
        ({"latency_ms": np.zeros((2, 2))}, "latency_ms must be positive"),
        ({"latency_ms": np.full((2, 2), 0.4)}, "not seconds"),
        ({"latency_ms": np.full((2, 2), np.inf)}, "latency_ms"),
        ({"latency_ms": np.ones((3, 2))}, "latency_ms"),
        ({"cost_usd": NAN}, "cost_usd"),
        ({"shares": np.array([0.5, 0.4])}, "shares"),
        ({"shares": np.array([1.5, -0.5])}, "shares"),
        ({"quality": None}, "quality"),
        ({"quality": np.full((2, 2), 1.1)}, "quality"),
        ({"aggregation": "mixture"}, "prompts"),
        ({"k": 0}, "k must"),
        ({"k": 1.5}, "k must"),
        ({"k": True}, "k must"),
        ({"max_energy_j": -1.0}, "max_energy_j"),
        ({"max_energy_j": float("nan")}, "max_energy_j"),
        ({"max_latency_ms": np.ones(3)}, "max_latency_ms"),
        ({"overhead_ms": -1.0}, "overhead_ms"),
        ({"overhead_ms": np.inf}, "overhead_ms"),
        ({"able": np.ones((2, 2))}, "able"),
        ({"able": np.ones((1, 2), dtype=bool)}, "able"),
        ({"memory": Memory(np.ones(1), np.zeros(2, int), np.ones(1))}, "memory.expert_gb"),
        ({"memory": Memory(np.ones(2), np.array([0, 1]), np.ones(1))}, "memory.node"),
        ({"memory": Memory(np.ones(2), np.zeros(2), np.ones(1))}, "memory.node"),
        ({"memory": Memory(np.ones(2), np.zeros(2, int), np.array(1.0))}, "memory.node_gb"),
        ({"memory": Memory(np.ones(2), np.zeros(2, int), -np.ones(1))}, "memory.node_gb"),
    ],
)
def test_wrong_figures_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(GOOD, **fields)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (replace(PROMPTS, logits=NAN), "logits"),
        (replace(PROMPTS, logits=np.zeros((1, 2))), "logits"),
        (replace(PROMPTS, logits=np.array([[0.0, 1.0], [-300.0, 300.1]])), "within 600"),
        (replace(PROMPTS, outcome=np.full((2, 2), 2.0)), "outcome"),
        (replace(PROMPTS, category=np.array([0, 0])), "category"),
        (replace(PROMPTS, category=np.array([0, 2])), "category"),
        (replace(PROMPTS, category=np.array([0.0, 1.0])), "category"),
    ],
)
def test_wrong_prompts_are_refused_by_name(prompts, message):
    with pytest.raises(ValueError, match=message):
        replace(GOOD, aggregation="mixture", prompts=prompts)


def test_ceilings_have_names_and_infinite_ones_do_not_exist():
    full = replace(
        GOOD,
        max_energy_j=50.0,
        max_cost_usd=np.inf,
        max_latency_ms=np.array([900.0, np.inf]),
        memory=Memory(np.ones(2), np.zeros(2, int), np.array([3.0])),
    )
    assert full.ceilings() == {
        "max_energy_j": 50.0,
        "max_latency_ms[0]": 900.0,
        "node_gb[0]": 3.0,
    }


@pytest.mark.parametrize("limit", [np.float32(800), np.int64(800), np.array(800.0), 800])
def test_any_number_may_be_a_ceiling_on_latency(limit):
    limited, plain = (replace(GOOD, max_latency_ms=x) for x in (limit, 800.0))
    assert limited.ceilings() == plain.ceilings() == {"max_latency_ms": 800.0}
    one = np.array([[True, False], [True, False]])
    assert total_usage(limited, one) == total_usage(plain, one)
    for sets in ("shared", "per_category"):
        found = optimize(replace(limited, sets=sets))
        assert found.binding == "max_latency_ms"
        none = optimize(replace(limited, sets=sets, overhead_ms=400.0))
        assert none.needed == {"max_latency_ms": 900.0}


def test_an_expert_that_takes_no_energy_is_no_error():
    assert replace(GOOD, energy_j=np.zeros((2, 2))).n_experts == 2


def test_a_value_does_not_depend_on_who_is_left_out():
    logits = np.array([[300.0, -200.0, -300.0], [300.0, -300.0, -200.0]])
    outcome = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    ones = np.ones((1, 3))
    problem = Problem(
        "mixture",
        np.ones(1),
        10 * ones,
        1000 * ones,
        prompts=Prompts(logits, outcome, np.array([0, 0])),
        able=np.array([[False, True, True]]),
    )
    result = optimize(problem)
    assert result.value == pytest.approx(1.0)
    assert result.sets == ((1, 2),)
    assert result.status == "optimal"
    best, chosen = reference.optimum(problem)
    assert (best, chosen) == (pytest.approx(result.value), result.sets)


def test_overhead_counts_against_latency():
    limited = replace(GOOD, max_latency_ms=1000.0, overhead_ms=100.0)
    assert allowed(limited).tolist() == [[True, False], [True, False]]


def test_who_is_not_able_does_not_fit():
    barred = replace(GOOD, able=np.array([[True, True], [True, False]]))
    assert fits(barred, np.array([[True, False], [False, True]])).tolist() == [True, False]


def test_a_total_equal_to_its_ceiling_fits_and_empty_sets_do_not():
    both = np.array([[True, True], [False, False]])
    exact = replace(GOOD, max_energy_j=75.0)
    assert fits(exact, both).tolist() == [True, False]
    assert fits(replace(GOOD, max_energy_j=74.9), both[:1]).tolist() == [False]
    assert fits(replace(GOOD, max_energy_j=60.0, k=1), both[:1]).tolist() == [True]


def test_usage_of_sets_per_category():
    memory = Memory(np.array([2.0, 3.0]), np.array([0, 0]), np.array([9.0]))
    problem = replace(
        GOOD, max_energy_j=99.0, max_cost_usd=9.0, max_latency_ms=9999.0, memory=memory
    )
    used = total_usage(problem, np.array([[True, False], [False, True]]))
    assert used == pytest.approx(
        {"max_energy_j": 45.0, "max_cost_usd": 0.01, "max_latency_ms": 2000.0, "node_gb[0]": 5.0}
    )


def test_the_tightest_ceiling_is_one_that_keeps_somebody_out():
    one = np.array([[True, False], [True, False]])
    assert tightest(replace(GOOD, max_energy_j=50.0, max_latency_ms=9999.0), one) == "max_energy_j"
    assert tightest(replace(GOOD, max_energy_j=99.0), one) is None


def test_alone_is_as_a_set_of_one(draw_problem):
    rng = np.random.default_rng(30)
    for _ in range(40):
        problem = draw_problem(rng, 4, 3)
        singles = np.eye(4, dtype=bool)
        assert usage_alone(problem).keys() == problem.ceilings().keys()
        for name, used in usage(problem, singles).items():
            np.testing.assert_allclose(usage_alone(problem)[name], used)
        np.testing.assert_array_equal(fits_alone(problem), fits(problem, singles))


@pytest.mark.parametrize("sets", ["shared", "per_category"])
def test_the_tightest_ceiling_is_that_of_trying_everyone(draw_problem, sets):
    rng = np.random.default_rng(31)
    for _ in range(150):
        problem = draw_problem(rng, 4, 3, sets=sets)
        chosen = rng.random((3, 4)) < 0.4
        chosen[:, 0] |= ~chosen.any(axis=1)
        if sets == "shared":
            chosen[:] = chosen[0]
        ceilings = problem.ceilings()
        if exceeded(total_usage(problem, chosen), ceilings):
            continue
        blocking = set()
        for c, n in np.argwhere(~chosen):
            more = chosen.copy()
            more[slice(None) if sets == "shared" else c, n] = True
            blocking |= {*exceeded(total_usage(problem, more), ceilings)}
        found = tightest(problem, chosen)
        assert (found is None) == (not blocking)
        assert found is None or found in blocking
