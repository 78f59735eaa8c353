import pytest

from coe.core import Budget, Estimate
from coe.decision import CategoryGuess, Decision, Selection
from coe.mode import Mode


@pytest.mark.parametrize(
    ("weights", "heaviest"), [((1.0,), "a"), ((0.25, 0.5, 0.25), "b"), ((0.5, 0.5), "a")]
)
def test_expert_id_is_the_expert_of_the_largest_weight(weights, heaviest):
    names, estimate = tuple("abc"[: len(weights)]), Estimate(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    decision = Decision(
        decision_id="dec",
        policy="default",
        status="optimal",
        category=CategoryGuess("code", "code", 1.0, 0.0, 0.0, False),
        selection=Selection(names, weights, Mode("vote", (names,)), (estimate,) * len(names)),
        predicted=estimate,
        cautious=estimate,
        alternatives=(),
        budget=Budget(),
        binding=None,
        slack={},
        max_tokens=None,
        why="",
        decide_ms=0.0,
    )
    assert decision.expert_id == heaviest
