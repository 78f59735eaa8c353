"""A refusal of the ledger, in words."""

from __future__ import annotations

from collections.abc import Mapping

from coe.errors.callers import BudgetExhaustedError
from coe.ledger.amounts import RESOURCES
from coe.ledger.events import Entry
from coe.ledger.limits import Limit


def exhausted(entry: Entry, limits: Mapping[str, Limit], now_ms: int) -> BudgetExhaustedError:
    """The refusal of an entry, in words, with the seconds until it is worth asking again."""
    limit = limits.get(entry.limit)
    # as budgets.yaml has it; only the ledger counts in millionths
    field = entry.resource.replace("_uj", "_j").replace("_uusd", "_usd")
    param = f"limits.{entry.limit}.{field}"
    unit = entry.resource.replace("energy_uj", "joules").replace("cost_uusd", "dollars")
    if limit is None:
        return BudgetExhaustedError(
            f"limit {entry.limit!r} left fewer {unit} than the request may take, and is no longer "
            "in force: ask again",
            param,
            retry_after_s=1,
        )
    place = RESOURCES.index(entry.resource)
    ceiling = limit.ceilings()[place]
    if ceiling is not None and entry.hold[place] > ceiling:
        return BudgetExhaustedError(
            f"the request may take more {unit} than limit {limit.name!r} allows in a window of "
            f"{limit.window_s} s: ask for a shorter answer",
            param,
        )
    left_s = max(1, -(-(entry.until_ms - now_ms) // 1000))
    return BudgetExhaustedError(
        f"limit {limit.name!r} leaves fewer {unit} than the request may take: "
        f"its next window begins in {left_s} s",
        param,
        retry_after_s=left_s,
    )
