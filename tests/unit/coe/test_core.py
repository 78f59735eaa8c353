"""The nouns: budgets, device formulas, requests, decisions."""

import math
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.core import Budget, Estimate, ExpertSpec, Message, Policy, Request
from coe.device import DeviceProfile
from coe.errors.callers import RequestError
from coe.load import Load

AXES = ("latency_ms", "ttft_ms", "energy_j", "cost_usd")
PROFILE = DeviceProfile(
    name="board",
    ttft_a_ms=0.5,
    ttft_b_ms=2.0,
    ttft_c_ms=10.0,
    decode_tokens_per_s=20.0,
    prefill_w=8.0,
    decode_w=4.0,
)
SPEC = ExpertSpec("a", PROFILE, slots=2, usd_per_mtok_in=2.0, usd_per_mtok_out=8.0)

budgets = st.builds(Budget, **{a: st.none() | st.floats(1.0, 1e6) for a in AXES})


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("ceiling", [0, -1.0, math.inf, -math.inf, math.nan])
def test_a_ceiling_that_is_not_positive_and_finite_is_refused_by_name(axis, ceiling):
    with pytest.raises(RequestError, match=axis) as refused:
        Budget(**{axis: ceiling})
    assert refused.value.param == f"coe.budget.{axis}"


def test_ceilings_are_the_present_ones_in_the_order_of_the_fields():
    assert list(Budget(cost_usd=2.0, latency_ms=1.0).ceilings().items()) == [
        ("latency_ms", 1.0),
        ("cost_usd", 2.0),
    ]
    assert Budget().ceilings() == {}


def test_tightened_takes_the_smaller_ceiling_of_both_on_every_axis():
    tight = Budget(latency_ms=5.0, energy_j=3.0).tightened(Budget(latency_ms=9.0, ttft_ms=1.0))
    assert tight == Budget(latency_ms=5.0, ttft_ms=1.0, energy_j=3.0)


@given(budgets, budgets)
def test_tightened_is_symmetric_idempotent_and_never_above_either(one, other):
    both = one.tightened(other)
    assert both == other.tightened(one) == both.tightened(one)
    for budget in (one, other):
        for axis, ceiling in budget.ceilings().items():
            assert both.ceilings()[axis] <= ceiling


def test_after_lessens_the_time_ceilings_only():
    budget = Budget(latency_ms=500.0, ttft_ms=200.0, energy_j=3.0, cost_usd=0.1)
    assert budget.after(150.0) == replace(budget, latency_ms=350.0, ttft_ms=50.0)


def test_after_the_end_of_the_time_a_millisecond_is_left():
    assert Budget(latency_ms=500.0).after(500.0) == Budget(latency_ms=1.0)
    assert Budget(latency_ms=500.0).after(9999.0) == Budget(latency_ms=1.0)


def test_after_any_time_no_ceiling_appears():
    assert Budget(energy_j=1.0).after(10.0) == Budget(energy_j=1.0)


def test_time_to_the_first_token_is_quadratic_in_the_prompt():
    # 0.5 * 4^2 + 2 * 4 + 10
    assert PROFILE.ttft_ms(4) == 26.0
    assert PROFILE.ttft_ms(0) == 10.0


def test_decoding_takes_tokens_over_rate():
    assert PROFILE.decode_ms(5) == 250.0
    assert PROFILE.decode_ms(0) == 0.0


def test_energy_is_the_power_of_each_phase_times_its_duration():
    # 8 W for 26 ms, then 4 W for 250 ms
    assert PROFILE.energy_j(4, 5) == pytest.approx(0.208 + 1.0)


def test_cost_is_the_price_of_the_tokens():
    # 2 USD a million in, 8 USD a million out
    assert SPEC.cost_usd(500_000, 250_000) == 1.0 + 2.0


def test_estimate_of_an_idle_expert_is_its_profile():
    estimate = SPEC.estimate(0.75, prompt_tokens=4, output_tokens=5)
    assert estimate == Estimate(
        quality=0.75,
        ttft_ms=26.0,
        latency_ms=276.0,
        energy_j=PROFILE.energy_j(4, 5),
        cost_usd=SPEC.cost_usd(4, 5),
        output_tokens=5,
    )


@pytest.mark.parametrize(
    ("load", "stretch"),
    [
        (Load(n_in_flight=1), 1.0),  # the second of two slots
        (Load(n_in_flight=2), 1.5),  # three requests share two slots
        (Load(n_in_flight=3), 2.0),
        (Load(slowdown=2.0), 2.0),
        (Load(n_in_flight=3, slowdown=0.5), 1.0),
    ],
)
def test_load_stretches_time_and_nothing_else(load, stretch):
    idle, busy = SPEC.estimate(0.5, 4, 5), SPEC.estimate(0.5, 4, 5, load)
    assert busy == idle._replace(ttft_ms=26.0 * stretch, latency_ms=276.0 * stretch)


def test_text_is_the_user_turns_oldest_first():
    request = Request(
        (
            Message("system", "be brief"),
            Message("user", "one"),
            Message("assistant", "two"),
            Message("tool", "42"),
            Message("user", "three"),
        )
    )
    assert request.text == "one\nthree"
    assert Request((Message("system", "be brief"),)).text == ""
    assert Request(()).text == ""


@pytest.mark.parametrize(
    ("texts", "tokens"),
    [
        ([], 0),
        ([""], 8),
        (["abc"], 9),
        (["abcd"], 9),
        (["abcde"], 10),
        (["é€"], 10),
        (["a", ""], 17),
        (["\ud83d"], 9),  # JSON may hold half a surrogate pair
    ],
)
def test_prompt_tokens_are_four_bytes_each_and_eight_a_message(texts, tokens):
    assert Request(tuple(Message("system", text) for text in texts)).prompt_tokens == tokens


def test_ceilings_of_a_request_are_the_tighter_of_its_own_and_its_policys():
    policy = Policy("p", Budget(latency_ms=100.0, energy_j=5.0))
    request = Request((), policy, Budget(latency_ms=300.0, energy_j=2.0, cost_usd=1.0))
    assert request.ceilings == Budget(latency_ms=100.0, energy_j=2.0, cost_usd=1.0)


@pytest.mark.parametrize("noun", [Budget(), PROFILE, SPEC, Request(()), Policy("p")])
def test_nouns_are_frozen(noun):
    with pytest.raises(FrozenInstanceError):
        setattr(noun, fields(noun)[0].name, "other")
