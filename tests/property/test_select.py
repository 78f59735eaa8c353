"""What `coe.optimizer.select.select` promises of every problem."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.optimizer.options import AXES, Options
from coe.optimizer.select import select, select_each, slack, violated

# eighths: sums and products are exact, and ties are common
eighths = st.integers(0, 8).map(lambda n: n / 8)
amounts = st.just(0.0) | st.floats(1e-6, 1e6)
# quality, cautious usage, expected usage
coarse = st.tuples(eighths, *[st.lists(eighths, min_size=4, max_size=4)] * 2)
fine = st.tuples(st.floats(0, 1), *[st.lists(amounts, min_size=4, max_size=4)] * 2)


@st.composite
def problems(draw, min_size=0, exact=True):
    """Problems of up to eight candidates, some axes without ceiling."""
    rows = draw(st.lists(coarse if exact else fine, min_size=min_size, max_size=8))
    ceiling = st.integers(1, 8).map(lambda n: n / 8) if exact else st.floats(1e-6, 1e6)
    price = eighths if exact else st.floats(0, 10)
    return Options(
        quality=np.array([quality for quality, _, _ in rows], dtype=float),
        usage=np.array([usage for _, usage, _ in rows], dtype=float).reshape(-1, 4),
        expected_usage=np.array([usage for _, _, usage in rows], dtype=float).reshape(-1, 4),
        ceilings=np.array([draw(st.just(np.inf) | ceiling) for _ in AXES]),
        prices=np.array([draw(price) for _ in AXES]),
    )


any_problem = st.booleans().flatmap(lambda exact: problems(exact=exact))


def feasible(problem):
    """Options that exceed no ceiling."""
    return [
        k
        for k in range(problem.quality.size)
        if all(u <= c for u, c in zip(problem.usage[k], problem.ceilings, strict=True))
    ]


def merit(problem, k):
    """What a candidate is judged by: smaller is better."""
    utility = problem.utility[k]
    return (-utility, problem.usage[k, AXES.index("energy_j")], problem.usage[k, 0])


def with_ceiling(problem, axis, value):
    ceilings = problem.ceilings.copy()
    ceilings[AXES.index(axis)] = value
    return replace(problem, ceilings=ceilings)


def reordered(problem, order):
    return replace(
        problem,
        quality=problem.quality[order],
        usage=problem.usage[order],
        expected_usage=problem.expected_usage[order],
    )


@st.composite
def impossible(draw):
    """Problems of at least one candidate, none of which fits."""
    problem = draw(problems(min_size=1, exact=draw(st.booleans())))
    ceilings = problem.ceilings.copy()
    ceilings[draw(st.integers(0, 3))] = 1.0
    problem = replace(problem, usage=problem.usage + 0.125, ceilings=ceilings)
    while feasible(problem):
        problem = replace(problem, ceilings=problem.ceilings / 2)
    return problem


@given(any_problem)
def test_the_choice_is_that_of_brute_force(problem):
    result = select(problem)
    ranked = sorted(feasible(problem), key=lambda k: (*merit(problem, k), k))
    assert list(result.ranking) == ranked
    assert result.index == (ranked[0] if ranked else None)
    assert result.status == ("optimal" if ranked else "infeasible")
    assert result.utility == (problem.utility[ranked[0]] if ranked else -np.inf)


@given(any_problem)
def test_the_choice_fits_the_budget_whenever_anything_does(problem):
    result = select(problem)
    assert (result.index is None) == (not feasible(problem))
    if result.index is not None:
        assert violated(problem, result.index) == ()
        assert np.all(problem.usage[result.index] <= problem.ceilings)


@given(any_problem, st.lists(st.floats(1, 100), min_size=4, max_size=4))
def test_more_budget_never_lowers_the_utility(problem, factors):
    richer = replace(problem, ceilings=problem.ceilings * np.array(factors))
    assert select(richer).utility >= select(problem).utility


@given(any_problem, st.randoms(use_true_random=False))
def test_permuting_the_candidates_permutes_the_answer(problem, random):
    order = np.array(random.sample(range(problem.quality.size), problem.quality.size), dtype=int)
    shuffled = reordered(problem, order)
    one, other = select(problem), select(shuffled)
    assert (one.status, one.utility, one.needed) == (other.status, other.utility, other.needed)
    # equal up to candidates that tie in everything that is compared
    for k, m in zip(one.ranking, other.ranking, strict=True):
        assert merit(problem, k) == merit(shuffled, m)


@given(problems(min_size=1), st.data())
def test_a_dominated_expert_changes_nothing(problem, data):
    k = data.draw(st.integers(0, problem.quality.size - 1))
    worse = np.array(data.draw(st.lists(eighths, min_size=4, max_size=4)))
    less = data.draw(eighths)
    added = replace(
        problem,
        quality=np.append(problem.quality, max(problem.quality[k] - less, 0.0)),
        usage=np.vstack([problem.usage, problem.usage[k] + worse]),
        expected_usage=np.vstack([problem.expected_usage, problem.expected_usage[k] + worse]),
    )
    before, after = select(problem), select(added)
    assert (after.index, after.utility, after.needed, after.nearest) == (
        before.index,
        before.utility,
        before.needed,
        before.nearest,
    )


@given(impossible())
def test_needed_is_enough_and_no_less_would_do(problem):
    result = select(problem)
    limited = [axis for axis, c in zip(AXES, problem.ceilings, strict=True) if np.isfinite(c)]
    assert list(result.needed) == limited
    for axis, value in result.needed.items():
        if value is None:
            assert select(with_ceiling(problem, axis, np.inf)).status == "infeasible"
        else:
            assert select(with_ceiling(problem, axis, value)).status == "optimal"
            less = with_ceiling(problem, axis, np.nextafter(value, 0))
            assert select(less).status == "infeasible"


@given(any_problem)
def test_a_binding_ceiling_keeps_out_the_best_there_would_be(problem):
    result = select(problem)
    if result.status == "infeasible":
        return
    free = select(replace(problem, ceilings=np.full(4, np.inf)))
    if result.binding is None:
        assert result.index == free.index
    else:
        assert free.index not in result.ranking
        exceeded = problem.excess[free.index]
        assert exceeded[AXES.index(result.binding)] == exceeded.max() > 0


@given(impossible())
def test_when_nothing_fits_the_nearest_exceeds_the_binding_ceiling_most(problem):
    result = select(problem)
    worst = problem.excess.max(axis=1)
    assert worst[result.nearest] == worst.min()
    binding = AXES.index(result.binding)
    assert problem.excess[result.nearest, binding] == worst.min() > 0


@given(problems(min_size=1), st.data())
def test_slack_is_not_negative_exactly_where_the_candidate_fits(problem, data):
    k = data.draw(st.integers(0, problem.quality.size - 1))
    left = slack(problem, k)
    assert list(left) == [a for a, c in zip(AXES, problem.ceilings, strict=True) if c < np.inf]
    assert {axis for axis, rest in left.items() if rest < 0} == set(violated(problem, k))
    for axis, rest in left.items():
        column = AXES.index(axis)
        assert rest + problem.usage[k, column] == pytest.approx(problem.ceilings[column])


@given(any_problem)
def test_the_slack_of_a_result_is_that_of_its_choice(problem):
    result = select(problem)
    assert result.slack == ({} if result.index is None else slack(problem, result.index))


@given(
    st.booleans().flatmap(lambda exact: problems(min_size=1, exact=exact)),
    st.lists(st.permutations(range(8)), min_size=1, max_size=3),
    st.integers(0, 255),
    st.booleans(),
)
def test_many_requests_choose_as_each_would_alone(problem, orders, mask, nearest):
    n = problem.quality.size
    rows = [reordered(problem, [k for k in order if k < n]) for order in orders]
    able = np.array([mask >> k & 1 for k in range(n)], dtype=bool)
    many = replace(
        problem,
        quality=np.array([row.quality for row in rows]),
        usage=np.array([row.usage for row in rows]),
        expected_usage=np.array([row.expected_usage for row in rows]),
    )
    index, fits = select_each(many, np.tile(able, (len(rows), 1)), nearest)
    for k, row in enumerate(rows):
        choice = select(row.rows(np.flatnonzero(able)))
        taken = choice.taken("nearest" if nearest else "reject")
        assert index[k] == (-1 if taken is None else np.flatnonzero(able)[taken])
        assert fits[k] == (choice.index is not None)
