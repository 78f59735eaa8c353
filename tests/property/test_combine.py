"""Answers of several experts: what a vote, an early stop and a mixture promise."""

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coe.combine import choose, decided, log_odds, mixture, posterior, vote

WEIGHTS = st.floats(0, 1e6, allow_subnormal=False)
BALLOTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), WEIGHTS), min_size=1, max_size=6
)
EVEN_BALLOTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 3).map(float)),
    min_size=1,
    max_size=6,
)

Ballots = list[tuple[str | None, float]]


def elected(ballots: Ballots) -> str | None:
    verdicts, weights = zip(*ballots, strict=True)
    return verdicts[vote(verdicts, weights).winner]


@given(BALLOTS | EVEN_BALLOTS, st.randoms(use_true_random=False))
def test_the_order_of_answers_decides_nothing(ballots: Ballots, rng) -> None:
    shuffled = ballots.copy()
    rng.shuffle(shuffled)
    before, after = (vote(*zip(*some, strict=True)) for some in (ballots, shuffled))
    assert elected(shuffled) == elected(ballots)
    assert ballots[before.winner][1] == shuffled[after.winner][1]
    assert (after.share, after.tie) == (before.share, before.tie)


@given(BALLOTS | EVEN_BALLOTS, WEIGHTS)
def test_more_weight_for_the_winner_changes_nothing(ballots: Ballots, more: float) -> None:
    verdicts, weights = zip(*ballots, strict=True)
    won = vote(verdicts, weights)
    for n in won.agreeing:
        raised = [*weights]
        raised[n] += more
        assert elected(list(zip(verdicts, raised, strict=True))) == verdicts[won.winner]


@given(BALLOTS | EVEN_BALLOTS)
def test_the_winner_has_the_largest_sum(ballots: Ballots) -> None:
    sums = {
        said: math.fsum(weight for other, weight in ballots if other == said)
        for said, _ in ballots
        if said is not None
    }
    verdicts, weights = zip(*ballots, strict=True)
    won = vote(verdicts, weights)
    if not sums:
        assert (won.winner, won.agreeing, won.share) == (choose(weights), (), 0.0)
        return
    said = verdicts[won.winner]
    assert said is not None
    assert sums[said] == max(sums.values())
    assert won.tie == (sum(total == sums[said] for total in sums.values()) > 1)
    assert won.agreeing == tuple(n for n, other in enumerate(verdicts) if other == said)
    assert 0.0 <= won.share <= 1.0


@given(st.sampled_from(["a", None]), WEIGHTS)
def test_one_answer_wins_alone(said: str | None, weight: float) -> None:
    assert vote([said], [weight]).winner == 0
    assert choose([weight]) == 0
    assert decided([said], [weight], [])


@given(BALLOTS | EVEN_BALLOTS, st.integers(0, 6))
def test_stopping_early_never_changes_what_is_said(ballots: Ballots, n_known: int) -> None:
    known, out = ballots[:n_known], ballots[n_known:]
    verdicts, weights = [said for said, _ in known], [weight for _, weight in known]
    if decided(verdicts, weights, [weight for _, weight in out]) and known:
        said = elected(known)
        for others in itertools.product(["a", "b", "d", None], repeat=min(len(out), 4)):
            imagined = [(s, w) for s, (_, w) in zip(others, out, strict=False)]
            assert elected(known + imagined) == said
        assert elected(ballots) == said


@given(EVEN_BALLOTS, st.integers(0, 6))
def test_a_vote_that_is_not_decided_can_still_be_overturned_or_tied(
    ballots: Ballots, n_known: int
) -> None:
    known, out = ballots[:n_known], ballots[n_known:]
    verdicts, weights = [said for said, _ in known], [weight for _, weight in known]
    assume(known and any(said is not None for said in verdicts) and out)
    if not decided(verdicts, weights, [weight for _, weight in out]):
        said = elected(known)
        swayed = [
            vote(*zip(*known, *((other, weight) for _, weight in out), strict=True))
            for other in ("a", "b", "c", "d")
            if other != said
        ]
        assert any(won.tie or not set(won.agreeing) <= set(range(len(known))) for won in swayed)


@given(st.lists(st.floats(0.5, 0.99), min_size=1, max_size=5))
def test_log_odds_make_the_likeliest_of_two_answers_win(accuracies: list[float]) -> None:
    weights = log_odds(accuracies)
    for verdicts in itertools.product("ab", repeat=len(accuracies)):
        likelihood = {
            right: math.prod(
                p if said == right else 1 - p for said, p in zip(verdicts, accuracies, strict=True)
            )
            for right in "ab"
        }
        won = vote(verdicts, weights)
        assert likelihood[verdicts[won.winner]] >= (1 - 1e-9) * max(likelihood.values())


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1.01, 50))
def test_log_odds_grow_with_accuracy(one: float, other: float, n_options: float) -> None:
    low, high = log_odds(sorted((one, other)), n_options)
    assert 0 <= low <= high < math.inf


LOGPROBS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), min_size=1).map(
    lambda odds: {
        token: math.log(0.95 * value / sum(odds.values())) for token, value in odds.items()
    }
)


@given(st.lists(st.tuples(LOGPROBS, st.floats(0.01, 1)), min_size=1, max_size=4))
def test_a_mixture_is_a_distribution_between_those_of_its_experts(experts) -> None:
    logprobs, weights = zip(*experts, strict=True)
    mixed = mixture(logprobs, weights)
    assert math.isclose(sum(mixed.values()), 1.0)
    assert set(mixed) == {token for one in logprobs for token in one}
    assert list(mixed.values()) == sorted(mixed.values(), reverse=True)
    scaled = mixture(logprobs, [3 * weight for weight in weights])
    assert all(math.isclose(mixed[token], scaled[token]) for token in mixed)
    alone = mixture(logprobs[:1], weights[:1])
    total = sum(math.exp(value) for value in logprobs[0].values())
    assert all(math.isclose(alone[t], math.exp(v) / total) for t, v in logprobs[0].items())


def test_a_mixture_of_whole_distributions_is_their_weighted_mean() -> None:
    mixed = mixture(
        [{"a": math.log(0.9), "b": math.log(0.1)}, {"a": math.log(0.2), "b": math.log(0.8)}], [3, 1]
    )
    assert mixed == pytest.approx({"a": 0.725, "b": 0.275})


def test_a_token_that_was_not_returned_is_no_likelier_than_those_that_were() -> None:
    mixed = mixture([{"a": math.log(0.3)}, {"b": math.log(0.9)}], [1, 1])
    # the first gives b 0.3 of the 0.7 it kept to itself, the second gives a its 0.1
    assert mixed == pytest.approx({"b": 1.2 / 1.6, "a": 0.4 / 1.6})


@pytest.mark.parametrize("weights", [[], [1.0], [1.0, -1.0], [1.0, math.nan], [math.inf, 1.0]])
def test_weights_that_cannot_count_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        vote(["a", "b"], weights)
    with pytest.raises(ValueError, match="weights"):
        mixture([{"a": -1.0}, {"b": -1.0}], weights)
    with pytest.raises(ValueError, match="weights"):
        decided(["a", "b"], weights, [1.0])
    with pytest.raises(ValueError, match=r"logprobs"):
        mixture([{}], [1.0])
    with pytest.raises(ValueError, match=r"weights must not all be 0"):
        mixture([{"a": -1.0}], [0.0])
    with pytest.raises(ValueError, match="n_options"):
        log_odds([0.5], 1.0)
    with pytest.raises(ValueError, match="accuracies"):
        log_odds([1.5])


ACCURACIES = st.floats(0.3, 0.99)


@given(
    st.lists(st.tuples(st.integers(0, 3) | st.none(), ACCURACIES), min_size=1, max_size=5),
    st.integers(4, 6),
)
def test_the_posterior_is_that_of_bayes(ballots: list[tuple[int | None, float]], k: int) -> None:
    """Against the enumeration of which option is right, every option as likely before."""
    verdicts, accuracies = zip(*ballots, strict=True)
    found = posterior(verdicts, log_odds(accuracies, k), k)
    likelihood = [
        math.prod(
            p if said == right else (1 - p) / (k - 1) for said, p in ballots if said is not None
        )
        for right in range(k)
    ]
    for said, sure in zip(verdicts, found, strict=True):
        expected = 0.0 if said is None else likelihood[said] / sum(likelihood)
        assert sure == pytest.approx(expected)


@given(ACCURACIES)
def test_one_answer_is_as_likely_right_as_its_expert_is_accurate(accuracy: float) -> None:
    assert posterior(["a"], log_odds([accuracy], 4.0), 4.0) == pytest.approx((accuracy,))
    assert posterior([None], [1.0]) == (0.0,)
