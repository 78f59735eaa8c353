"""What a selection returns, feasible or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of `select`: a choice, or what would make one possible.

    Parameters
    ----------
    status : ``optimal`` (proved by complete enumeration) or ``infeasible``.
    index : the chosen candidate; ``None`` when infeasible.
    ranking : feasible candidates, best first; ``ranking[0] == index``.
    utility : of the chosen candidate; ``-inf`` when infeasible.
    binding : the ceiling that keeps out the candidate that would be best without ceilings
        (of several, the one it exceeds most in proportion); ``None`` when that one is chosen.
        When infeasible: the ceiling that the nearest candidate exceeds most.
    slack : per present ceiling, ceiling minus usage of the choice, in the ceiling's unit.
    needed : per present ceiling, the smallest value that would admit some candidate with all
        other ceilings kept; ``None`` where no value would. Empty when feasible.
    nearest : the candidate whose largest excess in proportion is least; ``None`` only when
        there are no candidates.
    """

    status: Literal["optimal", "infeasible"]
    index: int | None
    ranking: tuple[int, ...]
    utility: float
    binding: str | None
    slack: Mapping[str, float]
    needed: Mapping[str, float | None]
    nearest: int | None

    def taken(self, on_infeasible: Literal["reject", "nearest"]) -> int | None:
        """The candidate that a policy takes; ``None``: it refuses."""
        return self.nearest if self.index is None and on_infeasible == "nearest" else self.index
