"""What a simulation promises: queues that follow the formulas, figures that add up."""

import math
from dataclasses import replace

import numpy as np
import pytest

from coe.core import Budget, Policy, Prices
from coe.errors.callers import UnknownExpertError
from coe.errors.files import OutcomesError, SimulationError
from coe.optimizer.pacing import Allowance
from coe.routers.outcomes import Outcomes
from coe.simulation.arms import ARMS, replayed, two_step
from coe.simulation.comparison import compare
from coe.simulation.deciding import REFUSED
from coe.simulation.figures import figures
from coe.simulation.setting import Budgeting, Demand, Setting
from coe.simulation.workload import Trace, Workload

PROMPTS = ("some code", "some maths", "a poem")
FREE = Budgeting(Policy("best"))


def setting_of(specs, make_router, *, demand, replicas=None, budgeting=FREE, tokens=None, seed=0):
    """Experts that answer three prompts; the scores tell prompt and expert."""
    shape = (len(PROMPTS), len(specs))
    scores = np.arange(shape[0] * shape[1]).reshape(shape) / (shape[0] * shape[1])
    tokens = np.full(shape, 100.0) if tokens is None else tokens
    ids = [spec.id for spec in specs]
    return Setting.of(
        make_router(specs, scores),
        Outcomes.of(PROMPTS, ids, scores, tokens=tokens),
        "train",
        replicas or {},
        demand,
        budgeting,
        np.random.default_rng(seed),
    )


@pytest.fixture
def one(make_spec, make_router):
    """A second of work a request, whoever asks."""

    def make(load, n=200_000, slots=1, replicas=1, seed=0):
        specs = [make_spec("only", 500.0, 200.0, slots=slots)]
        demand = Demand(n, load * slots * replicas)
        return setting_of(specs, make_router, demand=demand, replicas={"only": replicas}, seed=seed)

    return make


def waits_s(setting, run):
    return run.start_s - setting.workload.at_s


# ---- queues


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_the_mean_wait_is_that_of_pollaczek_and_khinchine(one, load):
    setting = one(load)
    wait_s = waits_s(setting, replayed("best-single", setting))
    # M/D/1 with a service of one second
    expected = load / (2 * (1 - load))
    # arrivals of a busy period wait together: intervals from batches
    batches = wait_s.reshape(100, -1).mean(axis=1)
    error = batches.std(ddof=1) / math.sqrt(batches.size)
    assert abs(wait_s.mean() - expected) < 4 * error
    assert error < 0.05 * expected


def test_the_mean_wait_on_several_slots_is_erlang_s(make_spec, make_router):
    servers, load = 4, 0.8
    setting = setting_of(
        [make_spec("only", 500.0, 200.0, slots=servers)],
        make_router,
        demand=Demand(400_000, load * servers),
    )
    rng = np.random.default_rng(3)
    # exponential answers with a mean of one second in all
    workload = replace(
        setting.workload, output_tokens=np.maximum(rng.exponential(200.0, 400_000), 0)
    )
    spec = replace(setting.outlook.specs[0], profile=make_spec("x", 1e-9, 200.0).profile)
    setting = replace(setting, workload=workload, outlook=replace(setting.outlook, specs=(spec,)))
    wait_s = waits_s(setting, replayed("best-single", setting))
    offered = load * servers
    tail = offered**servers / math.factorial(servers) / (1 - load)
    waiting = tail / (sum(offered**k / math.factorial(k) for k in range(servers)) + tail)
    expected = waiting / (servers * (1 - load))
    batches = wait_s.reshape(100, -1).mean(axis=1)
    error = batches.std(ddof=1) / math.sqrt(batches.size)
    assert abs(wait_s.mean() - expected) < 4 * error
    assert error < 0.05 * expected


def test_little_s_law_holds(one):
    setting = one(0.8, n=50_000, replicas=3)
    run = replayed("best-single", setting)
    at_s, end_s = setting.workload.at_s, run.end_s
    # requests inside, integrated over time by going through arrivals and ends
    moments = np.concatenate([at_s, end_s])
    steps = np.concatenate([np.ones_like(at_s), -np.ones_like(end_s)])
    order = np.argsort(moments, kind="stable")
    inside = np.cumsum(steps[order])[:-1]
    area = float((inside * np.diff(moments[order])).sum())
    span_s = moments.max() - moments.min()
    rate = at_s.size / span_s
    assert area / span_s == pytest.approx(rate * (end_s - at_s).mean(), rel=1e-9)


def test_without_load_a_request_takes_what_the_profile_says(one):
    setting = one(1e-6, n=100)
    found = figures(
        "best-single", setting, replayed("best-single", setting), np.random.default_rng(0)
    )
    assert found.latency_ms == pytest.approx(dict.fromkeys(found.latency_ms, 1000.0))
    assert found.ttft_ms == pytest.approx(dict.fromkeys(found.ttft_ms, 500.0))
    assert found.wait_ms == 0.0
    assert found.energy_j == pytest.approx(10.0)


def test_more_replicas_wait_less(one):
    # the same arrivals and draws, ever more replicas
    waits = []
    for replicas in (1, 2, 4, 8):
        setting = one(0.9 / replicas, n=20_000, replicas=replicas)
        waits.append(waits_s(setting, replayed("best-single", setting)).mean())
    assert waits == sorted(waits, reverse=True)
    assert waits[-1] < 0.05 * waits[0]


def test_two_choices_are_better_than_chance(one):
    setting = one(0.9, n=50_000, replicas=50)
    alone = one(0.9, n=50_000)
    two = waits_s(setting, replayed("best-single", setting)).mean()
    # replicas chosen by chance are as many queues, each on its own
    assert two < 0.4 * waits_s(alone, replayed("best-single", alone)).mean()


# ---- policies


@pytest.fixture
def two(make_spec, make_router):
    def make(budgeting=FREE, n=2000, rate_per_s=1.0, seed=0, **demand):
        specs = [
            make_spec("small", 50.0, 200.0, 5.0),
            make_spec("large", 200.0, 100.0, 20.0, usd_per_mtok_out=5.0, context_tokens=60),
        ]
        return setting_of(
            specs,
            make_router,
            demand=Demand(n, rate_per_s, **demand),
            budgeting=budgeting,
            tokens=np.array([[50.0, 60.0], [80.0, 90.0], [10.0, 20.0]]),
            seed=seed,
        )

    return make


def names_without(*lacking):
    return [name for name in ARMS if not any(part in name for part in lacking)]


@pytest.mark.parametrize("name", ["single:small", *names_without("plan", "pacing")])
def test_every_request_is_answered_once_or_refused(two, name):
    setting = two(Budgeting(Policy("tight", Budget(latency_ms=2000.0))))
    run = replayed(name, setting)
    answered = run.expert != REFUSED
    assert np.isfinite(run.end_s[answered]).all()
    assert np.isnan(run.end_s[~answered]).all()
    assert (run.output_tokens[answered] > 0).all()
    found = figures(name, setting, run, np.random.default_rng(0))
    assert found.n_refused == (~answered).sum()
    assert sum(found.asked.values()) == pytest.approx(1 - found.n_refused / found.n_requests)
    assert found.n_events == found.n_requests + answered.sum()


def test_fixed_policies_ask_whom_they_say(two):
    setting = two()
    n = setting.workload.n_requests
    assert (replayed("single:small", setting).expert == 0).all()
    assert (replayed("best-single", setting).expert == 1).all()
    assert (replayed("round-robin", setting).expert == np.arange(n) % 2).all()
    share = (replayed("random", setting).expert == 1).mean()
    assert share == pytest.approx(0.5, abs=0.05)
    best = two_step(setting.expectation, setting.outlook.categories)
    assert (replayed("coe", setting).expert == best[setting.workload.prompt]).all()


def test_a_prompt_too_long_for_an_expert_is_refused(two):
    trace = Trace(np.array([10.0, 70.0]), np.array([5.0, 5.0]), np.array([0.0, 1.0]))
    setting = two(trace=trace)
    long = setting.workload.prompt_tokens == 70
    assert ((replayed("best-single", setting).expert == REFUSED) == long).all()
    # a router knows better
    assert (replayed("auto", setting).expert[long] == 0).all()


def test_figures_are_those_of_the_answers(two):
    setting = two(Budgeting(Policy("tight", Budget(latency_ms=410.0, energy_j=10.0))))
    run = replayed("round-robin", setting)
    found = figures("round-robin", setting, run, np.random.default_rng(0))
    workload, outlook = setting.workload, setting.outlook
    rows = [
        outlook.specs[k].estimate(0.0, float(p), float(t))
        for k, p, t in zip(run.expert, workload.prompt_tokens, run.output_tokens, strict=True)
    ]
    latency_ms = 1000.0 * (run.end_s - workload.at_s)
    energy_j = np.array([row.energy_j for row in rows])
    assert found.energy_j == pytest.approx(energy_j.mean())
    assert found.cost_usd == pytest.approx(np.mean([row.cost_usd for row in rows]))
    assert found.latency_ms["p95"] == pytest.approx(np.quantile(latency_ms, 0.95))
    assert found.violated == {
        "latency_ms": (latency_ms > 410).sum(),
        "energy_j": (energy_j > 10).sum(),
    }
    assert found.n_violations == ((latency_ms > 410) | (energy_j > 10)).sum()
    assert found.quality == pytest.approx(outlook.scores[workload.prompt, run.expert].mean())
    low, high = found.quality_ci95
    assert low < found.quality < high
    busy_s = (run.end_s - run.start_s)[run.expert == 1].sum()
    assert found.utilisation["large"] == pytest.approx(busy_s / run.end_s.max())
    assert found.busiest == "large"
    assert found.times_real_time == pytest.approx(found.span_s / found.elapsed_s)


def test_overload_is_told(two):
    found = compare(two(rate_per_s=10.0), ["best-single", "single:small"])
    assert found.arms[0].overloaded.keys() == {"large"}
    assert len(found.warnings) == 2
    assert "large is overloaded" in found.warnings[0]
    assert compare(two(rate_per_s=0.1), ["best-single"]).warnings == ()


def test_the_same_seed_gives_the_same_result(two):
    def told(seed):
        found = compare(two(seed=seed), names_without("plan", "pacing"), seed)
        return [replace(arm, elapsed_s=1.0) for arm in found.arms]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_progress_counts_every_request(two):
    seen = {}
    compare(
        two(), ["coe", "auto"], progress=lambda name, n: seen.update({name: seen.get(name, 0) + n})
    )
    assert seen == {"coe": 2000, "auto": 2000}


def test_pacing_makes_a_budget_last(two):
    # dear seconds keep nobody from the large expert, a budget of joules does
    policy = Policy("best", prices=Prices(per_second=0.001))
    freely = replayed("auto", two(Budgeting(policy), n=6000))
    joules = 20.0 * (freely.end_s - freely.start_s)[freely.expert == 1].sum()
    allowance = Allowance("energy_j", 0.5 * joules / 4, 1500.0, name="joules")
    setting = two(Budgeting(policy, (allowance,)), n=6000)
    arms = {arm.policy: arm for arm in compare(setting, ["auto", "auto+pacing"]).arms}
    assert arms["auto"].periods[0].fullest > 1.5
    assert arms["auto"].periods[0].n_over > 0
    assert 0.9 < arms["auto+pacing"].periods[0].fullest < 1.05
    assert arms["auto+pacing"].quality < arms["auto"].quality


# ---- what is asked for


def test_unknown_names_are_refused_before_anything_is_simulated(two):
    setting = two()
    with pytest.raises(UnknownExpertError, match="no policy 'best'; there are best-single"):
        compare(setting, ["coe", "best"])
    with pytest.raises(UnknownExpertError, match="no expert is called 'tiny'; there are small"):
        replayed("single:tiny", setting)
    with pytest.raises(SimulationError, match="no plan"):
        replayed("plan", setting)
    with pytest.raises(SimulationError, match="no budgets over time"):
        replayed("auto+pacing", setting)


def test_a_setting_that_cannot_be_is_refused(make_spec, make_router):
    specs = [make_spec("only")]

    def make(**given):
        return setting_of(specs, make_router, **{"demand": Demand(10), **given})

    with pytest.raises(SimulationError, match="no expert is called 'other'; there are only"):
        make(replicas={"other": 2})
    with pytest.raises(SimulationError, match="rate_per_s must be positive and finite, not -1"):
        make(demand=Demand(10, -1.0))
    with pytest.raises(SimulationError, match="n_requests must be at least 1"):
        make(demand=Demand(0))
    with pytest.raises(SimulationError, match="'only' has no device profile"):
        setting_of([make_spec("only", ttft_ms=0.0)], make_router, demand=Demand(10))
    router, scores = make_router(specs, [[0.5]] * 3), np.full((1, 1), 0.5)
    known = {"demand": Demand(10), "budgeting": FREE, "rng": np.random.default_rng(0)}
    with pytest.raises(OutcomesError, match="no prompt of split 'test'"):
        Setting.of(router, Outcomes.of(("code",), ["only"], scores), "test", {}, **known)
    with pytest.raises(OutcomesError, match="the table's experts are other; the artefact's only"):
        Setting.of(router, Outcomes.of(("code",), ["other"], scores), "train", {}, **known)


# ---- arrivals


def test_arrivals_have_the_rate_that_is_asked_for():
    workload = Workload.poisson(50_000, np.array([10.0, 20.0]), np.random.default_rng(0))
    gaps_s = np.diff(workload.at_rate(4.0).at_s)
    assert workload.at_rate(4.0).rate_per_s == pytest.approx(4.0)
    # without memory: the deviation of gaps is their mean
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.02)
    assert (workload.prompt_tokens == np.array([10.0, 20.0])[workload.prompt]).all()


def test_a_trace_goes_round():
    rng = np.random.default_rng(0)
    trace = Trace(np.arange(4.0), 10 * np.arange(4.0), np.array([0.0, 1.0, 3.0, 6.0]))
    workload = Workload.poisson(9, np.array([5.0]), rng).along(trace, True, rng)
    first = int(workload.prompt_tokens[0])
    assert workload.prompt_tokens.tolist() == [(first + k) % 4 for k in range(9)]
    assert (workload.output_tokens == 10 * workload.prompt_tokens).all()
    # 1, 2, 3 seconds between rows, and their mean from the last to the first
    gaps = [1.0, 2.0, 3.0, 2.0]
    assert np.diff(workload.at_s).tolist() == [gaps[(first + k) % 4] for k in range(8)]
    assert workload.at_rate(1.0).rate_per_s == pytest.approx(1.0)


def test_lengths_may_stay_those_of_the_table():
    rng = np.random.default_rng(0)
    trace = Trace(np.ones(3), np.ones(3), np.array([0.0, 1.0, 2.0]))
    workload = Workload.poisson(5, np.array([5.0]), rng).along(trace, False, rng)
    assert workload.output_tokens is None
    assert workload.prompt_tokens.tolist() == [5.0] * 5
    assert workload.at_s.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_without_a_rate_the_best_single_expert_is_fairly_busy(make_spec, make_router):
    specs = [make_spec("only", 500.0, 200.0, slots=2)]
    setting = setting_of(specs, make_router, demand=Demand(5000), replicas={"only": 3})
    assert setting.workload.rate_per_s == pytest.approx(0.7 * 6)
