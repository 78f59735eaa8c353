"""What experts that compute nothing promise, whatever is asked."""

from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coe.cache import ENTRY_BYTES, AnswerCache
from coe.core import Budget, Message, Policy, Prices, Request
from coe.decision import CategoryGuess
from coe.engine import Engine
from coe.errors.callers import InfeasibleError
from coe.experts.standing import StandingExpert
from coe.experts.stub import StubExpert
from coe.free import NullSection, free_spec, stock_of
from coe.optimizer.options import Options
from coe.optimizer.select import select_or_decline
from coe.standing import Origin, Standing

NOBODY = NullSection(id="nobody", kind="null")
GUESS = CategoryGuess("maths", "maths", 1.0, 0.0, 0.0, False)
shares = st.floats(0, 1)
names, tenants = st.sampled_from("abcd"), st.sampled_from("xy")
amounts = st.none() | st.floats(1e-3, 1e4)


@pytest.fixture(scope="module")
def plain(make_spec, make_router):
    specs = [make_spec("small"), make_spec("large", watts=100.0, usd_per_mtok_out=50.0)]
    return make_router(specs, [[0.5, 0.9], [0.75, 0.25], [0.0, 0.5]])


def requests():
    """Requests of any budget, policy and length."""
    policy = st.builds(
        Policy,
        st.just("p"),
        st.just(Budget()),
        st.builds(Prices, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e4)),
        st.sampled_from(["reject", "nearest"]),
    )
    return st.builds(
        Request,
        st.text(max_size=20).map(lambda t: (Message("user", f"some code {t}"),)),
        policy,
        st.builds(Budget, amounts, amounts, amounts, amounts),
        n_answers=st.integers(1, 3),
        stream=st.booleans(),
    )


@given(request=requests())
async def test_a_null_never_spends_and_never_takes_from_who_is_worth_it(plain, request):
    specs = {**plain.specs, "nobody": free_spec(NOBODY)}
    router = replace(plain, specs=specs, stocks={"nobody": stock_of(NOBODY)})
    decision = router.decide(request)
    without = refused = None
    try:
        without = plain.decide(request)
    except InfeasibleError as error:
        refused = error
    if without is None:
        assert decision.declined
        assert decision.needed == refused.needed
    else:
        prices = request.policy.prices
        worth = Options.of([without.predicted], [without.cautious], Budget(), prices).utility[0]
        assert decision.declined == (worth <= 0 and without.status == "optimal")
        assert decision.declined or decision.selection == without.selection
    if not decision.declined:
        return
    assert set(decision.slack) == set(decision.budget.ceilings())
    assert all(decision.slack[a] == c for a, c in decision.budget.ceilings().items())
    stubs = {name: StubExpert(name) for name in plain.specs}
    engine = Engine(router, {**stubs, "nobody": StandingExpert("nobody")})
    reply = await engine.answer(request)
    body = b"".join([piece async for piece in reply.pieces()])
    assert body.count(NOBODY.text.encode()) == request.n_answers
    assert reply.receipt.expert_id == "nobody"
    assert reply.receipt.energy_j == reply.receipt.cost_usd == 0
    assert all(stub.requests == [] for stub in stubs.values())


@given(
    rows=st.lists(st.tuples(shares, st.floats(0, 10)), max_size=5),
    worth=shares,
    ceiling=st.floats(0.1, 10),
    price=st.floats(0, 1),
    nearest=st.booleans(),
    place=st.integers(0, 5),
)
def test_declining_is_the_last_option(rows, worth, ceiling, price, nearest, place):
    place = min(place, len(rows))
    quality, energy_j = np.array([*rows[:place], (worth, 0.0), *rows[place:]]).T
    usage = np.zeros((quality.size, 4))
    usage[:, 2] = energy_j
    ceilings = np.array([np.inf, np.inf, ceiling, np.inf])
    options = Options(quality, usage, ceilings, np.array([0, 0, price, 0]))
    choice, instead = select_or_decline(options, np.arange(quality.size) == place, nearest)
    fitting = [k for k in range(quality.size) if k != place and energy_j[k] <= ceiling]
    best = max((options.utility[k] for k in fitting), default=-np.inf)
    if instead is not None:
        assert choice.index == place
        assert options.utility[place] >= best
        assert (instead.index in fitting) == bool(fitting)
        assert bool(instead.needed) == (bool(rows) and not fitting)
        assert not (nearest and rows and not fitting)
    elif choice.index is None:
        assert nearest
        assert not fitting
        least = min(u for k, u in enumerate(energy_j) if k != place)
        assert energy_j[choice.nearest] == least
        assert choice.nearest != place
    else:
        assert choice.index in fitting
        assert options.utility[choice.index] == best


class Copies(RuleBasedStateMachine):
    """The cache beside a slow twin that keeps everything in a list."""

    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        self.cache = AnswerCache(3, 3 * ENTRY_BYTES + 20, 10.0, lambda: self.now_s)
        self.twin: OrderedDict = OrderedDict()

    def request(self, name, tenant):
        return Request((Message("user", name),), tenant=tenant, payload={"prompt": name})

    @rule(
        name=st.sampled_from("abcd"), tenant=st.sampled_from("xy"), text=st.text("t", max_size=30)
    )
    def keep(self, name, tenant, text):
        answer = Standing(text, 1, 0.5, "", origin=Origin("dec-1", "large"))
        self.cache.keep(self.cache._key(self.request(name, tenant)), answer)
        if len(text) + ENTRY_BYTES > self.cache.max_bytes:
            return
        self.twin.pop((name, tenant), None)
        self.twin[name, tenant] = (self.now_s, text)
        while len(self.twin) > 3 or self.bytes_of_twin() > self.cache.max_bytes:
            self.twin.popitem(last=False)

    @rule(name=names, tenant=tenants)
    def look(self, name, tenant):
        found = self.cache.ready(self.request(name, tenant), GUESS)
        kept = self.twin.get((name, tenant))
        if kept is not None and self.now_s - kept[0] >= 10.0:
            del self.twin[name, tenant]
            kept = None
        if kept is not None:
            self.twin.move_to_end((name, tenant))
        assert (None if found is None else found.text) == (None if kept is None else kept[1])

    @rule(seconds=st.integers(1, 6))
    def wait(self, seconds):
        self.now_s += seconds

    def bytes_of_twin(self):
        return sum(ENTRY_BYTES + len(text) for _, text in self.twin.values())

    @invariant()
    def bounds_hold(self):
        assert len(self.cache) == len(self.twin) <= 3
        assert self.cache.n_bytes == self.bytes_of_twin() <= self.cache.max_bytes


TestCopies = Copies.TestCase
