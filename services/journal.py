"""The last decisions and their receipts, in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from coe.decision import Decision, Receipt


@dataclass(slots=True)
class DecisionJournal:
    """Keeps the newest ``capacity`` decisions; a receipt joins its decision when it comes."""

    capacity: int
    _kept: OrderedDict[str, tuple[Decision, Receipt | None]] = field(default_factory=OrderedDict)

    def note(self, decision: Decision, receipt: Receipt | None = None) -> None:
        """Keep a decision, or add the receipt of one that is still kept."""
        if decision.decision_id not in self._kept and len(self._kept) >= self.capacity:
            self._kept.popitem(last=False)
        self._kept[decision.decision_id] = (decision, receipt)

    def find(self, decision_id: str) -> tuple[Decision, Receipt | None] | None:
        """The decision and its receipt so far; ``None`` when it is unknown or forgotten."""
        return self._kept.get(decision_id)
