"""How several experts make one answer: who is asked when, and what becomes of their answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["single", "vote", "rank", "cascade", "fuse", "mixture"]
"""What becomes of the answers.

``single``: the one there is. ``vote``: that of the verdict with most weight. ``rank``: the surest.
``cascade``: a vote after each stage, until it is sure enough. ``fuse``: another, which the last
stage writes from those before. ``mixture``: drawn token by token from all experts at once.
"""


@dataclass(frozen=True, slots=True)
class Mode:
    """Who is asked, when.

    Parameters
    ----------
    stages : ids of the experts asked at each, all of a stage at once; nobody twice, no stage
        empty. A cascade and a fusion have at least two, the writer of a fusion alone in its last;
        the others have one, and a single one expert.
    threshold : confidence in [0, 1] at which a cascade asks nobody else.
    """

    kind: Kind
    stages: tuple[tuple[str, ...], ...]
    threshold: float = 0.0

    @staticmethod
    @lru_cache(maxsize=1024)
    def single(expert_id: str) -> Mode:
        """One expert, alone."""
        return Mode("single", ((expert_id,),))

    @property
    def members(self) -> tuple[str, ...]:
        """Everyone who may be asked, in the order of the stages."""
        return tuple(name for stage in self.stages for name in stage)

    @property
    def name(self) -> str:
        """In words, such as ``a + b, else c (0.80)``."""
        if self.kind == "single":
            return self.stages[0][0]
        said = [" + ".join(stage) for stage in self.stages]
        if self.kind == "cascade":
            return f"{', else '.join(said)} ({self.threshold:.2f})"
        if self.kind == "fuse":
            return " => ".join(said)
        if self.kind == "mixture":
            return " ~ ".join(self.stages[0])
        return f"surest of {said[0]}" if self.kind == "rank" else said[0]
