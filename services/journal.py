"""The last decisions and their receipts, in memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from coe.decision import Decision, Receipt


@dataclass(slots=True)
class DecisionJournal:
    """Keeps the newest ``capacity`` decisions, and whose they are; a receipt joins its decision."""

    capacity: int
    _kept: OrderedDict[str, tuple[Decision, Receipt | None]] = field(default_factory=OrderedDict)
    _owners: dict[str, str] = field(default_factory=dict)

    def note(
        self, decision: Decision, receipt: Receipt | None = None, tenant: str | None = None
    ) -> None:
        """Keep a decision, or add the receipt of one that is still kept.

        Parameters
        ----------
        tenant : whose it is; ``None``: of whom it was before, else nobody's.
        """
        decision_id = decision.decision_id
        if decision_id not in self._kept and len(self._kept) >= self.capacity:
            self._owners.pop(self._kept.popitem(last=False)[0], None)
        self._kept[decision_id] = (decision, receipt)
        if tenant:
            self._owners[decision_id] = tenant

    def find(self, decision_id: str) -> tuple[Decision, Receipt | None] | None:
        """The decision and its receipt so far; ``None`` when it is unknown or forgotten."""
        return self._kept.get(decision_id)

    def tenant(self, decision_id: str) -> str:
        """Whose a decision is; "" where it is nobody's in particular."""
        return self._owners.get(decision_id, "")
