"""The decision on a request that names its expert, where nothing hangs on what it says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coe.candidates import UNTRAINED, candidate, cap
from coe.core import GENERAL, Budget, ExpertSpec, Request
from coe.decision import CategoryGuess, Decision, Retrieval, Selection
from coe.load import Load
from coe.permitted import capable, permitted, roomy
from coe.routers.expectation import Expectation
from coe.steps import Laps

UNREAD = CategoryGuess(
    name=GENERAL, likeliest=GENERAL, probability=0.0, entropy=0.0, distance=0.0, uncertain=True
)
"""What is said of the category of a prompt that was not read."""

_NOTHING_RETRIEVED = {
    "auto": Retrieval(False, "nothing retrieved: no index is configured"),
    "never": Retrieval(False, "not retrieved, as asked"),
}
_NO_CEILINGS = Budget()


def needs_no_reading(request: Request, may_retrieve: bool) -> bool:
    """Whether a decision on the request is the same whatever its messages say, but for estimates.

    It names its expert, sets no ceilings that an estimate could break, and asks for nothing that a
    decision would have to refuse or to explain.

    Parameters
    ----------
    may_retrieve : whether there is an index.
    """
    return (
        request.pinned is not None
        and not request.read
        and request.retrieve in (("never",) if may_retrieve else _NOTHING_RETRIEVED)
        and request.mode is None
        and request.most_experts is None
        and request.budget == _NO_CEILINGS
        and request.policy.budget == _NO_CEILINGS
    )


def decided_unread(
    request: Request,
    specs: Mapping[str, ExpertSpec],
    expectation: Expectation,
    loads: Mapping[str, Load],
    excluded: Collection[str],
    decision_id: str,
    config: str,
    lap: Laps,
) -> Decision:
    """The decision for the pinned expert, from averages over all prompts.

    Parameters
    ----------
    request : one that `needs_no_reading`, for one of the ``specs``.
    lap : runs since the decision began.

    Raises
    ------
    RequestError
        As `coe.permitted.capable` and `coe.permitted.roomy`.
    InfeasibleError
        The expert is excluded, or the policy does not permit it.
    """
    assert request.pinned is not None
    roomy([request.pinned], specs, request)
    ids = [request.pinned] if request.pinned not in excluded else []
    capable(permitted(ids, specs, request.policy), specs, request)
    spec = specs[request.pinned]
    figures = expectation.overall(spec.id) or UNTRAINED
    chosen = candidate(spec, figures, request, request.prompt_tokens, loads.get(spec.id))
    longest = cap(spec, request, None)
    lap("check")
    return Decision(
        decision_id=decision_id,
        policy=request.policy.name,
        status="pinned",
        category=UNREAD,
        selection=Selection((spec.id,), (1.0,), chosen.mode, (chosen.predicted,)),
        predicted=chosen.predicted,
        cautious=chosen.cautious,
        alternatives=(),
        budget=_NO_CEILINGS,
        binding=None,
        slack={},
        max_tokens=longest,
        why=f"{spec.id}: asked for by name",
        decide_ms=lap.total_ms,
        retrieval=_NOTHING_RETRIEVED[request.retrieve],
        steps_ms=lap.took_ms,
        config=config,
    )
