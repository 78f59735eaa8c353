"""What answers cost: a record is believed, a reckoning fills in, and a guess is not made."""

import numpy as np
import pytest

from coe.core import Message, Request
from coe.routers.outcomes import Outcomes
from coe.routers.usage import Usage

NAN = np.nan
PROMPTS = ("a code", "a rather long question about maths", "")
MEASURES = ("cost_usd", "energy_j", "latency_ms")


@pytest.fixture
def experts(make_spec):
    return [
        make_spec("priced", usd_per_mtok_in=1.0, usd_per_mtok_out=3.0),
        make_spec("free", ttft_ms=50.0, watts=4.0),
        make_spec("unprofiled", watts=0.0, usd_per_mtok_out=2.0),
    ]


@pytest.fixture
def tokens():
    return np.arange(1.0, 10.0).reshape(3, 3) * 20.0


def rows(**measures):
    """Outcomes of `PROMPTS`, of which only ``measures`` are known."""
    return Outcomes.of(PROMPTS, ("priced", "free", "unprofiled"), np.ones((3, 3)), **measures)


def test_answers_are_reckoned_from_the_experts_figures(experts, tokens):
    usage = Usage.expected(PROMPTS, experts, tokens)
    for i, prompt in enumerate(PROMPTS):
        n_tokens = Request((Message("user", prompt),)).prompt_tokens
        answers = [e.estimate(0.0, n_tokens, t) for e, t in zip(experts, tokens[i], strict=True)]
        assert usage.cost_usd[i, 0] == answers[0].cost_usd
        assert usage.cost_usd[i, 2] == answers[2].cost_usd
        assert usage.energy_j[i, :2].tolist() == [a.energy_j for a in answers[:2]]
        assert usage.latency_ms[i, :2].tolist() == [a.latency_ms for a in answers[:2]]


def test_what_the_figures_do_not_tell_is_unknown(experts, tokens):
    usage = Usage.expected(PROMPTS, experts, tokens)
    for measure, known in (
        (usage.cost_usd, [True, False, True]),
        (usage.energy_j, [True, True, False]),
        (usage.latency_ms, [True, True, False]),
    ):
        np.testing.assert_array_equal(np.isfinite(measure), [known] * 3)


def test_answers_of_unknown_length_are_unknown(experts, tokens):
    tokens[1, 1] = NAN
    usage = Usage.expected(PROMPTS, experts, tokens)
    assert np.isnan(usage.energy_j[1, 1])
    assert np.isnan(usage.latency_ms[1, 1])
    assert np.isfinite(usage.energy_j[[0, 2], 1]).all()


def test_longer_answers_use_more(experts, tokens):
    short, long = (Usage.expected(PROMPTS, experts, t) for t in (tokens, 2 * tokens))
    for measure in MEASURES:
        one, other = getattr(short, measure), getattr(long, measure)
        assert (other > one)[np.isfinite(one)].all()


@pytest.mark.parametrize("measure", MEASURES)
def test_a_record_beats_the_reckoning_cell_by_cell(experts, tokens, measure):
    reckoned = Usage.expected(PROMPTS, experts, tokens)
    record = np.full((3, 3), NAN)
    record[0] = [7.0, 0.0, 9.0]
    usage = reckoned.recorded(rows(**{measure: record}))
    for name in MEASURES:
        expected = getattr(reckoned, name).copy()
        if name == measure:
            # a record of nothing is a record; where the figures were mute it is the only one
            expected[0] = record[0]
        np.testing.assert_array_equal(getattr(usage, name), expected)


def test_without_a_record_the_reckoning_stays_and_the_unknown_stays_unknown(experts, tokens):
    reckoned = Usage.expected(PROMPTS, experts, tokens)
    usage = reckoned.recorded(rows())
    for measure in MEASURES:
        np.testing.assert_array_equal(getattr(usage, measure), getattr(reckoned, measure))
    assert np.isnan(usage.cost_usd[:, 1]).all()


def test_no_prompts_use_nothing(experts):
    usage = Usage.expected((), experts, np.zeros((0, 3)))
    assert {getattr(usage, measure).shape for measure in MEASURES} == {(0, 3)}
