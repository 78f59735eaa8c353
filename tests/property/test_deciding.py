"""What decisions among modes of several experts promise, whatever was learned."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.callers import RequestError
from coe.mode import Mode
from coe.optimizer.stages import Stages
from coe.repertoire import Repertoire
from coe.routers.modes import ModeTable
from coe.slate import Slate

IDS = ("a", "b", "c", "d")
CATEGORIES = ("code", "maths", "general")
shares = st.floats(0, 1)


@st.composite
def modes(draw):
    """A mode of several of the experts."""
    chosen = draw(st.permutations(IDS))[: draw(st.integers(2, len(IDS)))]
    kind = draw(st.sampled_from(["vote", "rank", "mixture", "cascade", "fuse"]))
    if kind == "fuse":
        return Mode(kind, (tuple(chosen[:-1]), tuple(chosen[-1:])))
    if kind == "cascade":
        cut = draw(st.integers(1, len(chosen) - 1))
        return Mode(kind, (tuple(chosen[:cut]), tuple(chosen[cut:])), 0.5)
    return Mode(kind, (tuple(chosen),))


@st.composite
def tables(draw):
    """Singles of every expert, and a few modes, with figures of any kind."""
    several = draw(st.lists(modes(), max_size=6, unique=True))
    every = (*(Mode.single(name) for name in IDS), *several)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (len(CATEGORIES), len(every))
    usage, reach = np.zeros((*shape, len(IDS))), np.zeros((*shape, 2))
    for m, mode in enumerate(every):
        for s, stage in enumerate(mode.stages):
            reach[:, m, s] = 1.0 if s == 0 else rng.uniform(size=len(CATEGORIES))
            usage[:, m, [IDS.index(name) for name in stage]] = reach[:, m, s][:, None]
    quality, errors = rng.uniform(size=shape), rng.uniform(0, 0.1, shape)
    return ModeTable(CATEGORIES, IDS, every, quality, errors, usage, reach)


@st.composite
def cases(draw, make_spec, make_router, **spec):
    """A router that learned a table, and a request."""
    table = draw(tables())
    specs = [
        make_spec(
            name,
            tokens_per_s=draw(st.sampled_from([10.0, 30.0, 100.0])),
            local=draw(st.booleans()),
            shared=draw(st.booleans()),
        )
        for name in IDS
    ]
    router = make_router(specs, table.quality[:, : len(IDS)], cautious_tokens=150.0)
    router = replace(router, repertoire=Repertoire.of(table), now=lambda: 0.0, new_id=lambda: "dec")
    names = st.frozensets(st.sampled_from(IDS), max_size=2)
    ban = draw(names)
    policy = Policy(
        "p",
        prices=Prices(per_joule=draw(st.sampled_from([0.0, 1e-4, 1e-2]))),
        combine=draw(st.sampled_from(["whole", "always"])),
        most_experts=draw(st.none() | st.integers(2, 4)),
        local_only=draw(st.booleans()),
        ban=ban,
        force=draw(names) - ban,
    )
    text = draw(st.sampled_from(["some code", "some maths", "a poem"]))
    kind = draw(st.sampled_from([None, None, "vote", "cascade", "fuse", "mixture"]))
    ceiling = draw(st.none() | st.floats(1, 2000))
    return router, Request(
        (Message("user", text),),
        policy,
        Budget(energy_j=ceiling),
        mode=kind,
        most_experts=draw(st.none() | st.integers(1, 4)),
        stream=draw(st.booleans()),
    )


def decided(router, request):
    try:
        return router.decide(request)
    except RequestError:
        return None


@given(st.data())
def test_nobody_takes_part_who_must_not_and_everybody_who_must(make_spec, make_router, data):
    router, request = data.draw(cases(make_spec, make_router))
    request = replace(request, mode=None)
    policy, there = request.policy, set(IDS) - request.policy.ban
    if policy.local_only:
        there = {name for name in there if router.specs[name].local}
    shared = {name for name in there if router.specs[name].shared}
    # where the forced and the generalists are too many, the request is refused
    request = replace(request, most_experts=max(4, request.most_experts or 4))
    request = replace(request, policy=replace(policy, most_experts=None))
    decision = decided(router, request)
    if decision is None:
        return
    considered = [decision.selection.mode]
    by_name = {mode.name: mode for mode in router.repertoire.modes}
    considered += [
        by_name.get(o.expert_id) or Mode.single(o.expert_id) for o in decision.alternatives
    ]
    for mode in considered:
        members = set(mode.members)
        assert members <= there
        asked = set(mode.stages[0]) if mode.kind == "cascade" else members
        assert policy.force <= asked
        assert len(members) == 1 or shared <= members


@given(st.data())
def test_a_choice_keeps_its_ceilings_whatever_a_cascade_does(make_spec, make_router, data):
    router, request = data.draw(cases(make_spec, make_router))
    request = replace(request, policy=replace(request.policy, force=frozenset()))
    request = replace(request, most_experts=4)
    decision = decided(router, request)
    if decision is None or request.budget.energy_j is None:
        return
    assert decision.cautious.energy_j <= request.budget.energy_j * (1 + 1e-12)
    each = sum(
        router.specs[name].estimate(0.0, request.prompt_tokens, 150.0).energy_j
        for name in decision.selection.mode.members
    )
    assert decision.cautious.energy_j >= each * (1 - 1e-12)
    assert decision.predicted.energy_j <= decision.cautious.energy_j * (1 + 1e-12)
    assert decision.predicted.latency_ms <= decision.cautious.latency_ms * (1 + 1e-12)


def best_utility(router, request):
    """Utility of what is chosen, a standard error less where that was learned of several."""
    decision = decided(router, request)
    if decision is None:
        return -np.inf
    expected = decision.predicted
    sure = decision.selection.mode.kind != "single"
    quality = max(expected.quality - expected.quality_se * sure, 0.0)
    return quality - request.policy.prices.per_joule * expected.energy_j


@given(st.data(), st.floats(1, 2000), st.floats(1, 10))
def test_a_larger_budget_is_never_worth_less(make_spec, make_router, data, joules, factor):
    router, request = data.draw(cases(make_spec, make_router))
    request = replace(request, mode=None, most_experts=4)
    request = replace(request, policy=replace(request.policy, most_experts=None))
    less, more = (
        replace(request, budget=Budget(energy_j=ceiling)) for ceiling in (joules, joules * factor)
    )
    assert best_utility(router, less) <= best_utility(router, more) + 1e-12


@given(st.data())
def test_one_expert_alone_is_decided_on_as_ever(make_spec, make_router, data):
    router, request = data.draw(cases(make_spec, make_router))
    free = replace(request.policy, force=frozenset(), ban=frozenset(), local_only=False)
    request = replace(request, policy=free, allow=frozenset({"c"}), most_experts=None)
    plain = replace(request, mode=None)
    assert decided(router, request) == decided(replace(router, repertoire=None), plain)


@given(st.data(), st.permutations(range(len(IDS))))
@settings(max_examples=50)
def test_the_order_of_experts_decides_nothing(make_spec, make_router, data, order):
    router, request = data.draw(cases(make_spec, make_router))
    request = replace(request, most_experts=4)
    request = replace(request, policy=replace(request.policy, most_experts=None))
    known = router.artefact.expectation.table
    columns = list(order)
    table = replace(
        known,
        expert_ids=tuple(IDS[k] for k in columns),
        **{
            name: getattr(known, name)[:, columns]
            for name in ("quality", "quality_se", "mean_tokens", "cautious_tokens")
        },
    )
    artefact = replace(
        router.artefact, expectation=replace(router.artefact.expectation, table=table)
    )
    mine, theirs = decided(router, request), decided(replace(router, artefact=artefact), request)
    if mine is None or theirs is None:
        assert mine is theirs
        return
    assert theirs.selection.mode == mine.selection.mode
    assert theirs.predicted == mine.predicted


@given(st.lists(modes(), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
def test_what_stages_take_is_what_a_walk_through_them_takes(many, seed):
    rng = np.random.default_rng(seed)
    each = rng.uniform(size=(len(IDS), 5))
    each[:, 0] += each[:, 1]
    stages = Stages.of(many, IDS)
    usage = stages.usage * rng.uniform(size=stages.usage.shape)
    reach = stages.reach * rng.uniform(size=stages.reach.shape)
    found = stages.taken(each, usage, reach)
    for m, mode in enumerate(many):
        latency = ttft = 0.0
        for s, stage in enumerate(mode.stages):
            rows = [each[IDS.index(name)] for name in stage]
            ttft = latency + reach[s, m] * max(row[1] for row in rows)
            latency += reach[s, m] * max(row[0] for row in rows)
        if mode.kind not in ("fuse", "mixture"):
            ttft = latency
        sums = sum(usage[k, m] * each[k, 2:] for k in range(len(IDS)))
        np.testing.assert_allclose(found[m], [latency, ttft, *sums])


def test_a_slate_is_of_its_ways_and_then_of_its_sets(make_spec, make_router):
    table = ModeTable(
        CATEGORIES,
        IDS,
        (*(Mode.single(name) for name in IDS), Mode("vote", (IDS,))),
        np.full((3, 5), 0.5),
        np.full((3, 5), 0.1),
        np.ones((3, 5, 4)),
        np.ones((3, 5, 1)),
    )
    router = make_router([make_spec(name) for name in IDS], np.full((3, 4), 0.5))
    router = replace(router, repertoire=Repertoire.of(table))
    request = Request((Message("user", "some code"),))
    reading = router._read(request)
    slate = router._slate(list(IDS), request, reading, Budget(), {}, [])
    assert isinstance(slate, Slate)
    kinds = [slate.candidate(k).mode.kind for k in range(slate.options.quality.size)]
    assert kinds == ["vote", *["single"] * len(IDS)]
    assert slate.options.quality[0] == 0.4
