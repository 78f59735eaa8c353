"""Device profiles learned from measurements."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.device import DeviceProfile
from coe.device_fit import Measurements, fit, held_out_errors

TRUE = DeviceProfile("true", 1e-4, 0.7, 90.0, 12.0, 18.0, 22.0)


def requests(profile, n=40, seed=0, noise=0.0):
    """Whole requests as the profile would have them, each figure off by a random share."""
    rng = np.random.default_rng(seed)
    prompt, output = rng.integers(1, 4000, n).astype(float), rng.integers(1, 900, n).astype(float)
    off = np.exp(noise * rng.normal(size=(3, n)))
    ttft = np.array([profile.ttft_ms(i) for i in prompt]) * off[0]
    decode = np.array([profile.decode_ms(o) for o in output]) * off[1]
    pairs = zip(prompt, output, strict=True)
    energy = np.array([profile.energy_j(i, o) for i, o in pairs]) * off[2]
    return Measurements(prompt, output, ttft, decode, energy)


def figures(profile):
    return [
        profile.ttft_ms(16),
        profile.ttft_ms(3000),
        profile.decode_tokens_per_s,
        profile.prefill_w,
        profile.decode_w,
    ]


positive = st.floats(0.01, 100.0)
profiles = st.builds(
    DeviceProfile,
    name=st.just("any"),
    ttft_a_ms=st.just(0.0) | st.floats(1e-5, 1e-2),
    ttft_b_ms=st.just(0.0) | positive,
    ttft_c_ms=positive,
    decode_tokens_per_s=st.floats(0.5, 500.0),
    prefill_w=positive,
    decode_w=positive,
)


@settings(max_examples=40)
@given(profiles)
def test_a_profile_is_found_again_in_its_own_requests(profile):
    measured = requests(profile)
    found = fit("found", measured)
    assert found.ttft_ms(2000) == pytest.approx(profile.ttft_ms(2000), rel=1e-6)
    assert found.decode_tokens_per_s == pytest.approx(profile.decode_tokens_per_s, rel=1e-6)
    errors = held_out_errors(measured, np.random.default_rng(1))
    assert max(errors.ttft, errors.latency, errors.energy) < 1e-6


def test_phases_measured_apart_say_the_same_as_whole_requests():
    whole = requests(TRUE)
    n, none = len(whole.ttft_ms), np.full(40, np.nan)
    prefill_j = TRUE.prefill_w * whole.ttft_ms / 1000
    apart = Measurements(
        np.concatenate([whole.prompt_tokens, none]),
        np.concatenate([np.zeros(n), whole.output_tokens]),
        np.concatenate([whole.ttft_ms, none]),
        np.concatenate([none, whole.decode_ms]),
        np.concatenate([prefill_j, whole.energy_j - prefill_j]),
    )
    assert figures(fit("a", apart)) == pytest.approx(figures(fit("w", whole)), rel=1e-6)
    assert figures(fit("a", apart)) == pytest.approx(figures(TRUE), rel=1e-6)


def test_noise_shows_in_the_errors_and_hardly_in_the_profile():
    measured = requests(TRUE, n=400, noise=0.1)
    errors = held_out_errors(measured, np.random.default_rng(0))
    # the median of |N(0, 0.1)| is 0.067
    for error in (errors.ttft, errors.energy):
        assert 0.05 < error < 0.09
    assert figures(fit("noisy", measured)) == pytest.approx(figures(TRUE), rel=0.1)


def test_a_request_that_stalled_does_not_spoil_the_profile():
    measured = requests(TRUE)
    stalled = measured.ttft_ms.copy()
    stalled[7] *= 50
    spoilt = fit("s", Measurements(*measured_with(measured, ttft_ms=stalled)))
    assert figures(spoilt) == pytest.approx(figures(TRUE), rel=0.1)


def measured_with(measured, **changed):
    names = ("prompt_tokens", "output_tokens", "ttft_ms", "decode_ms", "energy_j")
    return [changed.get(name, getattr(measured, name)) for name in names]


def test_without_joules_there_are_no_watts_and_no_error_of_them():
    nothing = np.full(40, np.nan)
    measured = Measurements(*measured_with(requests(TRUE), energy_j=nothing))
    found = fit("cold", measured)
    assert (found.prefill_w, found.decode_w) == (0.0, 0.0)
    errors = held_out_errors(measured, np.random.default_rng(0))
    assert math.isnan(errors.energy)
    assert (errors.n_ttft, errors.n_latency, errors.n_energy) == (40, 40, 0)


def test_every_row_is_held_out_once_and_the_draw_decides_how():
    measured = requests(TRUE, noise=0.2)
    first, again, other = (
        held_out_errors(measured, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert (first.n_ttft, first.n_latency, first.n_energy) == (40, 40, 40)


def test_a_row_that_no_other_can_predict_is_not_counted():
    row = np.array([5.0])
    only = Measurements(row, row, row, row, row)
    errors = held_out_errors(only, np.random.default_rng(0))
    assert (errors.n_ttft, errors.n_latency, errors.n_energy) == (0, 0, 0)
    assert math.isnan(errors.ttft)


def test_too_few_prompt_lengths_and_no_decoding_are_refused_by_name():
    measured = requests(TRUE)
    same = Measurements(*measured_with(measured, prompt_tokens=np.arange(40.0) % 2))
    with pytest.raises(ValueError, match=r"^ttft_ms: measured at 2 different prompt_tokens"):
        fit("x", same)
    none = Measurements(*measured_with(measured, decode_ms=np.full(40, np.nan)))
    with pytest.raises(ValueError, match=r"^latency_ms: no row"):
        fit("x", none)
