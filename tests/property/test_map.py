"""What `coe.optimizer.milp` promises of every category-to-expert map, against enumeration."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coe.optimizer.map import MapProblem
from coe.optimizer.milp import budget_ladder, solve_map
from coe.routers.map import ExpertMap, value_and_shares
from coe.routers.quality import QualityTable

FITS = 1 + 1e-9
CEILINGS = (
    "stored_params_b",
    "active_params_b",
    "max_experts",
    "max_latency_ms",
    "max_energy_j",
    "max_cost_usd",
)
# every example starts CBC several times
some = settings(max_examples=15)


@st.composite
def problems(draw, ceilings=CEILINGS, max_categories=4, tight=0.0):
    """Problems of up to five experts; ``tight`` moves ceilings to where nothing fits.

    Half of them are made of eighths: sums are exact, and ties are common.
    """
    n_categories, n_experts = draw(st.integers(1, max_categories)), draw(st.integers(1, 5))
    exact, by_category = draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = [name for name in ceilings if rng.random() < 0.5]

    def figures(*shape):
        return rng.integers(1, 9, shape) / 8 if exact else rng.random(shape)

    counts = rng.integers(0, 5, n_categories)
    counts[0] += 1
    shares, pairs = counts / counts.sum(), (n_categories, n_experts)
    value, params_b = figures(*pairs), 8 * figures(n_experts)
    costs = {name: figures(*pairs) for name in ("latency_ms", "energy_j", "cost_usd")}

    def between(low, high):
        return float(low + max(0.0, rng.integers(0, 9) / 8 - tight) * (high - low))

    limits = {
        "stored_params_b": between(params_b.min() * (1 - tight), params_b.sum()),
        "active_params_b": between(params_b.min() * (1 - tight), params_b.max()),
        "max_experts": int(rng.integers(1, n_experts + 1)),
        "max_latency_ms": between(costs["latency_ms"].min(), 1.0),
    }
    for name in ("energy_j", "cost_usd"):
        least = float(shares @ costs[name].min(axis=1))
        limits[f"max_{name}"] = between(least * (1 - tight), 1.0)
    if by_category:
        limits["max_latency_ms"] = np.array(
            [between(row.min(), 1.0) for row in costs["latency_ms"]]
        )
    return MapProblem(value, shares, params_b, **costs, **{name: limits[name] for name in present})


def totals(problem, assignment):
    """What a map takes of everything that can have a ceiling, by its name."""
    rows, chosen = np.arange(problem.shares.size), np.unique(assignment)
    taken = {
        "stored_params_b": problem.params_b[chosen].sum(),
        "active_params_b": problem.shares @ problem.params_b[assignment],
        "max_experts": chosen.size,
    }
    for name in ("energy_j", "cost_usd"):
        if getattr(problem, name) is not None:
            taken[f"max_{name}"] = problem.shares @ getattr(problem, name)[rows, assignment]
    if problem.latency_ms is not None:
        latency_ms = problem.latency_ms[rows, assignment]
        taken["max_latency_ms"] = latency_ms.max()
        taken |= {f"max_latency_ms[{c}]": x for c, x in enumerate(latency_ms)}
    return taken


def fits(problem, assignment):
    taken = totals(problem, assignment)
    return all(taken[name] <= limit * FITS for name, limit in problem.ceilings().items())


def worth(problem, assignment):
    return float(problem.shares @ problem.value[np.arange(problem.shares.size), assignment])


def enumerate_maps(problem):
    """Every map that fits: its value and its stored parameters."""
    n_categories, n_experts = problem.value.shape
    maps = (np.array(a) for a in itertools.product(range(n_experts), repeat=n_categories))
    return [
        (worth(problem, a), totals(problem, a)["stored_params_b"]) for a in maps if fits(problem, a)
    ]


def enumerate_sets(problem):
    """The best value of every set of experts that may be stored; no means have a ceiling."""
    n_experts = problem.params_b.size
    limit, k = problem.stored_params_b, problem.max_experts
    found = []
    for size in range(1, (n_experts if k is None else k) + 1):
        for kept in map(list, itertools.combinations(range(n_experts), size)):
            if limit is None or problem.params_b[kept].sum() <= limit * FITS:
                able = np.where(problem.in_time, problem.value, -1.0)[:, kept].max(axis=1)
                if able.min() >= 0:
                    found.append(float(problem.shares @ able))
    return max(found, default=-np.inf)


@settings(max_examples=200)
@given(problems())
def test_the_map_is_that_of_enumeration(problem):
    result = solve_map(problem)
    maps = enumerate_maps(problem)
    assert result.status == ("optimal" if maps else "infeasible")
    if maps:
        best = max(value for value, _ in maps)
        assert result.value == pytest.approx(best, abs=2e-9)
        equals = [stored for value, stored in maps if 1 - value <= (1 - best) * FITS + 1e-15]
        assert result.stored_params_b <= min(equals) + 2e-7 * problem.params_b.sum()


@some
@given(problems(ceilings=("stored_params_b", "max_experts", "max_latency_ms"), max_categories=12))
def test_without_ceilings_on_means_the_map_is_that_of_the_best_set(problem):
    best = enumerate_sets(problem)
    result = solve_map(problem)
    assert result.status == ("optimal" if best > -np.inf else "infeasible")
    assert result.value == pytest.approx(best, abs=2e-9)


@some
@given(problems())
def test_a_map_is_what_its_result_says(problem):
    result = solve_map(problem)
    if result.status == "infeasible":
        assert (result.assignment, result.chosen, result.value) == ((), (), -np.inf)
        return
    assignment = np.array(result.assignment)
    assert fits(problem, assignment)
    taken = totals(problem, assignment)
    assert result.value == pytest.approx(worth(problem, assignment))
    assert result.stored_params_b == pytest.approx(taken["stored_params_b"])
    assert result.active_params_b == pytest.approx(taken["active_params_b"])
    assert result.chosen == tuple(sorted(set(result.assignment)))
    assert (result.conflict, result.needed) == ((), {})
    assert 0 <= result.gap <= 2e-9


@some
@given(problems(), st.data(), st.floats(1, 3))
def test_more_of_a_ceiling_never_lowers_the_value(problem, data, factor):
    present = [name for name in CEILINGS if getattr(problem, name) is not None]
    assume(present)
    name = data.draw(st.sampled_from(present))
    ceiling = getattr(problem, name)
    more = int(ceiling * factor) if name == "max_experts" else ceiling * factor
    richer = solve_map(replace(problem, **{name: more}))
    assert richer.value >= solve_map(problem).value - 2e-9


@some
@given(problems(ceilings=()))
def test_a_budget_for_all_experts_gives_every_category_its_best(problem):
    result = solve_map(replace(problem, stored_params_b=float(problem.params_b.sum())))
    assert result.value == pytest.approx(float(problem.shares @ problem.value.max(axis=1)))
    busy = problem.shares > 0
    got = problem.value[np.arange(busy.size), list(result.assignment)]
    np.testing.assert_allclose(got[busy], problem.value.max(axis=1)[busy], atol=1e-7)


@some
@given(problems(max_categories=1))
def test_one_category_gets_the_best_single_expert_that_fits(problem):
    able = [e for e in range(problem.params_b.size) if fits(problem, np.array([e]))]
    best = max((float(problem.value[0, e]) for e in able), default=-np.inf)
    assert solve_map(problem).value == pytest.approx(best, abs=2e-9)


@some
@given(problems())
def test_no_single_expert_that_fits_is_better(problem):
    constant = [np.full(problem.shares.size, e) for e in range(problem.params_b.size)]
    able = [worth(problem, a) for a in constant if fits(problem, a)]
    assert solve_map(problem).value >= max(able, default=-np.inf) - 2e-9


@some
@given(problems(), st.data())
def test_a_dominated_expert_changes_no_value(problem, data):
    k = data.draw(st.integers(0, problem.params_b.size - 1))
    less, more = data.draw(st.floats(0, 1)), data.draw(st.floats(1, 3))

    def with_column(figures, factor):
        return np.concatenate([figures, factor * figures[..., k : k + 1]], axis=-1)

    added = replace(
        problem,
        value=with_column(problem.value, less),
        params_b=with_column(problem.params_b, more),
        **{
            n: with_column(getattr(problem, n), more)
            for n in ("latency_ms", "energy_j", "cost_usd")
        },
    )
    assert solve_map(added).value == pytest.approx(solve_map(problem).value, abs=2e-9)


@some
@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_experts_and_categories_does_not_matter(problem, random):
    n_categories, n_experts = problem.value.shape
    rows = np.array(random.sample(range(n_categories), n_categories))
    columns = np.array(random.sample(range(n_experts), n_experts))
    limits = problem.max_latency_ms
    shuffled = replace(
        problem,
        shares=problem.shares[rows],
        params_b=problem.params_b[columns],
        max_latency_ms=limits[rows] if isinstance(limits, np.ndarray) else limits,
        **{
            name: getattr(problem, name)[np.ix_(rows, columns)]
            for name in ("value", "latency_ms", "energy_j", "cost_usd")
        },
    )
    one, other = solve_map(problem), solve_map(shuffled)
    assert one.status == other.status
    assert one.value == pytest.approx(other.value, abs=2e-9)


@some
@given(problems(max_categories=3, tight=0.5))
def test_when_nothing_fits_the_needed_ceilings_and_no_less_would_do(problem):
    assume(not enumerate_maps(problem))
    result = solve_map(problem)
    assert list(result.needed) == list(problem.ceilings())
    for name, least in result.needed.items():
        if least is None:
            assert not enumerate_maps(problem.with_ceiling(name, None))
        else:
            assert least > problem.ceilings()[name]
            assert solve_map(problem.with_ceiling(name, least)).status == "optimal"
            assert not enumerate_maps(problem.with_ceiling(name, least * (1 - 1e-6)))


@some
@given(problems(max_categories=3, tight=0.5))
def test_when_nothing_fits_the_conflict_cannot_hold_and_has_nothing_to_spare(problem):
    assume(not enumerate_maps(problem))
    result = solve_map(problem)
    kept = problem
    for name in problem.ceilings():
        if name not in result.conflict:
            kept = kept.with_ceiling(name, None)
    assert set(kept.ceilings()) == set(result.conflict)
    assert not enumerate_maps(kept)
    for name in result.conflict:
        assert enumerate_maps(kept.with_ceiling(name, None))
    # whatever would do alone is part of every conflict
    assert {name for name, least in result.needed.items() if least is not None} <= {
        *result.conflict
    }


@settings(max_examples=15)
@given(problems(ceilings=("max_experts", "max_latency_ms", "max_energy_j"), max_categories=3))
def test_the_ladder_holds_the_best_map_of_every_budget(problem):
    ladder = budget_ladder(problem)
    values = [step.value for step in ladder]
    assert values == sorted(set(values))
    maps = enumerate_maps(problem)
    subsets = itertools.product((0.0, 1.0), repeat=problem.params_b.size)
    for budget in sorted({float(np.array(kept) @ problem.params_b) for kept in subsets}):
        best = max((v for v, stored in maps if stored <= budget * FITS), default=-np.inf)
        steps = [step.value for step in ladder if step.stored_params_b <= budget * FITS]
        assert max(steps, default=-np.inf) == pytest.approx(best, abs=4e-9)


@some
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_a_table_becomes_a_map_that_no_single_expert_beats_on_that_table(n_experts, n_named, seed):
    rng = np.random.default_rng(seed)
    names = np.array(["code", "maths", "poems"][:n_named])
    expert_ids = tuple("abcd"[:n_experts])
    scores = rng.integers(0, 3, (12, n_experts)) / 2
    table = QualityTable.fit(rng.choice(names, 12), expert_ids, scores, 10 * scores)
    counts = {name: int(rng.integers(0, 5)) for name in table.categories}
    value, shares = value_and_shares(table, counts | {"general": 1})
    params_b = 1 + rng.random(n_experts)
    found = solve_map(MapProblem(value, shares, params_b, stored_params_b=2.0))
    made = ExpertMap.of(table, shares, found.assignment)
    assert made.value == pytest.approx(found.value)
    assert made.value >= (shares @ value).max() - 2e-9
    for category, expert in zip(table.categories, found.assignment, strict=True):
        assert made.expert_for(category) == expert_ids[expert]
    assert made.chosen == tuple(expert_ids[e] for e in found.chosen)
