"""The decisions of late, as an operator looks through them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from coe.errors.callers import RequestError
from coe.services.journal import DecisionJournal, Kept


class HistoryQuery(BaseModel):
    """Query of ``GET /admin/decisions``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    expert: Annotated[str, Field(max_length=256)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


def decisions_of(journal: DecisionJournal, http: Request) -> list[dict[str, Any]]:
    """A row for each decision that a query asks for, newest first.

    Raises
    ------
    RequestError
        The query is wrong; ``param`` names the field.
    """
    try:
        query = HistoryQuery.model_validate(dict(http.query_params))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise RequestError(
            "since is a time in seconds since 1970, expert an id, limit a number from 1 to 1000",
            name,
        ) from error
    return [_row(kept) for kept in journal.newest(query.limit, query.since, query.expert)]


def _row(kept: Kept) -> dict[str, Any]:
    decision, receipt = kept.decision, kept.receipt
    row: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "at": round(kept.at_s, 3),
        "tenant": kept.tenant or None,
        "policy": decision.policy,
        "category": decision.category.name,
        "experts": list(decision.selection.expert_ids),
        "status": decision.status,
        "why": decision.why,
        "outcome": None,
    }
    if receipt is None:
        return row
    names = ("outcome", "latency_ms", "energy_j", "cost_usd")
    return row | {name: getattr(receipt, name) for name in names}
