"""One node, a few requests: who is loaded, who makes room, who waits."""

import pytest

from coe.optimizer.eviction import first_come, grouped
from coe.optimizer.rehearsal import Call, rehearse
from coe.optimizer.residency import Load, Loadable, Residency


def make_node(policy=grouped, memory_gb=2.0, **options):
    """Three experts of 1 GB that load in 10 s and of which two fit; ``a`` is asked for most."""
    experts = {
        "a": Loadable(1.0, 10.0, rate_per_s=0.5),
        "b": Loadable(1.0, 10.0, rate_per_s=0.2),
        "c": Loadable(1.0, 10.0, rate_per_s=0.1),
    }
    return Residency(experts, memory_gb, policy, **options)


def fill(node, *names):
    """Experts that were in memory before."""
    for name in names:
        node.loaded(name, 0.0)


def test_a_request_starts_at_once_where_its_expert_is_in_memory():
    node = make_node()
    fill(node, "a", "b")
    node.wait("r", "a", 1.0)
    assert node.start(1.0) == [("r", "a")]
    assert node.order(1.0) is None


def test_the_next_expert_is_loaded_while_the_present_one_answers():
    node = make_node()
    fill(node, "a")
    node.wait("r1", "a", 1.0)
    node.wait("r2", "c", 1.0)
    assert node.start(1.0) == [("r1", "a")]
    assert node.order(1.0) == Load("c")
    node.loaded("c", 11.0)
    assert node.start(11.0) == [("r2", "c")]


def test_who_is_expected_least_makes_room():
    node = make_node()
    fill(node, "b", "a")
    node.wait("r", "c", 1.0)
    assert node.order(1.0) == Load("c", ("b",))


def test_who_was_used_least_recently_makes_room_in_the_plain_twin():
    node = make_node(first_come)
    fill(node, "a", "b")
    node.wait("r1", "b", 1.0)
    node.wait("r2", "a", 2.0)
    node.start(2.0)
    node.end("b", 3.0)
    node.end("a", 4.0)
    node.wait("r3", "c", 5.0)
    assert node.order(5.0) == Load("c", ("b",))


def test_the_larger_group_is_loaded_first():
    node = make_node(memory_gb=1.0)
    node.wait("r1", "b", 0.0)
    node.wait("r2", "c", 1.0)
    node.wait("r3", "c", 1.0)
    assert node.order(1.0) == Load("c")
    twin = make_node(first_come, memory_gb=1.0)
    twin.wait("r1", "b", 0.0)
    twin.wait("r2", "c", 1.0)
    twin.wait("r3", "c", 1.0)
    assert twin.order(1.0) == Load("b")


def test_a_group_is_served_before_another_expert_takes_its_place_unless_overdue():
    node = make_node(memory_gb=1.0, max_wait_s=30.0, max_group=2)
    fill(node, "c")
    for n in range(4):
        node.wait(f"c{n}", "c", 1.0)
    node.occupants["c"].owed = 2
    node.wait("a0", "a", 2.0)
    assert node.start(2.0) == [("c0", "c")]
    assert node.order(2.0) is None
    assert node.due_s(2.0) == 32.0
    # overdue, but another one of the group is still owed
    assert node.order(32.0) is None
    node.end("c", 33.0)
    assert node.start(33.0) == [("c1", "c")]
    # planned, and drained first
    assert node.order(33.0) is None
    node.end("c", 40.0)
    assert node.start(40.0) == []
    assert node.order(40.0) == Load("a", ("c",))


def test_an_expected_expert_is_loaded_where_nobody_waits():
    node = make_node()
    fill(node, "b", "c")
    assert node.order(0.0) == Load("a", ("c",))
    node.loaded("a", 10.0)
    assert node.order(10.0) is None


def test_only_as_many_make_room_as_are_needed():
    experts = {
        "small": Loadable(1.0, 1.0, 0.1),
        "large": Loadable(3.0, 1.0, 0.9),
        "wanted": Loadable(3.0, 1.0),
    }
    node = Residency(experts, 4.0, grouped)
    fill(node, "small", "large")
    node.wait("r", "wanted", 0.0)
    assert node.order(0.0) == Load("wanted", ("large",))


def test_a_cancelled_request_waits_no_longer():
    node = make_node()
    node.wait("r", "a", 0.0)
    assert node.cancel("r", "a")
    assert not node.cancel("r", "a")
    assert node.start(1.0) == []


def test_a_lost_expert_is_loaded_again():
    node = make_node(memory_gb=1.0)
    node.wait("r", "a", 0.0)
    assert node.order(0.0) == Load("a")
    node.lost("a")
    assert node.order(5.0) == Load("a")
    node.loaded("a", 15.0)
    assert node.start(15.0) == [("r", "a")]
    node.lost("a")
    assert node.free_gb == 1.0


def test_a_rehearsal_says_when_everyone_starts_and_what_was_loaded():
    calls = [Call(0.0, "a", 2.0), Call(1.0, "b", 2.0), Call(30.0, "a", 2.0)]
    found = rehearse(make_node(), calls)
    # a is loaded in 10 s, then b while a answers
    assert found.starts_s.tolist() == [10.0, 20.0, 30.0]
    assert found.ends_s.tolist() == [12.0, 22.0, 32.0]
    assert found.n_loads == 2
    assert found.missed == pytest.approx(2 / 3)
    assert rehearse(make_node(), []).missed == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"memory_gb": 0.5}, "memory_gb"),
        ({"max_wait_s": -1.0}, "max_wait_s"),
        ({"max_group": 0}, "max_group"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(ValueError, match=named):
        make_node(**options)


@pytest.mark.parametrize(
    ("figures", "named"),
    [
        ((-1.0, 1.0), "memory_gb"),
        ((1.0, float("inf")), "load_s"),
        ((1.0, 1.0, float("nan")), "rate_per_s"),
        ((1.0, 1.0, 0.0, 0), "slots"),
    ],
)
def test_a_wrong_figure_is_named(figures, named):
    with pytest.raises(ValueError, match=named):
        Loadable(*figures)
