"""Copies by load: up at once, down later, never beyond the bounds."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.replica import Deployment, HostReport
from coe.services.cluster.targets import LoadTargets

A = Deployment("a", "{}", least=1, most=4, target_queue=1.0)
IDLE = HostReport("ready", slots=2)


def busy(n_running, n_waiting=0):
    return replace(IDLE, n_running=n_running, n_waiting=n_waiting)


def test_a_fixed_number_is_what_it_is():
    assert LoadTargets()(replace(A, least=3, most=3), [busy(2, 50)], 0.0) == 3


def test_a_queue_means_more_at_once():
    targets = LoadTargets()
    assert targets(A, [IDLE], 0.0) == 1
    assert targets(A, [busy(2, 3)], 0.5) == 3
    assert targets(A, [busy(2, 300)], 1.0) == 4


def test_slots_that_stay_busy_mean_more_though_nobody_waits_yet():
    targets = LoadTargets()
    assert [targets(A, [busy(2)], float(t)) for t in range(60)][-1] > 1


@pytest.mark.parametrize("stable_s", [60.0, 300.0])
def test_fewer_only_once_fewer_have_sufficed_for_a_while(stable_s):
    targets = LoadTargets(stable_s)
    assert targets(A, [busy(2, 3)], 0.0) == 3
    quiet = [(t, targets(A, [IDLE] * 3, float(t))) for t in range(1, 500)]
    fell = next(t for t, n in quiet if n < 3)
    assert fell > stable_s
    assert quiet[-1][1] == 1


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 50)), min_size=1, max_size=20))
def test_within_the_bounds_whatever_the_copies_say(said):
    targets = LoadTargets(stable_s=5.0)
    for t, (n_running, n_waiting) in enumerate(said):
        assert 1 <= targets(A, [busy(n_running, n_waiting)], float(t)) <= 4
    assert targets(A, [], 100.0) >= 1
