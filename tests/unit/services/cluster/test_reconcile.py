from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coe.replica import Deployment, HostReport
from coe.services.cluster.reconcile import Changes, Copy, changes

A, B = Deployment("a", "{}"), Deployment("b", '{"other": 1}')
WANTED = {"a": A, "b": B}


def copy(replica_id, deployment=A, state="ready", node="n1", busy=0, leaving=False, digest=None):
    return Copy(
        replica_id,
        deployment.expert_id,
        digest or deployment.digest,
        node,
        HostReport(state, n_running=busy),
        leaving,
    )


def test_nothing_to_do():
    copies = [copy("a-1"), copy("b-1", B)]
    assert changes(WANTED, {"a": 1, "b": 1}, copies) == Changes((), ())


def test_missing_copies_are_started():
    assert changes(WANTED, {"a": 2, "b": 1}, [copy("a-1")]).start == ("a", "b")


def test_an_expert_that_is_wanted_no_more_is_drained_at_once():
    assert changes({"a": A}, {"a": 1}, [copy("a-1"), copy("b-1", B)]) == Changes((), ("b-1",))


def test_of_too_many_the_ones_that_are_not_ready_go_first_then_the_idle():
    copies = [copy("a-1", busy=3), copy("a-2"), copy("a-3", state="starting")]
    assert changes({"a": A}, {"a": 2}, copies).drain == ("a-3",)
    assert changes({"a": A}, {"a": 1}, copies).drain == ("a-3", "a-2")
    assert set(changes({"a": A}, {"a": 0}, copies).drain) == {"a-1", "a-2", "a-3"}


def test_an_old_copy_answers_until_a_new_one_is_ready():
    old = copy("a-1", digest="old")
    assert changes({"a": A}, {"a": 1}, [old]) == Changes(("a",), ())
    starting = copy("a-2", state="starting")
    assert changes({"a": A}, {"a": 1}, [old, starting]) == Changes((), ())
    assert changes({"a": A}, {"a": 1}, [old, copy("a-2")]) == Changes((), ("a-1",))


def test_an_old_copy_that_is_not_ready_goes_at_once():
    old = copy("a-1", digest="old", state="failed")
    assert changes({"a": A}, {"a": 1}, [old]) == Changes(("a",), ("a-1",))


def test_an_old_copy_that_is_quiet_for_a_moment_goes_on_as_a_ready_one_does():
    old = replace(copy("a-1", node="n1", state="starting"), quiet=True)
    starting = copy("a-2", state="starting", node="n2")
    assert changes({"a": A}, {"a": 1}, [old, starting], {"n1"}) == Changes((), ())
    assert changes({"a": A}, {"a": 1}, [old, copy("a-2", node="n2")], {"n1"}).drain == ("a-1",)


def test_a_shunned_node_is_emptied_once_others_can_answer():
    here = copy("a-1", node="n1")
    assert changes({"a": A}, {"a": 1}, [here], {"n1"}) == Changes(("a",), ())
    assert changes({"a": A}, {"a": 1}, [here, copy("a-2", node="n2")], {"n1"}) == Changes(
        (), ("a-1",)
    )


def test_a_copy_that_leaves_is_neither_counted_nor_drained_again():
    assert changes({"a": A}, {"a": 1}, [copy("a-1", leaving=True)]) == Changes(("a",), ())
    assert changes({}, {}, [copy("a-1", leaving=True)]) == Changes((), ())


copies_of = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["ready", "starting", "failed"]),
        st.sampled_from(["n1", "n2"]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=8,
)


@given(copies_of, st.integers(0, 4), st.sets(st.sampled_from(["n1", "n2"])))
def test_doing_it_leads_to_what_is_wanted_and_then_to_rest(drawn, target, shunned):
    """Whatever runs: done over and over while copies become ready, it comes to rest."""
    deployment = {"a": A, "b": B}
    copies = [
        Copy(
            f"r{n}",
            expert_id,
            "old" if old else deployment.get(expert_id, A).digest,
            node,
            HostReport(state),
            leaving,
        )
        for n, (expert_id, state, node, old, leaving) in enumerate(drawn)
    ]
    targets = {"a": target, "b": 1}
    for _ in range(4):
        todo = changes(WANTED, targets, copies, shunned)
        assert len(set(todo.drain)) == len(todo.drain)
        stay = [c for c in copies if c.replica_id not in todo.drain and not c.leaving]
        copies = [replace(c, report=HostReport("ready")) for c in stay]
        copies += [
            Copy(f"new{len(copies)}-{k}-{e}", e, WANTED[e].digest, "good", HostReport("ready"))
            for k, e in enumerate(todo.start)
        ]
    assert changes(WANTED, targets, copies, shunned) == Changes((), ())
    for name, n in targets.items():
        own = [c for c in copies if c.expert_id == name]
        assert len(own) == n
        assert all(c.digest == WANTED[name].digest and c.node not in shunned for c in own)


def test_a_copy_that_waits_away_from_nodes_counts_only_while_all_of_them_are_shunned():
    here = copy("a-1", node="n1")
    waiting = replace(copy("a-2", state="starting", node=""), avoided=frozenset({"n1"}))
    assert changes({"a": A}, {"a": 1}, [here, waiting], {"n1"}) == Changes((), ())
    assert changes({"a": A}, {"a": 1}, [here, waiting]) == Changes((), ("a-2",))
    assert changes({"a": A}, {"a": 1}, [waiting]) == Changes(("a",), ("a-2",))
