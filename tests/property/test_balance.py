"""What the choice of a replica promises of every state, and of streams of requests."""

import heapq
import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.optimizer.balance import MEMORY_S, MOST_PENALTY_S, PENALTY_S, ReplicaState, Sent, pick

NOW_S = 1000.0

states = st.builds(
    ReplicaState,
    replica_id=st.just(""),
    draining=st.booleans(),
    n_in_flight=st.integers(0, 20),
    slowness=st.floats(0, 100),
    seen_s=st.just(-math.inf) | st.floats(0, NOW_S),
    avoided_until_s=st.just(-math.inf) | st.floats(0, 2 * NOW_S),
).map(lambda one: replace(one, began_s=one.n_in_flight * 995.0, expected_s=one.n_in_flight * 2.0))
fleets = st.lists(states, max_size=6).map(
    lambda each: [replace(one, replica_id=str(n)) for n, one in enumerate(each)]
)


@given(fleets, st.integers(0, 99))
def test_only_those_that_take_requests_are_picked(replicas, seed):
    chosen = pick(replicas, Random(seed), NOW_S)
    taking = [one for one in replicas if not one.draining]
    healthy = [one for one in taking if one.avoided_until_s <= NOW_S]
    assert chosen in (healthy or taking or [None])


@given(fleets, st.integers(0, 99))
def test_the_same_draws_pick_the_same(replicas, seed):
    assert pick(replicas, Random(seed), NOW_S) is pick(replicas, Random(seed), NOW_S)


@given(fleets, st.integers(0, 99))
def test_the_dearest_of_several_is_never_picked(replicas, seed):
    able = [one for one in replicas if not one.draining and one.avoided_until_s <= NOW_S]
    costs = sorted(one.cost(NOW_S) for one in able)
    chosen = pick(replicas, Random(seed), NOW_S)
    if len(able) > 1 and costs[-1] > costs[-2]:
        assert chosen.cost(NOW_S) < costs[-1]


@given(fleets)
def test_costs_are_numbers(replicas):
    for one in replicas:
        assert one.cost(NOW_S) >= 0
        assert not math.isnan(one.cost(NOW_S))


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=1, max_size=20))
def test_a_slowness_lies_among_those_measured_and_jumps_to_a_peak(steps):
    one, now_s, seen = ReplicaState("a"), 0.0, []
    for taken_s, pause_s in steps:
        sent = Sent(now_s, expected_s=2.0)
        one.begin(sent)
        now_s += taken_s
        one.end(sent, now_s)
        seen.append(taken_s / 2.0)
        assert min(seen) - 1e-6 <= one.slowness <= max(seen) + 1e-6
        assert one.slowness >= taken_s / 2.0 - 1e-6
        now_s += pause_s
    assert (one.n_in_flight, one.began_s, one.expected_s) == (0, 0.0, 0.0)


def run(replicas, service_s, n_requests, rate_per_s, seed, failing=()):
    """How many requests each replica got; every one answers them one after another."""
    rng, random = np.random.default_rng(seed), Random(seed)
    free_s, got, ends = dict.fromkeys(service_s, 0.0), dict.fromkeys(service_s, 0), []
    for now_s in np.cumsum(rng.exponential(1 / rate_per_s, n_requests)).tolist():
        while ends and ends[0][0] <= now_s:
            end_s, _, sent, one = heapq.heappop(ends)
            (one.fail if one.replica_id in failing else one.end)(sent, end_s)
        one = pick(replicas, random, now_s)
        name = one.replica_id
        got[name] += 1
        one.begin(Sent(now_s))
        free_s[name] = max(free_s[name], now_s) + service_s[name] * rng.uniform(0.5, 1.5)
        heapq.heappush(ends, (free_s[name], sum(got.values()), Sent(now_s), one))
    return got


def fleet(n):
    return [ReplicaState(f"r{k}") for k in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_replicas_of_one_kind_get_nearly_the_same(seed):
    replicas = fleet(4)
    got = run(replicas, {one.replica_id: 1.0 for one in replicas}, 4000, 2.8, seed)
    assert max(got.values()) / min(got.values()) < 1.15


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_replica_gets_less(seed):
    replicas = fleet(4)
    got = run(replicas, {"r0": 4.0, "r1": 1.0, "r2": 1.0, "r3": 1.0}, 4000, 2.0, seed)
    assert got["r0"] < 0.5 * min(got["r1"], got["r2"], got["r3"])
    assert got["r0"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_a_replica_that_fails_is_hardly_asked(seed):
    replicas = fleet(4)
    got = run(replicas, {f"r{k}": 1.0 for k in range(4)}, 4000, 2.0, seed, failing={"r0"})
    # in 2,000 s one try a minute, and what is sent before the first has failed
    assert got["r0"] < 4000 * 0.03


def test_a_failure_is_forgiven_after_its_time_and_doubles_without_an_answer_between():
    one, other = fleet(2)
    for began_s, n in ((0.0, 0), (100.0, 1), (200.0, 2)):
        one.begin(Sent(began_s))
        one.fail(Sent(began_s), began_s)
        until_s = began_s + PENALTY_S * 2.0**n
        assert pick([one, other], Random(0), until_s - 0.01) is other
        assert {pick([one, other], Random(k), until_s).replica_id for k in range(9)} == {"r0", "r1"}
    for _ in range(20):
        one.begin(Sent(300.0))
        one.fail(Sent(300.0), 300.0)
    assert one.avoided_until_s == 300.0 + MOST_PENALTY_S
    one.begin(Sent(400.0))
    one.end(Sent(400.0), 401.0)
    assert one.avoided_until_s == -math.inf


def test_a_new_replica_is_tried_by_one_request_until_it_has_answered():
    known, new = fleet(2)
    known.begin(Sent(0.0))
    known.end(Sent(0.0), 1.0)
    assert pick([known, new], Random(0), 1.0) is new
    new.begin(Sent(1.0))
    known.begin(Sent(1.0))
    assert all(pick([known, new], Random(k), 2.0) is known for k in range(9))
    new.end(Sent(1.0), 2.0)
    assert pick([known, new], Random(0), 2.0) is new


def test_a_replica_that_hangs_is_not_tried_again_while_one_that_was_slow_is():
    fast, other = fleet(2)
    for one, taken_s in ((fast, 1.0), (other, 20.0)):
        one.begin(Sent(0.0))
        one.end(Sent(0.0), taken_s)
    assert pick([fast, other], Random(0), 20.0) is fast
    # the fast one goes on answering, nothing is heard of the other
    later_s = 20.0 + 10 * MEMORY_S
    last = Sent(later_s - 1.0)
    fast.begin(last)
    fast.end(last, later_s)
    assert pick([fast, other], Random(0), later_s) is other
    other.begin(Sent(20.0))
    assert pick([fast, other], Random(0), later_s) is fast


def test_an_answer_that_the_caller_gave_up_teaches_nothing():
    (one,) = fleet(1)
    one.begin(Sent(0.0))
    one.end(Sent(0.0), 100.0, measured=False)
    assert (one.n_in_flight, one.slowness, one.seen_s) == (0, 0.0, -math.inf)


def test_a_long_answer_that_was_expected_does_not_make_a_replica_slow():
    one, other = fleet(2)
    for replica, taken_s in ((one, 2.0), (other, 30.0)):
        sent = Sent(0.0, expected_s=taken_s)
        replica.begin(sent)
        replica.end(sent, taken_s * 1.1)
        replica.seen_s = 40.0
    assert one.cost(40.0) == pytest.approx(other.cost(40.0))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_of_known_costs_shares_are_those_of_the_better_of_two(n):
    """T-P07: the k-th cheapest of n is picked in 2 (n - k) of n (n - 1) draws."""
    replicas, random, n_draws = fleet(n), Random(7), 20_000
    for k, one in enumerate(replicas):
        one.slowness, one.seen_s = 1.0 + k, 0.0
    got = dict.fromkeys((one.replica_id for one in replicas), 0)
    for _ in range(n_draws):
        got[pick(replicas, random, 0.0).replica_id] += 1
    for k, share in enumerate((count / n_draws for count in got.values()), 1):
        assert share == pytest.approx(2 * (n - k) / (n * (n - 1)), rel=0.05, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [2, 4])
def test_a_replica_that_fails_in_a_millisecond_attracts_nobody(n, seed):
    """T-F02: at 50 a second, after two seconds at most one in twenty."""
    replicas = fleet(n)
    service_s = {one.replica_id: 0.005 for one in replicas} | {"r0": 0.001}
    got = run(replicas, service_s, 100, 50.0, seed, failing={"r0"})
    assert got["r0"] <= 10
    later = run(replicas, service_s, 2000, 50.0, seed + 1, failing={"r0"})
    assert later["r0"] <= 0.05 * 2000


@pytest.mark.parametrize("seed", range(3))
def test_a_replica_that_is_twenty_times_slower_gets_little(seed):
    """T-F05: at most one in ten after ten seconds."""
    replicas = fleet(2)
    got = run(replicas, {"r0": 1.0, "r1": 0.05}, 400, 4.0, seed)
    assert got["r0"] <= 0.1 * 400
