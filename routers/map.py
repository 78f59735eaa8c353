"""Which expert serves which category: step two of CoE's two-step routing, on the side of names.

The figures that a solver needs leave here as arrays; the assignment it finds comes back as a map.
CoE (arXiv 2412.01868; reconstruction, equations ours).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from coe.core import GENERAL
from coe.routers.quality import QualityTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ExpertMap:
    """One expert for every category.

    Parameters
    ----------
    categories : (n_categories,) names; the last is `GENERAL`, of prompts nobody recognised.
    expert_ids : (n_experts,) names of all experts there were to choose from.
    experts : (n_categories,) index into ``expert_ids``.
    value : mean expected score in [0, 1] over the traffic the map was made for.

    Raises
    ------
    ValueError
        The lengths disagree, a category occurs twice, or there is no such expert.
    """

    categories: tuple[str, ...]
    expert_ids: tuple[str, ...]
    experts: tuple[int, ...]
    value: float

    def __post_init__(self) -> None:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError(f"categories must differ from each other, not {self.categories}")
        if len(self.experts) != len(self.categories):
            raise ValueError(
                f"experts must name one for each of {len(self.categories)} categories, "
                f"not {len(self.experts)}"
            )
        strangers = sorted(set(self.experts) - set(range(len(self.expert_ids))))
        if strangers:
            raise ValueError(
                f"experts must be indices below {len(self.expert_ids)}, not {strangers}"
            )

    @classmethod
    def of(cls, table: QualityTable, shares: Floats, assignment: Sequence[int]) -> Self:
        """The map that a solver's ``assignment`` means: per row of the table, an expert's index.

        Its value is that on the table, so flattered: the assignment was chosen by the same figures.

        Parameters
        ----------
        shares : (n_categories,) of the traffic, as from `value_and_shares`.

        Raises
        ------
        ValueError
            The assignment does not belong to the table.
        """
        found = cls(table.categories, table.expert_ids, tuple(assignment), 0.0)
        scores = table.quality[np.arange(len(found.experts)), list(found.experts)]
        return cls(found.categories, found.expert_ids, found.experts, float(shares @ scores))

    def expert_for(self, category: str) -> str:
        """The name of the expert that serves this category.

        Raises
        ------
        ValueError
            The map has no such category.
        """
        if category not in self.categories:
            raise ValueError(f"no category {category!r} in the map; it has {self.categories}")
        return self.expert_ids[self.experts[self.categories.index(category)]]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The experts that serve some category, in the order of ``expert_ids``."""
        return tuple(self.expert_ids[e] for e in sorted(set(self.experts)))


def value_and_shares(table: QualityTable, counts: Mapping[str, float]) -> tuple[Floats, Floats]:
    """The table's scores, (n_categories, n_experts), and the rows' shares of the traffic.

    Parameters
    ----------
    counts : prompts per category, such as a ``Counter`` of the names a category router gave.
        Prompts of the name `GENERAL`, or of none, are those it was uncertain about. A category
        that is absent has none.

    Returns
    -------
    value : (n_categories, n_experts), a copy.
    shares : (n_categories,), summing to 1.

    Raises
    ------
    ValueError
        A category is not in the table, a count is negative or not finite, or all are 0.
    """
    prompts = dict.fromkeys(table.categories, 0.0)
    for name, count in counts.items():
        category = name or GENERAL
        if category not in prompts:
            raise ValueError(f"counts has {name!r}, which is not among {table.categories}")
        if not 0 <= count < np.inf:
            raise ValueError(f"counts of {name!r} must be finite and not negative, not {count}")
        prompts[category] += count
    n_prompts = sum(prompts.values())
    if n_prompts == 0:
        raise ValueError("counts must hold at least one prompt: without traffic all maps are equal")
    return table.quality.copy(), np.array(list(prompts.values())) / n_prompts
