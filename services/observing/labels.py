"""Values of labels that cannot become too many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

OTHER = "other"
"""What the values beyond the bound share."""

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class Bound(Generic[_T]):
    """What was made for label values, made once each: finding it anew costs microseconds.

    Parameters
    ----------
    make : for these values.
    most : that are told apart; for all that come later there is one, each of whose values is
        `OTHER`.
    made : what has been made so far, by its values.
    """

    make: Callable[..., _T]
    most: int = 1000
    made: dict[tuple[str, ...], _T] = field(default_factory=dict)

    def of(self, *values: str) -> _T:
        """What was made for them."""
        found = self.made.get(values)
        if found is None:
            if len(self.made) >= self.most:
                values = (OTHER,) * len(values)
            found = self.made.setdefault(values, self.make(*values))
        return found
