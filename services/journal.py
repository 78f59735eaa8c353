"""The last decisions and their receipts, in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from coe.decision import Decision, Receipt


class Kept(NamedTuple):
    """A decision, when it was made, in seconds since 1970-01-01 UTC, and its receipt so far.

    ``tenant`` is whose it is, "" where it is nobody's in particular.
    """

    decision: Decision
    at_s: float
    receipt: Receipt | None
    tenant: str


@dataclass(slots=True)
class DecisionJournal:
    """Keeps the newest decisions; a receipt joins its decision when it comes.

    Parameters
    ----------
    capacity : of decisions.
    kept_for_s : how long each is kept at most.
    now : wall clock, in seconds; of times that run backwards the latest holds.
    """

    capacity: int
    kept_for_s: float = float("inf")
    now: Callable[[], float] = time.time
    _kept: OrderedDict[str, Kept] = field(default_factory=OrderedDict)
    _latest_s: float = 0.0

    def note(
        self, decision: Decision, receipt: Receipt | None = None, tenant: str | None = None
    ) -> None:
        """Keep a decision, or add the receipt of one that is still kept.

        Parameters
        ----------
        tenant : whose it is; ``None``: of whom it was before, else nobody's.
        """
        known = self._kept.get(decision.decision_id)
        if known is None:
            self._forget(self.capacity - 1)
        at_s, owner = (self._latest_s, "") if known is None else (known.at_s, known.tenant)
        self._kept[decision.decision_id] = Kept(decision, at_s, receipt, tenant or owner)

    def find(self, decision_id: str) -> tuple[Decision, Receipt | None] | None:
        """The decision and its receipt so far; ``None`` when it is unknown or forgotten."""
        self._forget(self.capacity)
        kept = self._kept.get(decision_id)
        return None if kept is None else (kept.decision, kept.receipt)

    def tenant(self, decision_id: str) -> str:
        """Whose a decision is; "" where it is nobody's in particular."""
        kept = self._kept.get(decision_id)
        return "" if kept is None else kept.tenant

    def newest(self, limit: int, since_s: float = 0.0, expert_id: str | None = None) -> list[Kept]:
        """At most so many, newest first, made since then, and by this expert if one is named.

        Looks through all that are kept since then, where few are by that expert.
        """
        self._forget(self.capacity)
        return list(islice(self._matching(since_s, expert_id), limit))

    def _matching(self, since_s: float, expert_id: str | None) -> Iterator[Kept]:
        for kept in reversed(self._kept.values()):
            if kept.at_s < since_s:
                return
            if expert_id is None or expert_id in kept.decision.selection.expert_ids:
                yield kept

    def _forget(self, most: int) -> None:
        self._latest_s = max(self._latest_s, self.now())
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if len(self._kept) <= most and oldest.at_s > self._latest_s - self.kept_for_s:
                return
            self._kept.popitem(last=False)
