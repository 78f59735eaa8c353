"""What the memory of a node promises of every stream of requests."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.optimizer.eviction import first_come, grouped
from coe.optimizer.rehearsal import Call, rehearse
from coe.optimizer.residency import Loadable, Residency

POLICIES = {"grouped": (grouped, False), "loose": (first_come, False), "strict": (first_come, True)}
MAX_WAIT_S, MAX_GROUP = 5.0, 4


@st.composite
def nodes(draw):
    """Experts, a memory that the largest of them fits into, and calls, often many at once."""
    n = draw(st.integers(1, 5))
    experts = {
        f"e{k}": Loadable(
            memory_gb=draw(st.integers(1, 8)),
            load_s=draw(st.sampled_from([0.0, 0.5, 2.0, 7.0])),
            rate_per_s=draw(st.sampled_from([0.0, 0.1, 1.0])),
            slots=draw(st.integers(1, 3)),
        )
        for k in range(n)
    }
    largest = max(one.memory_gb for one in experts.values())
    memory_gb = largest + draw(st.integers(0, 8))
    calls = [
        Call(
            draw(st.integers(0, 120)) / draw(st.sampled_from([1, 8])),
            f"e{draw(st.integers(0, n - 1))}",
            draw(st.sampled_from([0.1, 1.0, 3.0])),
        )
        for _ in range(draw(st.integers(1, 60)))
    ]
    return experts, memory_gb, calls


class Watched(Residency):
    """Checks at every order and start that what is promised of memory and slots holds."""

    def order(self, now_s):
        load = super().order(now_s)
        assert self.free_gb >= -1e-9
        assert sum(one.phase == "loading" for one in self.occupants.values()) <= 1
        if load is not None:
            assert all(self.occupants[name].n_running == 0 for name in load.evict)
        return load

    def start(self, now_s):
        started = super().start(now_s)
        for name, one in self.occupants.items():
            assert one.n_running <= self.experts[name].slots
            assert one.phase == "in" or one.n_running == 0
        return started


def make(experts, memory_gb, name):
    policy, in_order = POLICIES[name]
    return Watched(experts, memory_gb, policy, MAX_WAIT_S, MAX_GROUP, in_order)


@pytest.mark.parametrize("name", POLICIES)
@given(nodes())
def test_every_request_is_answered_within_memory_and_slots(name, drawn):
    experts, memory_gb, calls = drawn
    found = rehearse(make(experts, memory_gb, name), calls)
    assert np.all(found.starts_s >= [call.at_s for call in calls])
    assert found.ends_s - found.starts_s == pytest.approx([call.service_s for call in calls])


@settings(max_examples=300)
@given(nodes())
def test_no_request_starves(drawn):
    experts, memory_gb, calls = drawn
    found = rehearse(make(experts, memory_gb, "grouped"), calls)
    came = np.array([call.at_s for call in calls])
    load_s = max(one.load_s for one in experts.values())
    answer_s = max(call.service_s for call in calls)
    rounds = math.ceil(MAX_GROUP / min(one.slots for one in experts.values()))
    turn_s = 2 * load_s + answer_s + rounds * answer_s
    for at_s, start_s in zip(came, found.starts_s, strict=True):
        due_s = at_s + MAX_WAIT_S
        n_older = int(np.sum((came <= at_s) & (found.starts_s > due_s)))
        bound_s = (len(experts) + 1 + n_older / MAX_GROUP) * turn_s
        assert start_s <= due_s + bound_s + 1e-9


@given(nodes())
def test_strictly_in_order_means_in_the_order_of_arrival(drawn):
    experts, memory_gb, calls = drawn
    calls = sorted(calls, key=lambda call: call.at_s)
    found = rehearse(make(experts, memory_gb, "strict"), calls)
    distinct = np.diff([call.at_s for call in calls]) > 0
    assert np.all(np.diff(found.starts_s)[distinct] >= 0)


@pytest.mark.parametrize("name", POLICIES)
@given(nodes())
def test_with_memory_for_all_nobody_is_loaded_twice(name, drawn):
    experts, _, calls = drawn
    enough = sum(one.memory_gb for one in experts.values())
    found = rehearse(make(experts, enough, name), calls)
    assert found.n_loads <= len(experts)


@given(nodes(), st.randoms(use_true_random=False))
def test_names_do_not_matter_where_nothing_ties(drawn, random):
    """Renamed experts with distinct figures get the same answers at the same times."""
    experts, memory_gb, calls = drawn
    different = {
        name: Loadable(one.memory_gb, one.load_s + 0.01 * k, one.rate_per_s + 0.001 * k, one.slots)
        for k, (name, one) in enumerate(experts.items())
    }
    calls = [
        Call(call.at_s + 1e-3 * n, call.expert_id, call.service_s) for n, call in enumerate(calls)
    ]
    names = list(experts)
    random.shuffle(names)
    renamed = {name: different[name] for name in names}
    one = rehearse(make(different, memory_gb, "grouped"), calls)
    other = rehearse(make(renamed, memory_gb, "grouped"), calls)
    assert one.starts_s == pytest.approx(other.starts_s)
