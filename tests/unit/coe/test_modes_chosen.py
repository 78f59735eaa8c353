"""Decisions among modes of several experts: learned ones, and the kind that a request asks for."""

import math
from dataclasses import replace

import numpy as np
import pytest

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.callers import InfeasibleError, RequestError
from coe.mode import Mode
from coe.offers import Menu, Offers
from coe.repertoire import Repertoire
from coe.retrieval import Scales
from coe.routers.modes import ModeTable
from coe.services.wire.chat import decision_document
from coe.wanted import THRESHOLD

# rows: code, maths, anything else
QUALITY = [[0.5, 0.6, 0.7], [0.6, 0.5, 0.5], [0.5, 0.5, 0.6]]
TRIO = Mode("vote", (("a", "b", "c"),))
PAIR = Mode("vote", (("a", "b"),))
CASCADE = Mode("cascade", (("a",), ("b", "c")), 0.6)
STRICT = Policy("strict")


def ask(text="some code", policy=STRICT, **fields):
    return Request((Message("user", text),), policy, **fields)


@pytest.fixture
def specs(make_spec):
    """For 100 tokens: a takes 1.1 s and 11 J, b 2.1 s and 21 J, c 4.1 s and 41 J and 0.04 USD."""
    return [
        make_spec("a", tokens_per_s=100.0, vocabulary="one"),
        make_spec("b", tokens_per_s=50.0, vocabulary="one"),
        make_spec("c", tokens_per_s=25.0, usd_per_mtok_out=400.0, vocabulary="one"),
    ]


def table(gains, se=0.01, reach=0.25):
    """What modes add to their best member in every category, the singles of `QUALITY` among them.

    Parameters
    ----------
    gains : by mode.
    reach : share of prompts for which a cascade goes on.
    """
    ids = ("a", "b", "c")
    modes = (*(Mode.single(name) for name in ids), *gains)
    alone = np.array(QUALITY)
    quality, usage = np.zeros((3, len(modes))), np.zeros((3, len(modes), 3))
    reached = np.zeros((3, len(modes), 2))
    for m, mode in enumerate(modes):
        columns = [ids.index(name) for name in mode.members]
        quality[:, m] = alone[:, columns].max(axis=1) + gains.get(mode, 0.0)
        for s, stage in enumerate(mode.stages):
            reached[:, m, s] = 1.0 if s == 0 else reach
            usage[:, m, [ids.index(name) for name in stage]] = reached[:, m, s][:, None]
    errors = np.full_like(quality, se)
    return ModeTable(("code", "maths", "general"), ids, modes, quality, errors, usage, reached)


@pytest.fixture
def learned(specs, make_router):
    """The router that has learned of these modes."""

    def of(gains, **more):
        repertoire = Repertoire.of(table(gains, **more))
        return replace(make_router(specs, QUALITY), repertoire=repertoire)

    return of


def considered(decision):
    return {decision.selection.mode.name, *(other.expert_id for other in decision.alternatives)}


# ---- when several experts are asked


def test_a_mode_that_gains_more_than_its_standard_error_is_chosen(learned):
    decision = learned({TRIO: 0.05}).decide(ask())
    assert decision.selection.mode == TRIO
    assert decision.selection.expert_ids == ("c", "b", "a")
    assert decision.predicted.quality == pytest.approx(0.75)
    assert decision.predicted.quality_se == 0.01
    assert considered(decision) == {TRIO.name, "a", "b", "c"}


def test_a_gain_within_the_standard_error_is_none(learned):
    decision = learned({TRIO: 0.05}, se=0.06).decide(ask())
    assert decision.selection.mode == Mode.single("c")
    (trio,) = (o for o in decision.alternatives if o.expert_id == TRIO.name)
    assert trio.why_not == "quality +0.05 is within its standard error of 0.06"
    assert "what a + b + c adds, +0.05, is within its standard error of 0.06" in decision.why


def test_a_mode_is_worth_what_it_adds_to_its_best_member_on_this_prompt(learned, specs):
    router = learned({PAIR: 0.3})
    expectation = router.artefact.expectation
    better = replace(expectation.table, quality=np.array([[0.5, 0.65, 0.7], [0.5] * 3, [0.5] * 3]))
    artefact = replace(router.artefact, expectation=replace(expectation, table=better))
    assert replace(router, artefact=artefact).decide(ask()).predicted.quality == pytest.approx(0.95)


def test_what_is_worth_more_than_certainty_is_certain(learned):
    assert learned({TRIO: 0.3}).decide(ask(), loads={}).predicted.quality == pytest.approx(1.0)
    router = learned({TRIO: 0.9 - 0.6})
    assert router.decide(ask("a poem")).predicted.quality <= 1.0


def test_a_vote_is_as_slow_as_its_slowest_and_as_dear_as_all(learned, specs):
    request = ask()
    decision = learned({TRIO: 0.05}).decide(request)
    each = [spec.estimate(0.0, request.prompt_tokens, 100.0) for spec in specs]
    assert decision.predicted.energy_j == pytest.approx(sum(e.energy_j for e in each))
    assert decision.predicted.cost_usd == pytest.approx(sum(e.cost_usd for e in each))
    assert decision.predicted.output_tokens == pytest.approx(300.0)
    # nothing of it is known before the last word is
    assert decision.predicted.latency_ms == decision.predicted.ttft_ms == each[2].latency_ms


def test_a_cascade_is_expected_to_go_on_as_often_as_it_did_and_to_be_safe_always(learned, specs):
    request = ask()
    decision = learned({CASCADE: 0.05}, reach=0.25).decide(request)
    a, b, c = (spec.estimate(0.0, request.prompt_tokens, 100.0) for spec in specs)
    assert decision.selection.mode == CASCADE
    later = b.energy_j + c.energy_j
    assert decision.predicted.energy_j == pytest.approx(a.energy_j + 0.25 * later)
    assert decision.cautious.energy_j == pytest.approx(a.energy_j + later)
    assert decision.predicted.latency_ms == pytest.approx(a.latency_ms + 0.25 * c.latency_ms)
    assert decision.cautious.latency_ms == pytest.approx(a.latency_ms + c.latency_ms)


def test_prices_decide_among_modes(learned):
    router = learned({TRIO: 0.05, CASCADE: 0.04}, reach=0.25)
    assert router.decide(ask()).selection.mode == TRIO
    cheap = Policy("cheap", prices=Prices(per_joule=0.0005))
    decision = router.decide(ask(policy=cheap))
    assert decision.selection.mode == CASCADE
    assert "less against" not in decision.why
    assert "+0.04 against c alone for" in decision.why


def test_ceilings_hold_for_every_stage_and_say_which_would_do(learned):
    router = learned({TRIO: 0.05})
    free = router.decide(ask())
    tight = router.decide(ask(budget=Budget(energy_j=free.cautious.energy_j * 0.99)))
    assert (tight.expert_id, tight.binding) == ("c", "energy_j")
    (trio,) = (o for o in tight.alternatives if o.expert_id == TRIO.name)
    assert trio.violated == ("energy_j",)
    assert trio.why_not.startswith("would win with energy_j >=")
    enough = float(trio.why_not.split()[-1])
    assert router.decide(ask(budget=Budget(energy_j=enough))).selection.mode == TRIO


def test_why_several_and_not_the_best_of_them(learned):
    why = learned({TRIO: 0.05}).decide(ask()).why
    assert why.startswith("code prompt (100%): a + b + c has quality 0.75: +0.05 against c alone")
    assert why.endswith("32 J more, beyond a standard error of 0.01")


def test_a_decision_without_learned_modes_is_the_same_as_ever(learned, specs, make_router):
    fields = {"now": lambda: 0.0, "new_id": lambda: "dec"}
    plain = replace(make_router(specs, QUALITY), **fields)
    for gains in ({}, {TRIO: 0.05}):
        for request in (ask(mode="single"), ask(stream=True), ask(most_experts=1)):
            assert replace(learned(gains), **fields).decide(request) == plain.decide(request)


def test_a_decision_that_speaks_of_the_best_modes_only_is_short(learned):
    gains = {
        Mode("cascade", ((first,), rest), threshold / 100): 0.01 + threshold / 10_000
        for first, rest in [("a", ("b", "c")), ("b", ("a", "c")), ("c", ("a", "b"))]
        for threshold in range(0, 100, 3)
    }
    decision = learned(gains).decide(ask())
    names = considered(decision)
    assert {"a", "b", "c"} < names
    assert len(names) == 3 + 5
    best = max(gains, key=gains.get)
    assert decision.selection.mode.threshold == best.threshold


# ---- who takes part


def test_a_mode_of_who_is_not_there_is_none(learned):
    router = learned({TRIO: 0.05, PAIR: 0.3})
    for request in (ask(allow=frozenset("ac")), ask(deny=frozenset("b"))):
        assert considered(router.decide(request)) == {"a", "c"}
    assert considered(router.decide(ask(), excluded=frozenset("b"))) == {"a", "c"}
    banned = Policy("p", ban=frozenset("b"))
    assert considered(router.decide(ask(policy=banned))) == {"a", "c"}


def test_a_prompt_that_stays_near_is_answered_near(learned, specs):
    near = [replace(spec, local=spec.id != "c") for spec in specs]
    router = replace(learned({TRIO: 0.2, PAIR: 0.1}), specs={spec.id: spec for spec in near})
    decision = router.decide(ask(policy=Policy("p", local_only=True)))
    assert decision.selection.mode == PAIR
    assert considered(decision) == {PAIR.name, "a", "b"}
    afar = replace(router, specs={spec.id: spec for spec in specs})
    for pinned in (None, "a"):
        with pytest.raises(InfeasibleError, match="local_only"):
            afar.decide(ask(policy=Policy("p", local_only=True), pinned=pinned))


def test_a_forced_expert_takes_part(learned):
    router = learned({PAIR: 0.05, TRIO: 0.01})
    forced = Policy("p", force=frozenset("c"))
    decision = router.decide(ask(policy=forced))
    assert considered(decision) == {"c", TRIO.name}
    assert router.decide(ask(policy=forced, stream=True)).expert_id == "c"


def test_forced_experts_vote_where_no_mode_has_them_all(learned, specs, make_router):
    forced = Policy("p", force=frozenset("ab"))
    for router in (learned({CASCADE: 0.05}), make_router(specs, QUALITY)):
        # the cascade may stop before it asks both
        mode = router.decide(ask(policy=forced)).selection.mode
        assert mode == Mode("vote", (("b", "a"),))
        alone = router.decide(ask(policy=forced, stream=True))
        assert considered(alone) == {"a", "b"}


def test_a_cascade_asks_the_forced_first(learned):
    router = learned({CASCADE: 0.05})
    late, early = (Policy("p", force=frozenset(stage)) for stage in CASCADE.stages[::-1])
    assert CASCADE.name not in considered(router.decide(ask(policy=late)))
    assert CASCADE.name in considered(router.decide(ask(policy=early)))
    wanted = ask(mode="cascade", policy=Policy("p", force=frozenset("bc")))
    mode = router.decide(wanted).selection.mode
    assert (mode.kind, set(mode.stages[0]), set(mode.stages[1])) == ("cascade", {*"bc"}, {"a"})
    everyone = ask(mode="cascade", policy=Policy("p", force=frozenset("abc")))
    assert router.decide(everyone).selection.mode.kind == "vote"


def test_a_generalist_takes_part_whenever_several_do(learned, specs):
    shared = [replace(spec, shared=spec.id == "c") for spec in specs]
    router = replace(learned({PAIR: 0.3, TRIO: 0.05}), specs={spec.id: spec for spec in shared})
    assert considered(router.decide(ask())) == {"a", "b", "c", TRIO.name}
    pair = router.decide(ask(mode="vote", most_experts=2)).selection
    assert pair.mode == Mode("vote", (("c", "b"),))
    # where it is not there, it is not waited for
    assert router.decide(ask(), excluded=frozenset("c")).selection.mode == PAIR


def test_more_generalists_than_may_be_asked_leave_no_kind(learned, specs):
    shared = {spec.id: replace(spec, shared=True) for spec in specs}
    router = replace(learned({TRIO: 0.05}), specs=shared)
    with pytest.raises(RequestError, match="3 experts take part") as refused:
        router.decide(ask(mode="vote", most_experts=2))
    assert refused.value.param == "coe.k"
    assert considered(router.decide(ask(most_experts=2))) == {"a", "b", "c"}


# ---- a kind that was asked for


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("vote", Mode("vote", (("c", "b", "a"),))),
        ("mixture", Mode("mixture", (("c", "b", "a"),))),
        ("fuse", Mode("fuse", (("b", "a"), ("c",)))),
    ],
)
def test_a_kind_takes_all_that_may_answer(specs, make_router, kind, mode):
    decision = make_router(specs, QUALITY).decide(ask(mode=kind))
    assert decision.selection.mode == mode
    assert decision.predicted.quality == 0.7
    assert decision.alternatives == ()
    assert decision.why == f"code prompt (100%): {mode.name}, mode {kind} as asked for"


def test_a_kind_is_of_the_best_so_many(specs, make_router):
    router = make_router(specs, QUALITY)
    assert router.decide(ask(mode="vote", most_experts=2)).selection.mode.members == ("c", "b")
    assert router.decide(ask(mode="vote", most_experts=8)).selection.mode.members == tuple("cba")
    few = ask(mode="vote", most_experts=3, allow=frozenset("ab"))
    assert router.decide(few).selection.mode.members == ("b", "a")


@pytest.mark.parametrize("kind", ["vote", "rank", "cascade", "fuse", "mixture"])
def test_a_kind_of_one_is_that_one(specs, make_router, kind):
    fields = {"now": lambda: 0.0, "new_id": lambda: "dec"}
    router = replace(make_router(specs, QUALITY), **fields)
    assert router.decide(ask(mode=kind, allow=frozenset("b"))) == router.decide(
        ask(allow=frozenset("b"))
    )


def test_a_kind_has_the_figures_that_were_learned_of_it(learned):
    router = learned({CASCADE: 0.05, replace(CASCADE, threshold=0.9): 0.06, TRIO: 0.2})
    decision = router.decide(ask(mode="cascade"))
    assert decision.selection.mode == replace(CASCADE, threshold=0.9)
    assert decision.predicted.quality == pytest.approx(0.76)
    assert considered(decision) == {
        CASCADE.name,
        replace(CASCADE, threshold=0.9).name,
    }
    assert router.decide(ask(mode="vote")).selection.mode == TRIO
    assert router.decide(ask(mode="rank")).predicted.quality == 0.7


def test_a_cascade_that_was_not_learned_asks_the_cheapest_first_and_may_ask_all(learned, specs):
    request = ask(mode="cascade")
    decision = learned({TRIO: 0.2}).decide(request)
    assert decision.selection.mode == Mode("cascade", (("a",), ("c", "b")), THRESHOLD)
    assert decision.predicted.quality == 0.7
    each = [spec.estimate(0.0, request.prompt_tokens, 100.0) for spec in specs]
    assert decision.predicted.energy_j == pytest.approx(sum(e.energy_j for e in each))
    assert decision.predicted.latency_ms == each[0].latency_ms + each[2].latency_ms


@pytest.mark.parametrize("request_", [ask(mode="rank"), ask(mode="cascade", most_experts=2)])
def test_what_needs_confidence_needs_to_have_learned_it(specs, make_router, request_):
    with pytest.raises(RequestError, match="how sure") as refused:
        make_router(specs, QUALITY).decide(request_)
    assert (refused.value.param, refused.value.code) == ("coe.mode", "mode_unavailable")


def test_where_no_confidence_was_learned_a_cascade_begins_with_two_who_may_agree(
    specs, make_router
):
    decision = make_router(specs, QUALITY).decide(ask(mode="cascade"))
    assert decision.selection.mode == Mode("cascade", (("a", "b"), ("c",)), THRESHOLD)


def test_who_fuses_reads_the_other_answers(make_spec, make_router):
    writer = make_spec("c", tokens_per_s=25.0)
    reader = replace(writer, profile=replace(writer.profile, ttft_b_ms=2.0, ttft_c_ms=100.0))
    specs = [make_spec("a"), make_spec("b", tokens_per_s=50.0), reader]
    request = ask(mode="fuse")
    decision = make_router(specs, QUALITY).decide(request)
    a, b = (spec.estimate(0.0, request.prompt_tokens, 100.0) for spec in specs[:2])
    c = reader.estimate(0.0, request.prompt_tokens + 200.0, 100.0)
    assert decision.predicted.energy_j == pytest.approx(a.energy_j + b.energy_j + c.energy_j)
    assert decision.predicted.latency_ms == pytest.approx(b.latency_ms + c.latency_ms)
    assert decision.predicted.ttft_ms == pytest.approx(b.latency_ms + c.ttft_ms)


def test_a_mixture_begins_when_its_slowest_does(specs, make_router):
    decision = make_router(specs, QUALITY).decide(ask(mode="mixture"))
    assert decision.predicted.ttft_ms == 100.0
    assert decision.predicted.latency_ms > 4000.0


def test_a_kind_that_does_not_fit_says_what_would_do(specs, make_router):
    router = make_router(specs, QUALITY)
    with pytest.raises(InfeasibleError) as refused:
        router.decide(ask(mode="vote", budget=Budget(energy_j=30.0)))
    enough = refused.value.needed["energy_j"]
    assert 30.0 < enough < math.inf
    fits = router.decide(ask(mode="vote", budget=Budget(energy_j=enough)))
    assert fits.selection.mode.kind == "vote"
    lenient = Policy("p", on_infeasible="nearest")
    nearest = router.decide(ask(mode="vote", policy=lenient, budget=Budget(energy_j=30.0)))
    assert (nearest.status, nearest.selection.mode.kind) == ("nearest", "vote")


def test_answers_that_cannot_be_combined_come_from_one(specs, make_router):
    router = make_router(specs, QUALITY)
    decision = router.decide(ask(mode="vote", payload={"tools": [{}]}))
    assert decision.selection.mode == Mode.single("c")
    assert decision.why.endswith("; one expert: tools cannot be combined")
    assert decision_document(decision)["mode"] == "single"


# ---- beside plans and passages


def planned(learned, means):
    """A plan of a and b, whose sets for code have b only."""
    members = np.array([[False, True]])
    menu = Menu.of(members, np.array([0.6]))
    offers = Offers(("a", "b"), {"code": menu}, means)
    return replace(learned({PAIR: 0.1, TRIO: 0.2}), offers=offers)


def test_under_a_plan_modes_are_of_its_residents(learned):
    assert considered(planned(learned, False).decide(ask())) == {"b", PAIR.name}


def test_a_plan_that_keeps_means_has_no_modes_beyond_its_sets(learned):
    assert considered(planned(learned, True).decide(ask())) == {"b"}


def test_passages_are_paid_for_by_everyone_who_reads_them(make_spec, make_router):
    specs = {name: make_spec(name) for name in "ab"}
    slow = replace(specs["a"].profile, ttft_b_ms=1.0)
    specs = {name: replace(spec, profile=slow) for name, spec in specs.items()}
    router = make_router(list(specs.values()), [[0.5, 0.6]] * 3)
    prices = Policy("p", prices=Prices(per_joule=0.01))
    before = ask(policy=prices)
    after = replace(before, passages_tokens=500)
    both, one = (router.decide(replace(before, mode=kind)) for kind in ("vote", "single"))
    scales = Scales(None, specs, {})
    least = scales.price(one, before, before)
    assert scales.price(both, before, after) - least == pytest.approx(
        2 * (scales.price(one, before, after) - least)
    )
