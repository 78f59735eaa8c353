"""What prices of budgets promise of every stream of requests."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from coe.optimizer.dual import least_price, shadow_prices
from coe.optimizer.pacing import Allowance, Pacer

amounts = st.just(0.0) | st.floats(1e-3, 1e3)
fractions = st.floats(0, 1)


@st.composite
def samples(draw, n_resources=1):
    """Quality and usage of up to six requests with up to four options, of which some are absent."""
    n_requests, n_options = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    quality = np.array(
        [[draw(fractions) for _ in range(n_options)] for _ in range(n_requests)], dtype=float
    )
    usage = np.array(
        [draw(amounts) for _ in range(n_requests * n_options * n_resources)], dtype=float
    ).reshape(n_requests, n_options, n_resources)
    for row in range(n_requests):
        absent = draw(st.integers(0, n_options - 1))
        quality[row, n_options - absent :], usage[row, n_options - absent :] = -np.inf, 0.0
    return quality, usage


def mean_use(quality, use, price):
    best = np.argmax(quality - price * use, axis=1)
    return use[np.arange(len(use)), best].mean()


@given(samples(), amounts)
def test_a_price_is_finite_and_keeps_the_budget_where_any_price_does(sample, per_request):
    quality, use = sample[0], sample[1][:, :, 0]
    price, below, share = least_price(quality, use, per_request)
    assert 0 <= price < math.inf
    thrifty = np.where(quality > -np.inf, use, np.inf).min(axis=1).mean()
    top, _, _ = least_price(quality, use, -1.0)
    assert price <= top
    if price < top and mean_use(quality, use, 0.0) - thrifty > 1e-6:
        assert mean_use(quality, use, price) <= per_request
    assert 0 <= below <= price
    assert 0 <= share < 1
    if share > 0:
        taken = [mean_use(quality, use, p) for p in (price, below)]
        # the mixture takes the budget, but for the end of the scale, where the price is all but 0
        slack = 1e-9 * per_request if below > 2e-7 * top else taken[1] + per_request
        assert abs(taken[0] + share * (taken[1] - taken[0]) - per_request) <= slack


@given(samples(), amounts)
def test_no_price_without_need(sample, per_request):
    quality, use = sample[0], sample[1][:, :, 0]
    if mean_use(quality, use, 0.0) <= per_request:
        assert least_price(quality, use, per_request) == (0.0, 0.0, 0.0)


@given(samples(), amounts, amounts)
def test_less_budget_never_lowers_the_price(sample, one, other):
    quality, use = sample[0], sample[1][:, :, 0]
    less, more = sorted((one, other))
    assert least_price(quality, use, less)[0] >= least_price(quality, use, more)[0]


@given(samples(n_resources=1), st.floats(0.05, 1.0))
def test_the_price_is_that_of_the_linear_program(sample, share):
    quality, use = sample[0], sample[1][:, :, 0]
    present = quality > -np.inf
    per_request = share * mean_use(quality, use, 0.0)
    thrifty = np.where(present, use, np.inf).min(axis=1).mean()
    if per_request < 1.01 * thrifty + 1e-6:
        return  # next to nothing fits: the price is as high as it goes
    n_requests, n_options = quality.shape
    rows = np.kron(np.eye(n_requests), np.ones(n_options))
    found = linprog(
        -np.where(present, quality, 0.0).ravel(),
        A_ub=use.reshape(1, -1),
        b_ub=[per_request * n_requests],
        A_eq=rows,
        b_eq=np.ones(n_requests),
        bounds=[(0, float(there)) for there in present.ravel()],
    )
    price, _, _ = least_price(quality, use, per_request)
    bound = price * per_request * n_requests + (quality - price * use).max(axis=1).sum()
    top, _, _ = least_price(quality, use, -1.0)
    # the search starts 24 octaves below the top: what is below costs nothing that shows
    assert bound >= -found.fun - 1e-6
    if price < top:
        slack = 2e-3 * price * per_request * n_requests + 2.0**-24 * top * use.sum()
        assert bound <= -found.fun + slack + 1e-6


@given(samples(n_resources=2), st.lists(amounts, min_size=3, max_size=3), st.data())
def test_prices_of_several_budgets_are_finite_and_absent_without_need(sample, limits, data):
    quality, usage = sample
    flags = st.lists(st.booleans(), min_size=len(quality), max_size=len(quality))
    counted = np.array([[True] * len(quality), data.draw(flags), data.draw(flags)])
    resource = np.array([0, 1, 0])
    per_request = np.array(limits)
    found = np.zeros((3, 3))
    for _ in range(3):
        found = shadow_prices(quality, usage, counted, resource, per_request, found)
        prices = found[:, 0]
        assert np.all(found >= 0)
        assert np.all(np.isfinite(prices))
    free = usage[np.arange(len(usage)), quality.argmax(axis=1)]
    fits = all(
        free[rows, k].mean() <= limit
        for rows, k, limit in zip(counted, resource, limits, strict=True)
        if rows.any()
    )
    if fits:
        assert not prices.any()


steps = st.lists(
    st.tuples(st.floats(0, 30), fractions, fractions, amounts, amounts, st.sampled_from("ab")),
    min_size=1,
    max_size=60,
)
ALLOWANCES = [
    Allowance("energy_j", 100, 40),
    Allowance("energy_j", 70, 90, "a"),
    Allowance("requests", 9, 40),
]


def run(pacer, account, stream, now_s=0.0):
    """Requests through a pacer and an account that holds twice what is expected of each."""
    prices = []
    for wait_s, better, worse, dear, cheap, tenant in stream:
        now_s += wait_s
        quality = np.array([better, worse, 0.0])
        usage = np.array([[dear, 1.0], [cheap, 1.0], [0.0, 0.0]])
        running = list(pacer.prices(now_s, tenant).values())
        prices.append(running)
        pacer.observe(now_s, quality, usage, tenant)
        taken = usage[np.argmax(quality - usage @ np.array(running))]
        if account.reserve(now_s, tenant, 2 * taken):
            account.settle(now_s, tenant, 2 * taken, taken)
            pacer.settle(now_s, dict(zip(pacer.resources, taken.tolist(), strict=True)), tenant)
    return prices, now_s


class HardStop:
    """Amounts held and spent per allowance and window, never beyond its amount."""

    def __init__(self, allowances):
        self.allowances = allowances
        self.used = {}

    def amounts(self, now_s, tenant, amounts):
        columns = {"energy_j": 0, "requests": 1}
        return {
            (k, math.floor(now_s / a.window_s)): float(amounts[columns[a.resource]])
            for k, a in enumerate(self.allowances)
            if a.tenant in (None, tenant)
        }

    def reserve(self, now_s, tenant, amounts):
        more = self.amounts(now_s, tenant, amounts)
        if any(self.used.get(k, 0.0) + v > self.allowances[k[0]].amount for k, v in more.items()):
            return False
        self.used |= {k: self.used.get(k, 0.0) + v for k, v in more.items()}
        return True

    def settle(self, now_s, tenant, held, spent):
        for key, value in self.amounts(now_s, tenant, held - spent).items():
            self.used[key] -= value


@given(steps)
def test_running_prices_are_finite_and_a_ledger_keeps_every_ceiling(stream):
    pacer, account = Pacer(ALLOWANCES), HardStop(ALLOWANCES)
    prices, now_s = run(pacer, account, stream)
    assert np.all(np.isfinite(prices))
    assert np.min(prices) >= 0
    for (k, _), used in account.used.items():
        assert used <= ALLOWANCES[k].amount + 1e-9
    # the pacer books what the ledger does
    for k, left in enumerate(pacer.left(now_s)):
        window = math.floor(now_s / ALLOWANCES[k].window_s)
        assert left == pytest.approx(ALLOWANCES[k].amount - account.used.get((k, window), 0.0))


@given(steps, steps)
def test_a_restored_pacer_goes_on_as_the_one_that_was_kept(before, after):
    pacer = Pacer(ALLOWANCES)
    _, now_s = run(pacer, HardStop(ALLOWANCES), before)
    twin = Pacer.restored(ALLOWANCES, json.loads(json.dumps(pacer.state())))
    assert twin.state() == pacer.state()
    again = run(twin, HardStop(ALLOWANCES), after, now_s)
    assert again == run(pacer, HardStop(ALLOWANCES), after, now_s)


@given(steps, st.floats(0, 200))
def test_having_spent_more_never_lowers_the_price(stream, more):
    one, other = (Pacer(ALLOWANCES[:1]) for _ in range(2))
    now_s = 0.0
    for wait_s, better, worse, dear, cheap, _ in stream:
        now_s += wait_s
        for pacer in (one, other):
            pacer.observe(now_s, np.array([better, worse]), np.array([[dear], [cheap]]))
    other.settle(now_s, {"energy_j": more})
    assert other.prices(now_s)["energy_j"] >= one.prices(now_s)["energy_j"]
