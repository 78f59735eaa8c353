"""The queues of a simulation equal their slow twin, and keep what queues must keep."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coe.core import ExpertSpec
from coe.kernels import reference
from coe.kernels.queues import Queues, Requests, loads_ahead, serve
from coe.load import Load
from coe.optimizer.balance import ReplicaState, Sent, pick

# whole seconds bring arrivals and ends that coincide
times = st.integers(0, 5).map(float) | st.floats(0, 5)
draws = st.floats(0, 1, exclude_max=True)
expected = st.sampled_from([1.0, 2.0]) | st.floats(0.1, 10)


@st.composite
def fleets(draw):
    """Requests, replicas and slots of up to three experts."""
    n_experts = draw(st.integers(1, 3))
    rows = draw(
        st.lists(
            st.tuples(times, st.integers(-1, n_experts - 1), times, expected, draws, draws),
            min_size=1,
            max_size=20,
        )
    )
    gaps_s, expert, service_s, expected_s, *two = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    counts = st.lists(st.integers(1, 3), min_size=n_experts, max_size=n_experts)
    requests = Requests(np.cumsum(gaps_s), expert, service_s, expected_s, np.column_stack(two))
    return requests, np.array(draw(counts)), np.array(draw(counts))


def served(requests, replicas, slots):
    queues = Queues.empty(replicas, slots, requests.at_s.size)
    serve(queues, requests, (0, requests.at_s.size))
    return queues


def spec(slots):
    profile = None  # a load knows of slots only
    return ExpertSpec("any", profile, slots=int(slots))


class Balanced:
    """The choice among replicas of `coe.optimizer.balance`, with the draws of the requests."""

    def __init__(self, requests, n_replicas):
        self.requests = requests
        self.states = [ReplicaState(str(r)) for r in range(n_replicas)]

    def sent(self, i):
        return Sent(float(self.requests.at_s[i]), float(self.requests.expected_s[i]))

    def pick(self, replicas, i):
        draw = iter(self.requests.draws[i].tolist())
        rng = SimpleNamespace(random=lambda: next(draw))
        chosen = pick([self.states[r] for r in replicas], rng, float(self.requests.at_s[i]))
        chosen.begin(self.sent(i))
        return int(chosen.replica_id)

    def leave(self, r, i, end_s):
        usual_s = float(self.requests.service_s[i]) or None
        self.states[r].end(self.sent(i), end_s, usual_s=usual_s)


@given(fleets())
def test_queues_equal_their_twin(fleet):
    requests, replicas, slots = fleet
    queues = served(*fleet)
    columns = [column.tolist() for column in requests[:3]]
    balanced = Balanced(requests, int(replicas.sum()))
    found, ended, seen = reference.queues(
        *columns, replicas.tolist(), slots.tolist(), balanced.pick, balanced.leave
    )
    assert queues.replica.tolist() == [r for r, _, _ in found]
    np.testing.assert_array_equal(queues.start_s, [start for _, start, _ in found])
    np.testing.assert_array_equal(queues.end_s, [end for _, _, end in found])
    assert queues.ended[: queues.n[1]].tolist() == ended
    empty = Queues.empty(replicas, slots, requests.at_s.size)
    n_in_flight, _ = loads_ahead(empty, requests, (0, requests.at_s.size))
    assert n_in_flight.tolist() == seen


@given(fleets())
def test_loads_are_those_of_the_engine(fleet):
    requests, replicas, slots = fleet
    n = requests.at_s.size
    specs = [spec(count) for count in replicas * slots]
    queues = served(*fleet)
    n_in_flight, slowdown = loads_ahead(Queues.empty(replicas, slots, n), requests, (0, n))
    loads, stretch = [Load()] * len(specs), {}
    ended = queues.ended[: queues.n[1]].tolist()
    for i in range(n):
        while ended and ended[0] < i and queues.end_s[ended[0]] <= requests.at_s[i]:
            j = ended.pop(0)
            e, predicted_s = requests.expert[j], requests.service_s[j] * stretch[j]
            took_s = queues.end_s[j] - requests.at_s[j]
            loads[e] = loads[e].left(took_s / predicted_s if predicted_s > 0 else None)
        assert n_in_flight[i].tolist() == [load.n_in_flight for load in loads]
        np.testing.assert_allclose(slowdown[i], [load.slowdown for load in loads], rtol=1e-12)
        if (e := requests.expert[i]) >= 0:
            stretch[i] = specs[e].stretch(loads[e])
            loads[e] = loads[e].entered()


@given(fleets(), st.sets(st.integers(0, 19)))
def test_serving_in_parts_and_looking_ahead_change_nothing(fleet, cuts):
    requests, replicas, slots = fleet
    n = requests.at_s.size
    whole = served(*fleet)
    queues = Queues.empty(replicas, slots, n)
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < n), n]
    for first, last in itertools.pairwise(edges):
        loads_ahead(queues, requests, (first, n))
        serve(queues, requests, (first, last))
    n_ended = whole.n[1]
    for name in ("replica", "start_s", "end_s", "n_inside", "seen", "n_in_flight", "slowdown", "n"):
        np.testing.assert_array_equal(getattr(queues, name), getattr(whole, name))
    np.testing.assert_array_equal(queues.ended[:n_ended], whole.ended[:n_ended])


@given(fleets())
def test_every_request_ends_once_and_none_waits_beside_a_free_slot(fleet):
    requests, _, slots = fleet
    queues = served(*fleet)
    asked = np.flatnonzero(requests.expert >= 0)
    assert sorted(queues.ended[: queues.n[1]].tolist()) == asked.tolist()
    assert not queues.n_inside.any()
    assert not queues.n_in_flight.any()
    np.testing.assert_array_equal(
        queues.end_s[asked], queues.start_s[asked] + requests.service_s[asked]
    )
    for i in asked:
        others = asked[(queues.replica[asked] == queues.replica[i]) & (asked != i)]
        began = others[queues.start_s[others] <= queues.start_s[i]]
        busy = (queues.end_s[began] >= queues.start_s[i]).sum()
        waited = queues.start_s[i] - requests.at_s[i]
        assert waited >= 0
        assert waited == 0 or busy >= slots[requests.expert[i]]


def test_one_slot_is_first_come_first_served():
    at_s, service_s = np.array([0.0, 1.0, 2.0]), np.array([5.0, 1.0, 1.0])
    requests = Requests(at_s, np.zeros(3, dtype=np.int64), service_s, np.ones(3), np.zeros((3, 2)))
    queues = served(requests, np.array([1]), np.array([1]))
    assert queues.start_s.tolist() == [0.0, 5.0, 6.0]
    assert queues.n_inside.tolist() == [0]
    assert math.isinf(queues.slowdown[0]) is False
