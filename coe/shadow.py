"""``shadow`` in ``coe.yaml``, and what a second router's decisions come to beside the first's."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from coe.decision import Decision
from coe.yamlfile import Section

FIGURES = ("quality", "latency_ms", "energy_j", "cost_usd")
"""What is predicted of both decisions, and compared."""

OUTCOMES = ("same", "different", "refused", "dropped", "failed")
"""What becomes of a request: the same experts or others, or none; or it was not decided."""

_MOST_PAIRS = 1000


class ShadowSection(Section):
    """A second router that decides beside the first, for comparison only."""

    artefact: Path
    plan: Path | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 1.0

    def beside(self, base: Path) -> ShadowSection:
        """The section with its paths resolved against ``base``."""
        plan = self.plan and base / self.plan
        return self.model_copy(update={"artefact": base / self.artefact, "plan": plan})


@dataclass(frozen=True, slots=True)
class Shade:
    """What the second router made of a request that the first one decided.

    Parameters
    ----------
    decision : ``None`` where it refused; then ``refusal`` says why.
    """

    decision: Decision | None
    refusal: str = ""

    def beside(self, live: Decision) -> dict[str, Any]:
        """As JSON, with what it predicts beyond what was predicted of the live decision."""
        if self.decision is None:
            return {"status": "refused", "message": self.refusal}
        chosen = self.decision.selection
        return {
            "status": "same" if chosen.mode == live.selection.mode else "different",
            "experts": list(chosen.expert_ids),
            "mode_name": chosen.mode.name,
            "category": self.decision.category.name,
            "predicted": {name: getattr(self.decision.predicted, name) for name in FIGURES},
            "difference": differences(self.decision, live),
            "why": self.decision.why,
        }


def differences(shadow: Decision, live: Decision) -> dict[str, float]:
    """What is predicted of the second decision, less what is of the first, by figure."""
    pairs = {n: (getattr(shadow.predicted, n), getattr(live.predicted, n)) for n in FIGURES}
    return {name: second - first for name, (second, first) in pairs.items()}


@dataclass(slots=True)
class Comparison:
    """Sums over all requests that both routers decided, or that the second did not get to.

    ``pairs`` counts who answered and who would have, as far as they differ.
    """

    counts: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0.0))

    def add(self, live: Decision, shade: Shade) -> None:
        """Count a pair of decisions."""
        if shade.decision is None:
            self.counts["refused"] += 1
            return
        for name, difference in differences(shade.decision, live).items():
            self.sums[name] += difference
        first, second = live.selection.mode, shade.decision.selection.mode
        self.counts["same" if first == second else "different"] += 1
        pair = (first.name, second.name)
        if first != second and (pair in self.pairs or len(self.pairs) < _MOST_PAIRS):
            self.pairs[pair] += 1

    def document(self) -> dict[str, Any]:
        """As JSON; mean differences are ``None`` before anything was compared."""
        counts = {name: self.counts[name] for name in OUTCOMES}
        n = counts["same"] + counts["different"]
        return {
            **counts,
            "mean_difference": {
                name: float(f"{total / n:.6g}") if n else None for name, total in self.sums.items()
            },
            "pairs": [
                {"live": live, "shadow": shadow, "n": count}
                for (live, shadow), count in self.pairs.most_common(20)
            ],
        }
