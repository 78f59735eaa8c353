"""One verb: every answer feasible, every proof right, every refusal explained."""

from dataclasses import replace

import numpy as np
import pytest

from coe.optimizer import reference
from coe.optimizer.footprint import exceeded, total_usage
from coe.optimizer.optimize import optimize
from coe.optimizer.problem import Memory, Problem

EXACT = {
    "shared": ["auto", "enumeration", "branch", "polyblock"],
    "per_category": ["auto", "milp", "milp-highs"],
}


def members_of(problem, result):
    found = np.zeros(problem.energy_j.shape, dtype=bool)
    for c, chosen in enumerate(result.sets):
        found[c, list(chosen)] = True
    return found


def check(problem, result, best, chosen):
    """The result is what plain loops find."""
    if chosen is None:
        assert result.status == "infeasible"
        assert result.sets == ()
        return
    assert result.status == "optimal"
    assert result.value == pytest.approx(best, abs=1e-9)
    assert result.upper == result.value
    assert reference.feasible(problem, result.sets)
    assert reference.value(problem, result.sets) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("aggregation", ["best", "sum", "mixture", "choose", "likelihood"])
def test_shared_sets_are_those_of_plain_loops(draw_problem, aggregation):
    rng = np.random.default_rng(11)
    for _ in range(100):
        n_experts, n_categories = int(rng.integers(1, 8)), int(rng.integers(1, 7))
        problem = draw_problem(rng, n_experts, n_categories, aggregation)
        best, chosen = reference.optimum(problem)
        for method in EXACT["shared"]:
            check(problem, optimize(problem, method), best, chosen)


@pytest.mark.parametrize("aggregation", ["best", "sum", "mixture", "choose", "likelihood"])
def test_sets_by_category_are_those_of_plain_loops(draw_problem, aggregation):
    rng = np.random.default_rng(12)
    for _ in range(8):
        problem = draw_problem(rng, 3, int(rng.integers(1, 4)), aggregation, sets="per_category")
        best, chosen = reference.optimum(problem)
        for method in EXACT["per_category"]:
            check(problem, optimize(problem, method), best, chosen)


@pytest.mark.parametrize("n_experts", [10, 12])
def test_larger_shared_sets_agree(draw_problem, n_experts):
    rng = np.random.default_rng(n_experts)
    for _ in range(25):
        problem = draw_problem(rng, n_experts, 6)
        results = [optimize(problem, method) for method in ("enumeration", "branch")]
        assert results[0].status == results[1].status
        if results[0].status == "optimal":
            assert results[0].value == pytest.approx(results[1].value, abs=1e-9)


@pytest.mark.parametrize("sets", ["shared", "per_category"])
def test_greedy_answers_fit_and_are_bounded(draw_problem, sets):
    rng = np.random.default_rng(13)
    for _ in range(60):
        problem = draw_problem(rng, 4, 2, sets=sets)
        best, chosen = reference.optimum(problem)
        result = optimize(problem, "greedy")
        if result.sets:
            assert reference.feasible(problem, result.sets)
            assert result.value <= best + 1e-9
            assert result.upper >= best - 1e-9
            assert result.gap >= 0
        else:
            assert result.status in ("infeasible", "unknown")
            assert chosen is None or result.status == "unknown"


def test_what_is_said_of_an_answer_is_so(draw_problem):
    rng = np.random.default_rng(14)
    for _ in range(60):
        problem = draw_problem(rng, 5, 3)
        result = optimize(problem)
        if result.status != "optimal":
            continue
        members = members_of(problem, result)
        used, ceilings = total_usage(problem, members), problem.ceilings()
        assert exceeded(used, ceilings) == ()
        assert result.slack == pytest.approx({n: ceilings[n] - used[n] for n in ceilings})
        assert result.binding is None or result.binding in ceilings
        assert result.experts == tuple(np.flatnonzero(members.any(axis=0)))
        for chosen, weights in zip(result.sets, result.weights, strict=True):
            assert len(chosen) == len(weights)
            if np.isfinite(result.value):
                assert sum(weights) == pytest.approx(1)
        assert result.solve_ms >= 0
        assert result.why
        assert result.nodes >= 1


@pytest.mark.parametrize("sets", ["shared", "per_category"])
def test_what_an_infeasible_problem_needs_is_enough_and_no_less(draw_problem, sets):
    rng = np.random.default_rng(15)
    checked = set()
    for _ in range(120):
        problem = draw_problem(rng, 3, 2, "best", sets=sets)
        if problem.max_latency_ms is not None and rng.random() < 0.5:
            problem = replace(problem, max_latency_ms=problem.max_latency_ms * np.array([1.0, 0.9]))
        result = optimize(problem)
        if result.status != "infeasible":
            continue
        able = np.ones((2, 3), dtype=bool) if problem.able is None else problem.able
        if not (able.all(axis=0).any() if sets == "shared" else able.any(axis=1).all()):
            assert result.binding is None
            continue
        assert result.binding in problem.ceilings()
        assert result.needed.keys() == problem.ceilings().keys()
        for ceiling in problem.limits():
            value = result.needed[ceiling.name]
            if value is None:
                assert reference.optimum(problem.with_ceiling(ceiling, np.inf))[1] is None
                continue
            checked.add(ceiling.kind)
            assert reference.optimum(problem.with_ceiling(ceiling, value))[1] is not None
            assert reference.optimum(problem.with_ceiling(ceiling, value * 0.999))[1] is None
    assert checked == {"max_energy_j", "max_cost_usd", "max_latency_ms", "node_gb"}


def test_what_is_needed_keeps_the_memory_of_nodes():
    problem = Problem(
        "best",
        np.ones(1),
        np.array([[63.6, 6.03]]),
        np.full((1, 2), 900.0),
        quality=np.full((1, 2), 0.5),
        sets="per_category",
        max_energy_j=30.2,
        max_latency_ms=1000.0,
        overhead_ms=100.0,
        memory=Memory(np.array([4.0, 8.0]), np.zeros(2, int), np.array([5.0])),
    )
    assert optimize(problem).needed == {
        "max_energy_j": 63.6,
        "max_latency_ms": None,
        "node_gb[0]": 8.0,
    }
    heavy = replace(problem, memory=replace(problem.memory, expert_gb=np.array([9.0, 8.0])))
    assert optimize(heavy).needed["max_energy_j"] is None


@pytest.mark.parametrize("sets", ["shared", "per_category"])
def test_a_node_without_room_is_named(sets):
    figures = np.ones((2, 2))
    memory = Memory(np.array([2.0, 3.0]), np.zeros(2, int), np.array([1.0]))
    problem = Problem(
        "best",
        np.full(2, 0.5),
        10 * figures,
        1000 * figures,
        quality=0.5 * figures,
        sets=sets,
        memory=memory,
    )
    result = optimize(problem)
    assert (result.status, result.binding) == ("infeasible", "node_gb[0]")
    assert result.needed == {"node_gb[0]": 2.0}
    assert result.why


TORN = Problem(
    "best",
    np.full(2, 0.5),
    np.array([[1.0, 9.0], [1.0, 9.0]]),
    np.full((2, 2), 500.0),
    np.array([[9.0, 1.0], [9.0, 1.0]]),
    quality=np.full((2, 2), 0.5),
    sets="per_category",
    max_energy_j=4.8,
    max_cost_usd=4.8,
)
"""Any expert fits in any category, but two never do: of one means, or of the other, they take 5."""


def test_without_time_left_what_is_needed_is_not_worked_out():
    result = optimize(TORN, "milp", time_limit_s=1.0, now=Clock(2.0))
    assert (result.status, result.needed) == ("infeasible", {})
    assert result.binding in TORN.ceilings()


def test_what_greedy_does_not_find_may_be_proved_not_to_exist():
    result = optimize(TORN, "greedy")
    assert result.status == "infeasible"
    assert result.needed == {"max_energy_j": 9.0, "max_cost_usd": 9.0}
    assert result.gap == 0
    early = optimize(TORN, "greedy", time_limit_s=1.0, now=Clock(2.0))
    assert early.status == "unknown"


def test_nobody_able_is_infeasible(draw_problem):
    problem = draw_problem(np.random.default_rng(0), 3, 2, "best")
    for sets in ("shared", "per_category"):
        barred = replace(problem, sets=sets, able=np.array([[True] * 3, [False] * 3]))
        assert optimize(barred).status == "infeasible"


def test_more_of_any_budget_is_never_worth_less(draw_problem):
    rng = np.random.default_rng(16)
    for sets in ("shared", "per_category"):
        for _ in range(25):
            problem = draw_problem(rng, 4, 2, sets=sets, memory=None)
            before = optimize(problem)
            for name in ("max_energy_j", "max_cost_usd", "max_latency_ms"):
                limit = getattr(problem, name)
                if limit is not None and before.status == "optimal":
                    after = optimize(replace(problem, **{name: limit * 1.3}))
                    assert after.value >= before.value - 1e-9


def test_another_expert_is_never_worth_less(draw_problem):
    rng = np.random.default_rng(17)
    for _ in range(40):
        problem = draw_problem(rng, 5, 3)
        fewer = optimize(problem.keep(np.arange(4)))
        if fewer.status == "optimal":
            assert optimize(problem).value >= fewer.value - 1e-9


def test_duplicates_do_no_harm_and_order_does_not_matter(draw_problem):
    rng = np.random.default_rng(18)
    for _ in range(40):
        problem = draw_problem(rng, 4, 3)
        if problem.aggregation == "choose" or (problem.prompts and problem.k):
            continue  # of equal logits the first counts
        result = optimize(problem)
        order = rng.permutation(4)
        shuffled = optimize(problem.keep(order))
        assert shuffled.status == result.status
        doubled = optimize(problem.keep(np.array([0, 1, 2, 3, 0, 1])))
        if result.status == "optimal":
            assert shuffled.value == pytest.approx(result.value, abs=1e-9)
            assert doubled.value >= result.value - 1e-9


def test_nothing_fits_a_budget_of_nothing(draw_problem):
    problem = draw_problem(
        np.random.default_rng(19), 3, 2, "best", max_energy_j=0.0, memory=None, k=None
    )
    result = optimize(replace(problem, max_cost_usd=None, max_latency_ms=None))
    assert result.status == "infeasible"
    assert result.binding == "max_energy_j"
    needed = result.needed["max_energy_j"]
    assert needed == pytest.approx(float((problem.shares @ problem.energy_j).min()))


class Clock:
    """Seconds that pass with every look at them."""

    def __init__(self, step_s):
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self):
        self.now_s += self.step_s
        return self.now_s


@pytest.mark.parametrize("method", ["branch", "polyblock", "greedy"])
def test_more_time_never_worsens_the_answer(draw_problem, method):
    rng = np.random.default_rng(20)
    for _ in range(10):
        problem = draw_problem(rng, 10, 4, memory=None)
        best = optimize(problem, "enumeration")
        if best.status != "optimal":
            continue
        values = []
        for looks in (1, 3, 10, 100, 10_000):
            result = optimize(problem, method, time_limit_s=1.0, now=Clock(1.0 / looks))
            assert result.status in ("optimal", "feasible")
            assert result.value <= best.value + 1e-9 <= result.upper + 2e-9
            values.append(result.value)
        assert values == sorted(values)


def test_auto_says_what_it_chose_and_why(draw_problem):
    rng = np.random.default_rng(21)
    chosen = {}
    for name, fields in {
        "few": {"n_experts": 6, "aggregation": "mixture"},
        "many": {"n_experts": 30, "aggregation": "best"},
        "sums": {"n_experts": 30, "aggregation": "sum", "max_cost_usd": None, "k": None},
        "crowd": {"n_experts": 80, "aggregation": "best"},
        "each": {"n_experts": 6, "aggregation": "best", "sets": "per_category"},
    }.items():
        problem = draw_problem(
            rng,
            n_categories=3,
            max_energy_j=20.0,
            max_latency_ms=None,
            memory=None,
            **{"max_cost_usd": None, **fields},
        )
        result = optimize(problem)
        assert result.why
        chosen[name] = result.method
    assert chosen == {
        "few": "enumeration",
        "many": "branch",
        "sums": "knapsack",
        "crowd": "greedy",
        "each": "knapsack",
    }


@pytest.mark.parametrize(
    ("method", "limit_s", "message"),
    [("guess", None, "method"), ("auto", 0.0, "time_limit_s"), ("auto", -1.0, "time_limit_s")],
)
def test_wrong_calls_are_refused(draw_problem, method, limit_s, message):
    problem = draw_problem(np.random.default_rng(0), 2, 1, "best")
    with pytest.raises(ValueError, match=message):
        optimize(problem, method, limit_s)


@pytest.mark.parametrize(
    ("method", "sets", "aggregation"),
    [
        ("enumeration", "per_category", "best"),
        ("branch", "per_category", "best"),
        ("polyblock", "per_category", "best"),
        ("milp", "shared", "mixture"),
        ("milp-highs", "shared", "mixture"),
        ("knapsack", "shared", "best"),
    ],
)
def test_a_method_refuses_what_it_is_not_for(draw_problem, method, sets, aggregation):
    problem = draw_problem(
        np.random.default_rng(3),
        3,
        2,
        aggregation,
        sets=sets,
        max_energy_j=None,
        max_cost_usd=None,
        max_latency_ms=None,
        memory=None,
    )
    with pytest.raises(ValueError, match="set"):
        optimize(problem, method)
