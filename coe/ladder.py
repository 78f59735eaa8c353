"""What budgets of parameters buy: the best expert, and the best map from categories to experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.errors.files import OutcomesError
from coe.optimizer.map import MapProblem
from coe.optimizer.milp import budget_ladder, solve_map
from coe.routers.arms import Arm
from coe.routers.artefact import Artefact
from coe.routers.map import ExpertMap, value_and_shares
from coe.routers.quality import QualityTable

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rung:
    """CoE's best map within a budget: what it stores and runs, what the table makes it worth."""

    stored_params_b: float
    active_params_b: float
    value: float
    expert_ids: tuple[str, ...]


def under_budget(
    table: QualityTable,
    problem: MapProblem | None,
    params: Floats,
    overall: Floats,
    budget_b: float,
    names: NDArray[np.str_],
) -> list[Arm]:
    """The best expert of at most ``budget_b`` parameters, and CoE's map within as many in all.

    Parameters
    ----------
    problem : `map_problem`; without one there is no map.
    params : (n_experts,) billions of parameters.
    overall : (n_experts,) mean scores of training prompts.
    names : (n_prompts,) categories as the router sees them.

    Raises
    ------
    OutcomesError
        No expert is that small.
    """
    fits = params <= budget_b
    if not fits.any():
        raise OutcomesError(
            f"no expert has at most {budget_b:g} billion parameters, the smallest {params.min():g}"
        )
    best = int(np.where(fits, overall, -1.0).argmax())
    arms = [Arm.of(f"best single under {budget_b:g}B", np.full(len(names), best), len(params))]
    if problem is not None:
        found = solve_map(replace(problem, stored_params_b=budget_b))
        if found.assignment:
            served = ExpertMap.of(table, problem.shares, found.assignment)
            expert = dict(zip(served.categories, served.experts, strict=True))
            picks = np.array([expert[name] for name in names.tolist()])
            arms.append(Arm.of(f"two-step under {budget_b:g}B", picks, len(params)))
    return arms


def map_problem(artefact: Artefact, params: Floats, X_train: Singles) -> MapProblem | None:
    """CoE's map over the traffic of the training prompts, without ceilings.

    ``None`` where some expert's size is not known.
    """
    if not params.all():
        return None
    head = artefact.category
    seen = Counter(head.named(head.assess(X_train)).tolist())
    value, shares = value_and_shares(artefact.expectation.table, seen)
    return MapProblem(value, shares, params)


def ladder(names: Sequence[str], problem: MapProblem | None) -> tuple[Rung, ...]:
    """The best map for the budget of each expert's size and of all together, improving ones.

    Parameters
    ----------
    names : (n_experts,).
    problem : `map_problem`; without one there are no rungs.
    """
    if problem is None:
        return ()
    sizes = problem.params_b.tolist()
    rungs = budget_ladder(problem, sorted({*sizes, sum(sizes)}))
    return tuple(
        Rung(r.stored_params_b, r.active_params_b, r.value, tuple(names[e] for e in r.chosen))
        for r in rungs
    )
