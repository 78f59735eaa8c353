"""What the number of replicas promises of every load, and of noise."""

from dataclasses import replace
from math import factorial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coe.optimizer.scaling import Demand, Scaled, Scaling, scaled, sufficient

rules = st.builds(
    Scaling,
    target_queue=st.floats(0.1, 5),
    least=st.integers(0, 3),
    most=st.integers(3, 20),
    slots=st.integers(1, 8),
    stable_s=st.floats(0, 600),
)
demands = st.builds(
    Demand, rate_per_s=st.floats(0, 20), service_s=st.floats(0, 20), n_waiting=st.integers(0, 50)
)


def expected_queue(busy, servers):
    """Mean number of waiting requests in M/M/c, summed term by term."""
    if busy >= servers:
        return np.inf
    tail = busy**servers / factorial(servers) * servers / (servers - busy)
    waits = tail / (sum(busy**k / factorial(k) for k in range(servers)) + tail)
    return waits * busy / (servers - busy)


@given(rules, demands)
def test_they_suffice_and_one_less_does_not(rule, demand):
    n = sufficient(rule, demand)
    assert rule.least <= n <= rule.most
    assume(rule.slots * n < 100)

    def longest(n):
        return max(expected_queue(demand.busy, n * rule.slots), demand.n_waiting) / n

    asked = demand.rate_per_s > 0 or demand.n_waiting > 0
    if asked and n < rule.most:
        assert longest(n) <= rule.target_queue * (1 + 1e-9)
    if n > max(rule.least, 1):
        assert longest(n - 1) > rule.target_queue * (1 - 1e-9)


@given(rules, demands, st.floats(1, 3), st.integers(0, 9))
def test_more_load_never_asks_for_fewer(rule, demand, factor, more):
    n = sufficient(rule, demand)
    for changed in (
        replace(demand, rate_per_s=demand.rate_per_s * factor),
        replace(demand, service_s=demand.service_s * factor),
        replace(demand, n_waiting=demand.n_waiting + more),
    ):
        assert sufficient(rule, changed) >= n


@given(rules, st.lists(st.tuples(demands, st.floats(0, 300)), min_size=1, max_size=20))
def test_up_at_once_and_down_to_the_most_of_the_window(rule, steps):
    now_s, state, said = 0.0, Scaled(rule.least), []
    for demand, pause_s in steps:
        now_s += pause_s
        state = scaled(rule, demand, state, now_s)
        said.append((now_s, sufficient(rule, demand)))
        recent = [n for at_s, n in said if now_s - at_s <= rule.stable_s]
        least = rule.least if now_s - said[0][0] <= rule.stable_s else 0
        assert state.n_replicas == max(*recent, least, rule.least)
        assert len(state.recent) <= rule.most + 2


def test_what_there_is_stays_for_a_whole_window():
    rule = Scaling(stable_s=300.0)
    state = scaled(rule, Demand(0.1, 1.0), Scaled(5), 0.0)
    assert state.n_replicas == 5
    state = scaled(rule, Demand(0.1, 1.0), state, 300.0)
    assert state.n_replicas == 5
    assert scaled(rule, Demand(0.1, 1.0), state, 300.1).n_replicas == 1


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_make_it_flap(seed):
    """A steady rate, measured as the count of the last half minute, for four hours."""
    rng, service_s, rate_per_s, every_s = np.random.default_rng(seed), 4.0, 0.9, 10.0
    counts = rng.poisson(rate_per_s * every_s, 4 * 360)
    seen = [counts[max(k - 3, 0) : k].mean() / every_s for k in range(3, counts.size)]
    changes = {}
    for stable_s in (0.0, 300.0):
        rule, state, replicas = Scaling(stable_s=stable_s, slots=1), Scaled(5), []
        for k, rate in enumerate(seen):
            state = scaled(rule, Demand(float(rate), service_s), state, k * every_s)
            replicas.append(state.n_replicas)
        changes[stable_s] = int(np.count_nonzero(np.diff(replicas)))
    assert changes[300.0] < changes[0.0] / 4
    assert changes[300.0] <= 4 * 10  # ten an hour, up and down


def test_nobody_asks_and_none_are_kept():
    rule = Scaling(least=0, stable_s=60.0)
    state = scaled(rule, Demand(0.0, 1.0), Scaled(2), 0.0)
    assert state.n_replicas == 2
    state = scaled(rule, Demand(0.0, 1.0), state, 61.0)
    assert state.n_replicas == 0
    assert scaled(rule, Demand(0.0, 1.0, n_waiting=1), state, 62.0).n_replicas == 1


def test_a_queue_of_little_traffic_is_that_of_the_textbook():
    # M/M/1: busy^2 / (1 - busy)
    assert expected_queue(0.5, 1) == pytest.approx(0.5)
    # a queue of 0.5 fits one replica, one of 0.51 does not
    assert sufficient(Scaling(target_queue=0.5), Demand(0.5, 1.0)) == 1
    assert sufficient(Scaling(target_queue=0.49), Demand(0.5, 1.0)) == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"target_queue": 0.0}, "target_queue"),
        ({"least": 3, "most": 2}, "least"),
        ({"least": 0, "most": 0}, "most"),
        ({"slots": 0}, "slots"),
        ({"stable_s": -1.0}, "stable_s"),
    ],
)
def test_a_wrong_rule_is_named(changes, named):
    with pytest.raises(ValueError, match=named):
        Scaling(**changes)


@pytest.mark.parametrize("figures", [(-1.0, 1.0, 0), (1.0, float("nan"), 0), (1.0, 1.0, -1)])
def test_a_wrong_demand_is_refused(figures):
    with pytest.raises(ValueError, match="must be finite"):
        Demand(*figures)
