"""What all policies of a simulation share: prompts, experts, requests, budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coe.core import Policy
from coe.errors.files import OutcomesError, SimulationError
from coe.offers import Offers
from coe.optimizer.pacing import Allowance
from coe.router import Router
from coe.routers.expectation import Expectation
from coe.routers.outcomes import Outcomes
from coe.simulation.foreseen import usage_of
from coe.simulation.outlook import Outlook
from coe.simulation.workload import Trace, Workload

_USUAL_LOAD = 0.7  # of the best single expert, where nobody says how many requests come


@dataclass(frozen=True, slots=True)
class Demand:
    """Which requests are to come.

    Parameters
    ----------
    rate_per_s : mean rate; ``None``: the trace's, and without one what keeps the best single expert
        70 % busy.
    trace : ``None``: arrivals without memory, lengths of the table.
    lengths : those of prompts and answers are the trace's.
    """

    n_requests: int
    rate_per_s: float | None = None
    trace: Trace | None = None
    lengths: bool = True


@dataclass(frozen=True, slots=True)
class Budgeting:
    """What requests may take: ceilings and prices of each, and budgets over time of all.

    ``offers`` is the plan that ``plan`` keeps to, ``None`` if there is none.
    """

    policy: Policy
    allowances: Sequence[Allowance] = ()
    offers: Offers | None = None


@dataclass(frozen=True, slots=True)
class Setting:
    """What all policies of a simulation share.

    Parameters
    ----------
    best_single : the expert that scored best on the rows that the router learned from.
    """

    outlook: Outlook
    workload: Workload
    expectation: Expectation
    best_single: int
    budgeting: Budgeting

    @classmethod
    def of(
        cls,
        router: Router,
        outcomes: Outcomes,
        split: str,
        replicas: Mapping[str, int],
        demand: Demand,
        budgeting: Budgeting,
        rng: np.random.Generator,
    ) -> Self:
        """The setting of these experts on the prompts of ``split`` that each was scored on.

        Parameters
        ----------
        replicas : how many there are of an expert; 1 of those that are not named.

        Raises
        ------
        OutcomesError
            The artefact's experts are not those of the table, or no prompt was scored by all.
        SimulationError
            An expert has no device profile, there is none of a name of ``replicas``, or a figure
            of ``demand`` is not positive.
        """
        known = router.artefact.expectation.expert_ids
        if set(known) != set(outcomes.expert_ids):
            raise OutcomesError(
                f"the table's experts are {', '.join(sorted(outcomes.expert_ids))}; "
                f"the artefact's {', '.join(sorted(known))}"
            )
        for name in replicas.keys() - set(known):
            raise SimulationError(f"no expert is called {name!r}; there are {', '.join(known)}")
        for name in known:
            if router.specs[name].profile.ttft_ms(100.0) <= 0:
                raise SimulationError(f"expert {name!r} has no device profile: how fast is it?")
        outcomes = outcomes.columns(known)
        complete: NDArray[np.bool_] = np.all(~np.isnan(outcomes.scores), axis=1)
        asked = complete & (outcomes.splits == split)
        if not asked.any():
            raise OutcomesError(f"no prompt of split {split!r} has a score of every expert")
        counts = np.array([replicas.get(name, 1) for name in known])
        outlook = Outlook.of(router, outcomes.rows(asked), counts)
        learned = outcomes.scores[outcomes.splits == "train"]
        scores = learned if learned.size else outcomes.scores
        single = int(np.nanmean(scores, axis=0).argmax())
        try:
            workload = _workload(outlook, single, demand, rng)
        except ValueError as error:
            raise SimulationError(str(error)) from error
        return cls(outlook, workload, router.artefact.expectation, single, budgeting)

    @property
    def expert_ids(self) -> tuple[str, ...]:
        """The experts, in the order of every array."""
        return tuple(spec.id for spec in self.outlook.specs)


def _workload(outlook: Outlook, single: int, demand: Demand, rng: np.random.Generator) -> Workload:
    trace = demand.trace
    workload = Workload.poisson(demand.n_requests, outlook.prompt_tokens, rng)
    if trace is not None:
        workload = workload.along(trace, demand.lengths, rng)
    if demand.rate_per_s is not None:
        return workload.at_rate(demand.rate_per_s)
    if trace is not None and trace.at_s is not None:
        return workload
    spec, everyone = outlook.specs[single], np.arange(workload.n_requests)
    lengths = outlook.lengths_of(workload, everyone, single)
    mean_s = float(usage_of(spec, workload.prompt_tokens, lengths)[:, 0].mean()) / 1000.0
    return workload.at_rate(_USUAL_LOAD * spec.slots / mean_s)
