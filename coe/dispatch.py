"""A decision among the experts that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from coe.core import Budget, Request
from coe.decision import Decision
from coe.errors.callers import RequestError
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
    absent: Mapping[str, str],
    excluded: frozenset[str],
) -> tuple[Decision, Request]:
    """As ``dispatch`` has it without the absent experts, as long as another may answer.

    Where none may, an absent one is decided on, and the request insists: that it does not answer is
    its own error.

    Parameters
    ----------
    absent : why, by expert, in words.
    """
    if not absent.keys() - excluded:
        return dispatch(request, budget, loads, excluded)
    try:
        decision, outgoing = dispatch(request, budget, loads, excluded | absent.keys())
    except RequestError:
        # nobody else fits, or can do what is asked for
        decision, outgoing = dispatch(request, budget, loads, excluded)
        return decision, replace(outgoing, insists=True)
    return replace(decision, why=f"{decision.why}; {_why(absent, excluded)}"), outgoing


def _why(absent: Mapping[str, str], excluded: frozenset[str]) -> str:
    """Why others than these were not looked at."""
    by_reason: dict[str, list[str]] = {}
    for name in sorted(absent.keys() - excluded):
        by_reason.setdefault(absent[name], []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in by_reason.items())
