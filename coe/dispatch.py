"""A decision among the experts that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coe.core import Budget, Request
from coe.decision import Decision
from coe.errors import InfeasibleError
from coe.load import Load

Dispatch = Callable[
    [Request, Budget | None, Mapping[str, Load], frozenset[str]], tuple[Decision, Request]
]
"""As `coe.router.Router.dispatch`."""


def among_present(
    dispatch: Dispatch,
    request: Request,
    budget: Budget | None,
    loads: Mapping[str, Load],
    absent: frozenset[str],
    excluded: frozenset[str],
) -> tuple[Decision, Request]:
    """As ``dispatch`` has it without the absent experts, as long as another may answer.

    Where none may, an absent one is decided on: that it does not answer is its own error.
    """
    if absent - excluded:
        try:
            decision, outgoing = dispatch(request, budget, loads, excluded | absent)
        except InfeasibleError as error:
            if error.code != "no_expert":
                raise
        else:
            names = ", ".join(sorted(absent - excluded))
            return replace(decision, why=f"{decision.why}; {names}: not running"), outgoing
    return dispatch(request, budget, loads, excluded)
