"""A simulation decides as the router does, request by request, under the same loads and prices."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.callers import InfeasibleError
from coe.errors.files import SimulationError
from coe.kernels.queues import Queues, Requests, serve
from coe.load import Load
from coe.offers import Menu, Offers
from coe.optimizer.pacing import Allowance, Pacer
from coe.optimizer.steering import declined, observe, running_prices, steered
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.simulation.arms import replayed
from coe.simulation.comparison import compare
from coe.simulation.deciding import REFUSED
from coe.simulation.setting import Budgeting, Demand, Setting

N = 400
QUALITY = [[0.4, 0.6, 0.7], [0.3, 0.8, 0.6], [0.35, 0.5, 0.65]]
# three kinds, short and long
PROMPTS = [f"{word} {'x ' * n}" for word in ("code", "maths", "poem") for n in (0, 40, 90)]
CALM = Policy("calm", prices=Prices(per_second=0.02, per_joule=0.001, per_usd=10.0))
POLICIES = {
    "nothing asked": Policy("best"),
    "prices": CALM,
    "dear seconds": Policy("fast", prices=Prices(per_second=0.5)),
    "latency, or refuse": Policy("fast", Budget(latency_ms=2500.0), Prices(per_second=0.1)),
    "latency, or nearest": Policy("fast", Budget(latency_ms=900.0), on_infeasible="nearest"),
    "first token": Policy("prompt", Budget(ttft_ms=200.0), on_infeasible="nearest"),
    "joules, or refuse": Policy("eco", Budget(energy_j=28.0), Prices(per_second=0.05)),
    "joules, or nearest": Policy("eco", Budget(energy_j=10.0), on_infeasible="nearest"),
    "dollars": Policy("cheap", Budget(cost_usd=0.0002, latency_ms=4000.0)),
}


@dataclass
class World:
    router: Router
    outcomes: Outcomes

    def setting(self, policy, rate_per_s=3.0, offers=None, allowances=(), seed=0):
        return Setting.of(
            self.router,
            self.outcomes,
            "train",
            {"mid": 2},
            Demand(N, rate_per_s),
            Budgeting(policy, allowances, offers),
            np.random.default_rng(seed),
        )


@pytest.fixture(scope="module")
def world(make_spec, make_router):
    specs = [
        make_spec("small", 50.0, 200.0, 8.0, context_tokens=40, slots=2),
        make_spec("mid", 100.0, 80.0, 15.0, usd_per_mtok_out=1.0, slots=2),
        make_spec(
            "large", 150.0, 60.0, 20.0, usd_per_mtok_in=1.0, usd_per_mtok_out=3.0, answer_tokens=90
        ),
    ]
    rng = np.random.default_rng(5)
    shape = (len(PROMPTS), len(specs))
    outcomes = Outcomes.of(
        PROMPTS,
        [spec.id for spec in specs],
        rng.random(shape),
        tokens=rng.integers(20, 160, shape).astype(float),
    )
    return World(make_router(specs, QUALITY, tokens=80.0, cautious_tokens=120.0), outcomes)


def one_by_one(world, setting, pacer=None, offers=None):
    """The same simulation with the router itself: experts, lengths and ends of answers."""
    workload, outlook = setting.workload, setting.outlook
    specs = {spec.id: spec for spec in outlook.specs}
    router = replace(world.router, specs=specs, offers=offers)
    ids = list(specs)
    n = workload.n_requests
    draws = workload.draws[:, :2].copy()
    requests = Requests(workload.at_s, np.full(n, REFUSED), np.zeros(n), np.ones(n), draws)
    queues = Queues.empty(outlook.replicas, outlook.slots_each, n)
    loads = dict.fromkeys(ids, Load())
    tokens, stretch, n_booked = np.zeros(n), np.ones(n), 0
    policy = setting.budgeting.policy
    for i in range(n):
        now_s = float(workload.at_s[i])
        for j in queues.ended[n_booked : queues.n[1]]:
            name, took_s = ids[requests.expert[j]], queues.end_s[j] - workload.at_s[j]
            loads[name] = loads[name].left(took_s / (requests.service_s[j] * stretch[j]))
            if pacer is not None:
                answer = specs[name].estimate(0.0, float(workload.prompt_tokens[j]), tokens[j])
                spent = {resource: getattr(answer, resource) for resource in pacer.resources}
                pacer.settle(float(workload.at_s[j]), spent)
        n_booked = int(queues.n[1])
        running = Prices() if pacer is None else running_prices(pacer, now_s)
        prompt = world.outcomes.prompts[workload.prompt[i]]
        request = Request((Message("user", prompt),), steered(policy, running))
        try:
            decision = replace(router.decide(request, loads=loads), running=running)
        except InfeasibleError:
            decision = None
        if decision is not None and pacer is not None:
            refused = declined(pacer, decision, policy.prices)
            observe(pacer, now_s, decision, policy.prices)
            decision = None if refused else decision
        if decision is not None:
            k = ids.index(decision.expert_id)
            longest = np.inf if decision.max_tokens is None else decision.max_tokens
            tokens[i] = min(world.outcomes.tokens[workload.prompt[i], k], longest)
            spec = specs[decision.expert_id]
            answer = spec.estimate(0.0, float(workload.prompt_tokens[i]), tokens[i])
            requests.expert[i], requests.service_s[i] = k, answer.latency_ms / 1000.0
            most = decision.max_tokens or spec.answer_tokens or 256
            longest = spec.estimate(0.0, float(workload.prompt_tokens[i]), most)
            requests.expected_s[i] = longest.latency_ms / 1000.0
            stretch[i] = spec.stretch(loads[spec.id])
            loads[spec.id] = loads[spec.id].entered()
        serve(queues, requests, (i, i + 1))
    return requests.expert, tokens, queues.end_s


def assert_same(run, found):
    np.testing.assert_array_equal(run.expert, found[0])
    np.testing.assert_allclose(run.output_tokens, found[1])
    np.testing.assert_allclose(run.end_s, found[2])


@pytest.mark.parametrize("rate_per_s", [0.5, 5.0])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_auto_is_what_the_router_decides_one_by_one(world, policy, rate_per_s):
    setting = world.setting(policy, rate_per_s)
    assert_same(replayed("auto", setting), one_by_one(world, setting))


def test_these_policies_refuse_cut_and_share_out(world):
    runs = {name: replayed("auto", world.setting(p)) for name, p in POLICIES.items()}
    assert (runs["latency, or refuse"].expert == REFUSED).any()
    assert runs["joules, or refuse"].cut.any()
    assert not runs["nothing asked"].cut.any()
    assert not (runs["joules, or nearest"].expert == REFUSED).any()
    assert np.unique(runs["prices"].expert).size == 2
    assert np.unique(runs["dear seconds"].expert).size == 3


@pytest.fixture(scope="module")
def offers(world):
    """Of a plan that keeps the dearest expert out, and another out of one category."""
    menu = {
        "code": [("small",), ("mid",)],
        "maths": [("mid",)],
        "general": [("small",), ("mid",), ("small", "mid")],
    }
    return _offers(menu)


def _offers(menu):
    column = {"mid": 0, "small": 1}
    menus = {}
    for category, sets in menu.items():
        members = np.zeros((len(sets), 2), dtype=bool)
        for row, names in enumerate(sets):
            members[row, [column[name] for name in names]] = True
        menus[category] = Menu.of(members, np.full(len(sets), 0.5))
    return Offers(tuple(column), menus)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_plan_is_what_a_router_with_the_plan_decides(world, offers, policy):
    setting = world.setting(policy, offers=offers)
    run = replayed("plan", setting)
    assert_same(run, one_by_one(world, setting, offers=offers))
    assert "large" not in {setting.expert_ids[k] for k in run.expert if k != REFUSED}


@pytest.mark.parametrize("may_decline", [False, True])
@pytest.mark.parametrize("arm", ["auto+pacing", "plan+pacing"])
def test_pacing_is_the_engine_s(world, offers, arm, may_decline):
    allowances = (
        Allowance("energy_j", 300.0, 30.0, name="joules", may_decline=may_decline),
        Allowance("cost_usd", 0.01, 60.0, name="money"),
    )
    setting = world.setting(CALM, 3.0, offers, allowances)
    theirs = one_by_one(world, setting, Pacer(allowances), offers if "plan" in arm else None)
    run = replayed(arm, setting)
    assert_same(run, theirs)
    assert (run.expert == REFUSED).any() == may_decline


# ---- whom a policy admits


ADMITTING = {
    "one banned": Policy("no", ban=frozenset({"mid"})),
    "local only": Policy("near", local_only=True, prices=CALM.prices),
    "one forced": Policy("small", force=frozenset({"small"})),
    "one of two": Policy("two", force=frozenset({"small", "mid"}), combine="never"),
    "ceilings too": Policy("eco", Budget(energy_j=28.0), ban=frozenset({"large"})),
}


@pytest.fixture(scope="module")
def divided(world):
    """The same, where the dearest expert is afar."""
    specs = {
        name: replace(spec, local=name != "large") for name, spec in world.router.specs.items()
    }
    return World(replace(world.router, specs=specs), world.outcomes)


@pytest.mark.parametrize("arm", ["auto", "plan"])
@pytest.mark.parametrize("policy", ADMITTING.values(), ids=ADMITTING)
def test_policies_admit_whom_they_admit_in_serving(divided, offers, policy, arm):
    setting = divided.setting(policy, offers=offers)
    run = replayed(arm, setting)
    assert_same(run, one_by_one(divided, setting, offers=offers if arm == "plan" else None))
    asked = {setting.expert_ids[k] for k in run.expert if k != REFUSED}
    assert asked
    assert not asked & policy.ban
    assert not policy.force or asked <= policy.force
    assert not policy.local_only or "large" not in asked


@pytest.mark.parametrize("may_decline", [False, True])
def test_pacing_admits_them_too(divided, may_decline):
    allowances = (Allowance("energy_j", 300.0, 30.0, name="joules", may_decline=may_decline),)
    policy = replace(CALM, ban=frozenset({"mid"}))
    setting = divided.setting(policy, allowances=allowances)
    assert_same(replayed("auto+pacing", setting), one_by_one(divided, setting, Pacer(allowances)))


def test_a_forced_expert_that_a_plan_does_not_keep_refuses_everything(divided, offers):
    setting = divided.setting(Policy("big", force=frozenset({"large"})), offers=offers)
    run = replayed("plan", setting)
    assert (run.expert == REFUSED).all()
    assert_same(run, one_by_one(divided, setting, offers=offers))


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (Policy("none", ban=frozenset({"small", "mid", "large"})), InfeasibleError, "excluded"),
        (Policy("far", local_only=True, ban=frozenset({"small", "mid"})), InfeasibleError, "local"),
        (Policy("who", force=frozenset({"huge"})), SimulationError, "forces huge, which may not"),
        (Policy("two", force=frozenset({"small", "mid"})), SimulationError, "combine: never"),
    ],
)
def test_what_cannot_be_simulated_is_said_before_anything_is(divided, policy, error, message):
    with pytest.raises(error, match=message):
        compare(divided.setting(policy), ["auto"])
    # who looks at no policy asks whom it asks
    assert compare(divided.setting(policy), ["random"]).arms
