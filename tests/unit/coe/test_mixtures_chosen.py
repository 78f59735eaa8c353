"""Which experts may write an answer together, and what stands in the way of it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.core import Message, Policy, Request
from coe.errors.callers import RequestError
from coe.mode import Mode
from coe.permitted import Circle
from coe.repertoire import Repertoire
from coe.routers.modes import ModeTable

QUALITY = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.9}
PAIR, MIXTURE = Mode("vote", (("a", "b"),)), Mode("mixture", (("a", "b"),))


def ask(policy=None, **fields):
    return Request((Message("user", "some code"),), policy or Policy("p"), **fields)


@pytest.fixture
def router(make_spec, make_router):
    """Over experts of these vocabularies, each better than the one before."""

    def of(**vocabularies):
        specs = [make_spec(name, vocabulary=said) for name, said in vocabularies.items()]
        return make_router(specs, [[QUALITY[spec.id] for spec in specs]] * 3)

    return of


@pytest.fixture
def learned(router):
    """Who has learned that a and b vote better than alone, and write together best."""
    ids, modes = ("a", "b"), (Mode.single("a"), Mode.single("b"), PAIR, MIXTURE)
    quality = np.tile([0.5, 0.6, 0.7, 0.8], (3, 1))
    usage = np.tile([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]], (3, 1, 1))
    table = ModeTable(
        ("code", "maths", "general"), ids, modes, quality, 0.01 * quality, usage, np.ones((3, 4, 1))
    )

    def of(**vocabularies):
        return replace(router(**vocabularies), repertoire=Repertoire.of(table))

    return of


def mode(router, request, **more):
    return router.decide(request, **more).selection.mode


def refused(router, request, **more):
    """What of a refusal is said to a person."""
    with pytest.raises(RequestError) as error:
        router.decide(request, **more)
    assert (error.value.param, error.value.code) == ("coe.mode", "mode_unavailable")
    return str(error.value)


# ---- a mixture that was asked for


def test_experts_of_one_vocabulary_write_together_the_best_first(router):
    asked = ask(mode="mixture")
    assert mode(router(a="v", b="v", c=None), asked) == Mode("mixture", (("b", "a"),))
    # the best of all shares its vocabulary with nobody
    assert mode(router(a="v", b="v", d="w"), asked) == Mode("mixture", (("b", "a"),))


def test_of_two_vocabularies_that_of_the_best_expert_is_taken(router):
    several = router(a="v", b="w", c="v", d="w")
    assert mode(several, ask(mode="mixture")).members == ("d", "b")
    assert mode(several, ask(mode="mixture", deny=frozenset("d"))).members == ("c", "a")


def test_as_many_write_as_may_be_asked(router):
    four = router(a="v", b="v", c="v", d="v")
    assert mode(four, ask(mode="mixture", most_experts=3)).members == ("d", "c", "b")
    assert mode(four, ask(mode="mixture", most_experts=1)) == Mode.single("d")
    assert mode(four, ask(mode="mixture", stream=True)).members == ("d", "c", "b", "a")


def test_who_must_take_part_decides_on_the_vocabulary(router):
    several = router(a="v", b="w", c="v", d="w")
    forced = ask(Policy("p", force=frozenset("a")), mode="mixture")
    assert mode(several, forced).members == ("c", "a")
    both = ask(Policy("p", force=frozenset("ab")), mode="mixture")
    assert "share a vocabulary" in refused(several, both)


@pytest.mark.parametrize("vocabularies", [{"a": None, "b": None}, {"a": "v", "b": "w", "c": None}])
def test_without_a_shared_vocabulary_there_is_no_mixture(router, vocabularies):
    said = refused(router(**vocabularies), ask(mode="mixture"))
    assert said == (
        "no two experts that may write this answer together share a vocabulary: "
        "ask for another mode"
    )


def test_only_experts_that_may_answer_count(router):
    three = router(a="v", b="v", c="w")
    for fields in ({"allow": frozenset("ac")}, {"deny": frozenset("a")}):
        assert "share a vocabulary" in refused(three, ask(mode="mixture", **fields))
    assert "share a vocabulary" in refused(
        three, ask(Policy("p", ban=frozenset("b")), mode="mixture")
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]), ("logprobs", True), ("response_format", {"type": "x"}),
        ("logit_bias", {"5": 1}), ("n", 2),
    ],
)  # fmt: skip
def test_what_a_mixture_cannot_do_is_named(router, learned, field, value):
    request = ask(payload={field: value}, n_answers=value if field == "n" else 1)
    asked = replace(request, mode="mixture")
    for some in (router(a="v", b="v"), learned(a="v", b="v")):
        assert f"cannot do {field!r}" in refused(some, asked)
        assert mode(some, replace(asked, allow=frozenset("a"))) == Mode.single("a")
        assert mode(some, replace(asked, pinned="a")) == Mode.single("a")


def test_what_drawing_is_told_stands_in_nobody_s_way(router):
    payload = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x"], "tools": None}
    assert mode(router(a="v", b="v"), ask(mode="mixture", payload=payload)).kind == "mixture"


def test_who_is_left_of_a_mixture_answers_alone(router):
    two, gone = router(a="v", b="v", c=None), frozenset("b")
    assert mode(two, ask(mode="mixture"), excluded=gone) == Mode.single("c")
    assert mode(two, ask(mode="mixture", allow=frozenset("ab")), excluded=gone) == Mode.single("a")
    three = router(a="v", b="v", c="v")
    assert mode(three, ask(mode="mixture"), excluded=gone).members == ("c", "a")
    # with all of them there were none either
    assert "share" in refused(router(a="v", b="w", c=None), ask(mode="mixture"), excluded=gone)


# ---- a mixture that was learned


def test_a_learned_mixture_is_chosen_among_experts_of_one_vocabulary(learned):
    assert mode(learned(a="v", b="v"), ask()) == MIXTURE
    for vocabularies in ({"a": "v", "b": "w"}, {"a": None, "b": None}, {"a": "v", "b": None}):
        decision = learned(**vocabularies).decide(ask())
        assert decision.selection.mode == PAIR
        assert MIXTURE.name not in {other.expert_id for other in decision.alternatives}


def test_a_learned_mixture_is_not_offered_to_a_request_that_it_cannot_serve(learned):
    both = learned(a="v", b="v")
    assert mode(both, ask(payload={"response_format": {"type": "json_object"}})) == PAIR
    assert mode(both, ask(payload={"temperature": 1.0})) == MIXTURE


def test_a_mixture_that_was_asked_for_has_the_figures_that_were_learned(learned):
    assert learned(a="v", b="v").decide(ask(mode="mixture")).predicted.quality == pytest.approx(0.8)


# ---- which sets share a vocabulary

NAMES = tuple("abcd")
SHARED = st.lists(st.sampled_from(["v", "w", None]), min_size=4, max_size=4)


@given(SHARED, st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_set_mixes_if_all_its_members_state_the_same(vocabularies, shared):
    circle = Circle(NAMES, 8, np.zeros(4, dtype=bool), np.array(shared), tuple(vocabularies))
    members = np.array([s for s in itertools.product([False, True], repeat=4) if sum(s) > 1])
    mixed = circle.mixes(members) & circle.admits(members)
    for row, found in zip(members, mixed, strict=True):
        said = {vocabularies[k] for k in np.flatnonzero(row)}
        whole = all(row[k] for k in range(4) if shared[k])
        assert found == (len(said) == 1 and None not in said and whole)
    best = {frozenset(group) for group in circle.mixable}
    largest = {
        frozenset(np.flatnonzero(row).tolist())
        for row in members[mixed]
        if not any(np.all(other >= row) and other.sum() > row.sum() for other in members[mixed])
    }
    assert best == largest
